"""Access tokens: JSON Web Tokens signed with HS256, made for development and checked on every request."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

import jwt
from msgspec import Struct

ALGORITHM = "HS256"
SCOPES = ("write:payment", "read:payment", "audit", "admin")
MAX_TOKEN_LENGTH = 4_096
# Checked tokens that are remembered, so that a busy caller's signature is not computed anew for each request.
MAX_REMEMBERED = 10_000


class TokenRefused(Exception):  # noqa: N818  it says what happened
    """The token is not one of ours, not valid now, or not a token. The reason is fit to be told."""


class Caller(Struct, frozen=True):
    """Who is calling. `subject` names them in every fact they cause."""

    subject: str
    scopes: frozenset[str]
    expires_at: datetime


def mint(secret: str, subject: str, scopes: tuple[str, ...], now: datetime, lifetime: timedelta) -> str:
    """A signed token for `subject`, valid from `now` on."""
    claims = {
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + lifetime,
        "jti": secrets.token_hex(16),
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


class Tokens:
    """Checks tokens against the secrets in force (several while they are being rotated)."""

    def __init__(self, secret_keys: tuple[str, ...], clock: Callable[[], datetime]) -> None:
        self._secret_keys = secret_keys
        self._clock = clock
        self._remembered: OrderedDict[str, Caller] = OrderedDict()

    def check(self, token: str) -> Caller:
        """The caller that the token names. Raises TokenRefused."""
        caller = self._remembered.get(token)
        if caller is None:
            caller = self._verified(token)
            self._remembered[token] = caller
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        if caller.expires_at <= self._clock():
            raise TokenRefused("the token has expired")
        return caller

    def _verified(self, token: str) -> Caller:
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenRefused("the token is too long")
        for secret in self._secret_keys:
            try:
                claims = jwt.decode(token, secret, algorithms=[ALGORITHM], options={"require": ["sub", "exp"]})
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise TokenRefused("the token has expired") from None
            except jwt.InvalidTokenError:
                raise TokenRefused("the token is not valid") from None
            scopes = frozenset(str(claims.get("scope", "")).split())
            expires_at = datetime.fromtimestamp(claims["exp"], self._clock().tzinfo)
            return Caller(str(claims["sub"]), scopes, expires_at)
        raise TokenRefused("the token's signature is not ours")
