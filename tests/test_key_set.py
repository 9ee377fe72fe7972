"""Keys of others are read from a file or an address, and read again; whatever goes wrong there takes none away."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, get
from litestar.datastructures import State

from interface.key_set import MAX_BYTES, KeySet, KeySetUnusable
from interface.tokens import TokenRefused, Tokens, Trust
from interface.web.access import authenticated
from tests.key_issuer import Issuer, Key, set_of, with_body
from tests.system import System
from tests.test_rate_limits_shared import asked, at_once, environment, one_more_api
from tests.test_settings import start

TOO_SOON_S = 0.2
FIRST, SECOND = Key("first"), Key("second")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    issuer.serve(FIRST)
    yield issuer
    issuer.stop()


def with_keys(issuer: Issuer, use: Callable[[KeySet, Tokens], Awaitable[None]]) -> None:
    """Tokens checked with the issuer's keys, which have been read once."""

    async def run() -> None:
        keys = KeySet(issuer.url)
        await keys.refresh()
        await use(keys, Tokens(Trust((), keys), lambda: datetime.now(UTC)))

    asyncio.run(run())


def as_if_read_long_ago(keys: KeySet) -> None:
    keys._read_s = float("-inf")


def test_keys_that_were_replaced_are_found_at_their_address(issuer: Issuer) -> None:
    async def use(keys: KeySet, tokens: Tokens) -> None:
        assert (await tokens.check_fresh(FIRST.token())).subject == "shop"
        issuer.serve(SECOND)
        with pytest.raises(TokenRefused, match="a key that we do not know"):
            await tokens.check_fresh(SECOND.token())
        as_if_read_long_ago(keys)
        assert (await tokens.check_fresh(SECOND.token())).subject == "shop"
        with pytest.raises(TokenRefused, match="a key that we do not know"):
            await tokens.check_fresh(FIRST.token())

    with_keys(issuer, use)


def test_tokens_with_unknown_keys_do_not_make_us_ask_for_each(issuer: Issuer) -> None:
    async def use(_: KeySet, tokens: Tokens) -> None:
        for _attempt in range(50):
            with pytest.raises(TokenRefused):
                await tokens.check_fresh(SECOND.token())

    with_keys(issuer, use)
    assert issuer.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        with_body(b"", status=500),
        with_body(b"not found", status=404),
        with_body(b""),
        with_body(b"<html>sign in</html>"),
        with_body(b'{"keys": ['),
        with_body(b'{"keys": []}'),
        with_body(b"\xff\xfe\x00"),
        with_body(b" " * (MAX_BYTES + 1)),
        with_body(b"", status=302, location="/keys"),
        lambda handler: handler.connection.close(),
    ],
    ids=["error", "nothing", "no body", "page", "half a set", "no keys", "bytes", "too much", "circle", "silence"],
)
def test_whatever_the_address_answers_the_keys_that_were_read_stay(issuer: Issuer, answer: Any) -> None:
    async def use(keys: KeySet, tokens: Tokens) -> None:
        issuer.answer = answer
        as_if_read_long_ago(keys)
        with pytest.raises(KeySetUnusable):
            await keys.refresh()
        as_if_read_long_ago(keys)
        with pytest.raises(TokenRefused, match="a key that we do not know"):
            await tokens.check_fresh(SECOND.token())
        assert (await tokens.check_fresh(FIRST.token())).subject == "shop"

    with_keys(issuer, use)


def test_an_address_that_does_not_answer_in_time_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interface.key_set.TIMEOUT_S", 0.1)

    async def use(keys: KeySet, tokens: Tokens) -> None:
        issuer.answer = issuer.keeps_waiting
        as_if_read_long_ago(keys)
        with pytest.raises(KeySetUnusable, match="TimeoutError"):
            await keys.refresh()
        assert (await tokens.check_fresh(FIRST.token())).subject == "shop"

    with_keys(issuer, use)


