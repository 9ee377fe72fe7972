"""Whose token is believed, for how long, and how one is taken back."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from interface.invalidation import Invalidated
from interface.key_set import KeySet, KeySetUnusable, usable
from interface.migrations import migrate
from interface.tokens import SCOPES, Caller, TokenRefused, Tokens, Trust, mint
from tests.processes import eventually
from tests.system import System, problem

SECRET, OLD_SECRET = "a secret that is long enough to sign with", "the one before it, which is long enough, too"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()


def claims(**changed: Any) -> dict[str, Any]:
    given = {"sub": "shop", "scope": "read:payment", "iat": NOON, "exp": NOON + HOUR, "jti": "t-1"} | changed
    return {name: value for name, value in given.items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: Any = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm=algorithm, headers=headers)


def checked(token: str, trust: Trust | None = None, at: datetime = NOON) -> Caller:
    return Tokens(trust or Trust((SECRET,)), lambda: at).check(token)


def key_set(**more: Any) -> dict[str, Any]:
    keys = [
        json.loads(RSAAlgorithm.to_jwk(RSA.public_key())) | {"kid": "r1", "use": "sig"},
        json.loads(OKPAlgorithm.to_jwk(ED25519.public_key())) | {"kid": "e1"},
    ]
    return {"keys": keys} | more


def with_keys(tmp_path: Path, use: Callable[[Trust, Path], Awaitable[None]]) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(key_set()))

    async def run() -> None:
        keys = KeySet(str(file))
        await keys.refresh()
        await use(Trust((SECRET,), keys), file)

    asyncio.run(run())


# --- Signatures --------------------------------------------------------------------------------------------------


def test_a_token_names_its_caller() -> None:
    caller = checked(signed(scope="read:payment write:payment"))
    assert (caller.subject, caller.scopes) == ("shop", frozenset({"read:payment", "write:payment"}))
    assert (caller.expires_at, caller.token_id) == (NOON + HOUR, "t-1")


def test_a_secret_that_was_replaced_is_still_believed_while_it_is_named() -> None:
    assert checked(signed(OLD_SECRET), Trust((SECRET, OLD_SECRET))).subject == "shop"
    with pytest.raises(TokenRefused, match="not ours"):
        checked(signed(OLD_SECRET))


def test_keys_of_others_are_believed_for_their_own_algorithm(tmp_path: Path) -> None:
    async def use(trust: Trust, _: Path) -> None:
        assert checked(signed(RSA, "RS256", {"kid": "r1"}), trust).subject == "shop"
        assert checked(signed(ED25519, "EdDSA", {"kid": "e1"}), trust).subject == "shop"
        for token in (
            signed(RSA, "RS256", {"kid": "e1"}),
            signed(RSA, "RS256", {"kid": "nobody's"}),
            signed(RSA, "RS256"),
            signed(rsa.generate_private_key(65_537, 2048), "RS256", {"kid": "r1"}),
            signed(RSA, "RS512", {"kid": "r1"}),
        ):
            with pytest.raises(TokenRefused):
                checked(token, trust)

    with_keys(tmp_path, use)


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header, body = ({"alg": "HS256", "typ": "JWT", "kid": "r1"}, claims(iat=None, exp=2_000_000_000))
    parts = [jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (header, body)]
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    forged = b".".join([*parts, jwt.utils.base64url_encode(mac.sign(b".".join(parts), public))]).decode()

    async def use(trust: Trust, _: Path) -> None:
        with pytest.raises(TokenRefused):
            checked(forged, trust)

    with_keys(tmp_path, use)


def test_a_key_that_is_new_is_looked_for_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interface.key_set.MIN_REFRESH_S", 0.0)
    new = rsa.generate_private_key(65_537, 2048)

    async def use(trust: Trust, file: Path) -> None:
        tokens = Tokens(trust, lambda: NOON)
        rotated = json.loads(RSAAlgorithm.to_jwk(new.public_key())) | {"kid": "r2"}
        await asyncio.to_thread(file.write_text, json.dumps({"keys": [rotated]}))
        assert trust.keys is not None
        trust.keys._read_s = float("-inf")  # as if it had been read long ago
        token = signed(new, "RS256", {"kid": "r2"})
        with pytest.raises(TokenRefused):
            tokens.check(token)
        assert (await tokens.check_fresh(token)).subject == "shop"

    with_keys(tmp_path, use)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}', b"x" * 300_000]
)
def test_a_set_without_a_key_that_can_check_is_unusable(body: bytes) -> None:
    with pytest.raises(KeySetUnusable):
        usable(body)


def test_a_weak_key_is_not_used() -> None:
    weak = rsa.generate_private_key(65_537, 1024)
    told = json.loads(RSAAlgorithm.to_jwk(weak.public_key())) | {"kid": "w"}
    with pytest.raises(KeySetUnusable):
        usable(json.dumps({"keys": [told]}).encode())


# --- What a token says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (jwt.encode(claims(), "", algorithm="none"), "algorithm"),
        (signed("x" * 32), "not ours"),
        (signed(exp=NOON), "expired"),
        (signed(nbf=NOON + timedelta(seconds=6)), "not valid yet"),
        (signed(iat=NOON + timedelta(seconds=6)), "not valid yet"),
        (signed(exp=None), "not valid"),
        (signed(sub=None), "not valid"),
        (signed(sub=""), "subject"),
        (signed(sub="x" * 201), "subject"),
        (signed(exp=10**30), "times"),
        (signed(note="x" * 5_000), "too long"),
        ("a.b.c", "not valid"),
        ("nonsense", "not valid"),
    ],
)
def test_a_token_that_is_not_valid_is_refused(token: str, said: str) -> None:
    with pytest.raises(TokenRefused, match=said):
        checked(token)


def test_a_token_is_for_us_and_from_whom_we_trust() -> None:
    trust = Trust((SECRET,), issuer="https://issuer.example", audience="payledger")
    assert checked(signed(iss="https://issuer.example", aud=["payledger", "other"]), trust).subject == "shop"
    for changed in ({"iss": "https://issuer.example"}, {"aud": "payledger"}, {"iss": "x", "aud": "payledger"}, {}):
        with pytest.raises(TokenRefused):
            checked(signed(**changed), trust)


# --- Taken back --------------------------------------------------------------------------------------------------


def with_two(url: str, use: Callable[[Invalidated, Invalidated, list[datetime]], Awaitable[None]]) -> None:
    """What two processes know of tokens that were taken back, on one database."""
    migrate(url)
    now = [NOON]

    async def run() -> None:
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url, min_size=1, max_size=4, timeout=5, kwargs={"autocommit": True}, open=False
        )
        async with pool:
            await use(Invalidated(pool, lambda: now[0]), Invalidated(pool, lambda: now[0]), now)

    asyncio.run(run())


def test_a_token_that_was_taken_back_is_refused_at_once_here_and_soon_elsewhere(database_url: str) -> None:
    async def use(here: Invalidated, there: Invalidated, _: list[datetime]) -> None:
        await there._look()
        await here.invalidate("t-1", NOON + HOUR)
        await here.invalidate("t-1", NOON)  # asked again it stays refused as long
        tokens = Tokens(Trust((SECRET,)), lambda: NOON, here)
        with pytest.raises(TokenRefused, match="invalidated"):
            tokens.check(signed())
        assert tokens.check(signed(jti="t-2")).subject == "shop"
        await there._look()
        assert there("t-1")
        late = Invalidated(here._pool, lambda: NOON)
        await late._look()
        assert late("t-1"), "and by a process that starts later"

    with_two(database_url, use)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT jti, expires_at FROM invalidated_tokens").fetchall() == [("t-1", NOON + HOUR)]


def test_what_has_expired_is_forgotten(database_url: str) -> None:
    async def use(here: Invalidated, _: Invalidated, now: list[datetime]) -> None:
        await here.invalidate("t-1", NOON + HOUR)
        await here.invalidate("t-2", NOON + 3 * HOUR)
        now[0] += 2 * HOUR
        await here._purge()
        assert (here("t-1"), here("t-2")) == (False, True)

    with_two(database_url, use)
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT jti FROM invalidated_tokens").fetchall() == [("t-2",)]


def test_a_token_without_an_id_can_be_taken_back_by_its_digest() -> None:
    caller = checked(signed(jti=None))
    assert caller.token_id.startswith("sha256:")
    assert checked(signed(jti=None, sub="other")).token_id != caller.token_id


# --- Over HTTP ---------------------------------------------------------------------------------------------------


def token_of(system: System, *scopes: str, jti: str) -> str:
    secret = (system.data / "jwt.key").read_text().strip()
    now = datetime.now(UTC)
    return mint(secret, "somebody", scopes or SCOPES, now, HOUR, jti=jti)


def asked(system: System, token: str) -> httpx.Response:
    return httpx.get(f"{system.url}/v1/orders", headers={"Authorization": f"Bearer {token}"})


def take_back(system: System, token: str, jti: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{system.url}/v1/tokens/{jti}/invalidation", json={}, headers=headers)


def test_a_caller_takes_its_own_token_back_and_nobody_else_s(system: System) -> None:
    jti, other = str(uuid4()), str(uuid4())
    token = token_of(system, "read:payment", jti=jti)
    assert asked(system, token).status_code == 200
    refused = take_back(system, token, other)
    assert problem(refused, 403)["detail"] == "somebody else's token needs the scope admin"
    assert take_back(system, token, jti).json() == {"token_id": jti, "invalidated": True}
    answer = asked(system, token)
    assert answer.status_code == 401
    assert "invalid_token" in answer.headers["WWW-Authenticate"]
    assert take_back(system, token_of(system, "admin", jti=str(uuid4())), other).status_code == 200
    assert asked(system, token_of(system, jti=other)).status_code == 401


def test_a_token_is_revoked_from_the_command_line(system: System) -> None:
    jti = str(uuid4())
    token = token_of(system, jti=jti)
    command = [sys.executable, "-m", "interface.cli", "token", "revoke", "--database-url", system.database_url]
    assert subprocess.run([*command, token], capture_output=True, check=False).returncode == 2, "never the token itself"
    subprocess.run([*command, jti], capture_output=True, check=True)
    eventually(lambda: asked(system, token).status_code == 401)


def test_a_token_for_development_is_minted_on_the_command_line_with_the_scopes_that_were_asked_for(
    system: System,
) -> None:
    command = [sys.executable, "-m", "interface.cli", "token", "--data", str(system.data), "--scope", "read:payment"]
    minted = subprocess.run([*command, "--subject", "a-reader"], capture_output=True, text=True, check=True).stdout
    token = minted.strip()
    assert asked(system, token).status_code == 200
    assert problem(system.pay(token=token), 403)["detail"] == "this needs the scope write:payment"
    nobody = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (nobody.returncode, "--subject" in nobody.stderr) == (2, True)


def test_without_a_scope_it_is_said_which(system: System) -> None:
    answer = asked(system, token_of(system, "write:payment", jti=str(uuid4())))
    assert problem(answer, 403)["detail"] == "this needs the scope read:payment"
    assert 'scope="read:payment"' in answer.headers["WWW-Authenticate"]
