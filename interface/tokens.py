"""Access tokens: JSON Web Tokens (RFC 7519), signed with a secret of ours or with a key of an issuer that we trust."""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import jwt
from msgspec import Struct

from interface.key_set import ALGORITHMS, KeySet, KeySetUnusable

SYMMETRIC = "HS256"
SCOPES = ("write:payment", "read:payment", "audit", "admin")
MAX_TOKEN_LENGTH = 4_096
MAX_SUBJECT_LENGTH = 200
# Between clocks: a token may begin so much in our future.
LEEWAY = timedelta(seconds=5)
# Checked tokens that are remembered, so that a busy caller's signature is not computed anew for each request.
MAX_REMEMBERED = 10_000


class TokenRefused(Exception):  # noqa: N818  it says what happened
    """The token is not one of ours, not valid now, or not a token. The reason is fit to be told."""


class KeyUnknown(TokenRefused):
    """The token names a key that is not in the key set, which may have been rotated since it was read."""


class Caller(Struct, frozen=True):
    """Who is calling. `subject` names them in every fact they cause; `token_id` is what the token is invalidated by."""

    subject: str
    scopes: frozenset[str]
    expires_at: datetime
    token_id: str
    begins_at: datetime | None = None


class Trust(Struct, frozen=True):
    """Whose tokens are accepted: signed with one of these secrets or keys, and from and for whom, where that is set."""

    secrets: tuple[str, ...]
    keys: KeySet | None = None
    issuer: str | None = None
    audience: str | None = None


def mint(
    secret: str,
    subject: str,
    scopes: tuple[str, ...],
    now: datetime,
    lifetime: timedelta,
    **more: str,
) -> str:
    """A signed token for `subject`, valid from `now` on. `more` are further claims, such as its issuer (`iss`)."""
    claims: dict[str, Any] = {
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + lifetime,
        "jti": secrets.token_hex(16),
    }
    return jwt.encode(claims | more, secret, algorithm=SYMMETRIC)


class Tokens:
    """Checks tokens. `invalidated` tells whether one was taken back."""

    # The claims that a token is nothing without.
    required: tuple[str, ...] = ("sub", "exp")

    def __init__(
        self,
        trust: Trust,
        clock: Callable[[], datetime],
        invalidated: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._trust = trust
        self._clock = clock
        self._invalidated = invalidated
        self._remembered: OrderedDict[str, Caller] = OrderedDict()
        self._readings = 0

    def check(self, token: str) -> Caller:
        """The caller that the token names. Raises TokenRefused."""
        if self._trust.keys is not None and self._trust.keys.readings != self._readings:
            self._readings = self._trust.keys.readings
            self._remembered.clear()  # a token is believed no longer than its key
        caller = self._remembered.get(token)
        if caller is None:
            caller = self._verified(token)
            self._remembered[token] = caller
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        now = self._clock()
        if caller.expires_at <= now:
            raise TokenRefused("the token has expired")
        if caller.begins_at is not None and caller.begins_at > now + LEEWAY:
            raise TokenRefused("the token is not valid yet")
        if self._invalidated(caller.token_id):
            raise TokenRefused("the token was invalidated")
        return caller

    async def check_fresh(self, token: str) -> Caller:
        """Likewise; a key that we do not know is looked for once more where the keys come from."""
        try:
            return self.check(token)
        except KeyUnknown:
            keys = self._trust.keys
            if keys is None:
                raise
            with suppress(KeySetUnusable):
                await keys.refresh()
            return self.check(token)

    def _verified(self, token: str) -> Caller:
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenRefused("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise TokenRefused("the token is not valid") from None
        algorithm = header.get("alg")
        if algorithm == SYMMETRIC:
            claims = self._signed_with_secret(token)
        elif algorithm in ALGORITHMS:
            claims = self._signed_with_key(token, str(header.get("kid", "")), algorithm)
        else:
            raise TokenRefused("the token is not signed with an algorithm that we accept")
        return self._caller(token, claims)

    def _signed_with_secret(self, token: str) -> dict[str, Any]:
        for secret in self._trust.secrets:
            try:
                return self._decoded(token, secret, SYMMETRIC)
            except jwt.InvalidSignatureError:
                continue
        raise TokenRefused("the token's signature is not ours")

    def _signed_with_key(self, token: str, key_id: str, algorithm: str) -> dict[str, Any]:
        key = self._trust.keys.key(key_id) if self._trust.keys else None
        if key is None:
            raise KeyUnknown("the token is signed with a key that we do not know")
        if key.algorithm_name != algorithm:
            raise TokenRefused("the token's key is for another algorithm")
        try:
            return self._decoded(token, key, algorithm)
        except jwt.InvalidSignatureError:
            raise TokenRefused("the token's signature does not fit its key") from None

    def _decoded(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        # Times are judged by our own clock, each time the token is shown.
        options: Any = {
            "require": list(self.required),
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_aud": self._trust.audience is not None,
            "verify_iss": self._trust.issuer is not None,
        }
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options=options,
                issuer=self._trust.issuer,
                audience=self._trust.audience,
            )
        except jwt.InvalidSignatureError:
            raise
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError) as error:
            raise TokenRefused(f"the token is not for us ({type(error).__name__})") from None
        except jwt.InvalidTokenError:
            raise TokenRefused("the token is not valid") from None
        return claims

    def _caller(self, token: str, claims: dict[str, Any]) -> Caller:
        subject, zone = str(claims["sub"]), self._clock().tzinfo
        if not 1 <= len(subject) <= MAX_SUBJECT_LENGTH:
            raise TokenRefused("the token's subject is empty or too long")
        try:
            expires_at = datetime.fromtimestamp(int(claims["exp"]), zone)
            begins = claims.get("nbf", claims.get("iat"))
            begins_at = datetime.fromtimestamp(int(begins), zone) if begins is not None else None
        except (ValueError, TypeError, OverflowError, OSError):
            raise TokenRefused("the token's times are not times") from None
        scopes = frozenset(str(claims.get("scope", "")).split())
        # A token without an id of its own can be taken back all the same.
        token_id = str(claims.get("jti") or f"sha256:{hashlib.sha256(token.encode()).hexdigest()}")
        return Caller(subject, scopes, expires_at, token_id, begins_at)