def test_a_key_set_that_comes_in_pieces_is_read_to_its_end(issuer: Issuer) -> None:
    async def use(keys: KeySet, _: Tokens) -> None:
        issuer.answer = issuer.in_two_halves(FIRST, SECOND)
        as_if_read_long_ago(keys)
        reading = asyncio.create_task(keys.refresh())
        await asyncio.wait({reading}, timeout=TOO_SOON_S)  # in which it would be content with the first
        issuer.go_on.set()
        await reading
        assert keys.key("second")

    with_keys(issuer, use)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"keys": null}',
        b'{"keys": {"kty": "RSA"}}',
        b'{"keys": ["RSA"]}',
        b'{"keys": [{"kty": []}]}',
        b'{"keys": [{"kty": "RSA", "alg": [], "n": {}, "e": 3, "kid": "k"}]}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "/", "kid": "k"}]}',
        set_of(Key(["a", "list"])),
    ],
    ids=["deep", "no keys", "an object", "a name", "a kind that is a list", "other types", "half a key", "odd names"],
)
def test_a_key_set_that_is_written_strangely_is_unusable(issuer: Issuer, body: bytes) -> None:
    issuer.answer = with_body(body)
    with pytest.raises(KeySetUnusable):
        asyncio.run(KeySet(issuer.url).refresh())


def test_a_token_is_believed_no_longer_than_its_key(issuer: Issuer) -> None:
    async def use(keys: KeySet, tokens: Tokens) -> None:
        token = FIRST.token()
        assert (await tokens.check_fresh(token)).subject == "shop"
        issuer.serve(SECOND)
        as_if_read_long_ago(keys)
        await keys.refresh()
        with pytest.raises(TokenRefused):
            await tokens.check_fresh(token)

    with_keys(issuer, use)


def test_a_request_signed_with_a_new_key_is_let_in_without_a_restart(issuer: Issuer) -> None:
    @get("/", guards=[authenticated])
    async def here() -> str:
        return "here"

    async def use(keys: KeySet, tokens: Tokens) -> None:
        app = Litestar([here], state=State({"tokens": tokens}), logging_config=None)
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # its own types for the same thing
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as client:

            async def status(key: Key) -> int:
                return (await client.get("/", headers={"Authorization": f"Bearer {key.token()}"})).status_code

            assert (await status(FIRST), await status(SECOND)) == (200, 401)
            issuer.serve(SECOND)
            as_if_read_long_ago(keys)
            assert (await status(SECOND), await status(FIRST)) == (200, 401)

    with_keys(issuer, use)


@pytest.mark.parametrize("source", ["missing.json", "empty.json", "http://127.0.0.1:1/keys"])
def test_what_is_not_there_or_holds_no_key_is_unusable(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text('{"keys": []}')
    with pytest.raises(KeySetUnusable):
        asyncio.run(KeySet(source if source.startswith("http") else str(tmp_path / source)).refresh())


def test_a_process_without_keys_does_not_start_and_says_which_setting(system: System, tmp_path: Path) -> None:
    ended, said = start(environment(system, JWT_JWKS=str(tmp_path / "missing.json")))
    assert ended == 1, said
    assert "JWT_JWKS names no key set" in said
    assert "Traceback" not in said


def test_processes_believe_the_keys_of_a_file_or_an_address(system: System, issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(set_of(FIRST))
    own = {"RATE_LIMIT": "off", "JWT_SECRET_KEY": ""}
    by_address, by_file = (one_more_api(system, JWT_JWKS=source, **own) for source in (issuer.url, str(file)))
    with at_once(by_address, by_file) as processes:
        issuer.answer = with_body(b"<html>sorry</html>", status=503)
        file.unlink()
        for process in processes:
            for key, status in ((FIRST, 200), (SECOND, 401)):
                assert asked(process, {"Authorization": f"Bearer {key.token()}"}).status_code == status
