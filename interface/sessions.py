"""Sessions of people: a JSON Web Token with `{id, email}`, signed as all tokens are (interface/tokens.py).

It names no scopes and need not end. Whoever shows it may do what a person may do with what is their own.
"""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from typing import Any

from msgspec import DecodeError, Struct, ValidationError, json

from interface.tokens import MAX_SUBJECT_LENGTH, Caller, TokenRefused, Tokens

COOKIE = "session"
MAX_COOKIE_LENGTH = 8_192
NEVER = datetime.max.replace(tzinfo=UTC)


class Sessions(Tokens):
    """Checks sessions. Their e-mail is not looked at."""

    required = ()

    def _caller(self, token: str, claims: dict[str, Any]) -> Caller:
        user, zone = claims.get("id", claims.get("sub")), self._clock().tzinfo
        if not isinstance(user, str | int) or not 1 <= len(str(user)) <= MAX_SUBJECT_LENGTH:
            raise TokenRefused("the session names nobody")
        try:
            ends, begins = claims.get("exp"), claims.get("nbf", claims.get("iat"))
            expires_at = datetime.fromtimestamp(int(ends), zone) if ends is not None else NEVER
            begins_at = datetime.fromtimestamp(int(begins), zone) if begins is not None else None
        except (ValueError, TypeError, OverflowError, OSError):
            raise TokenRefused("the session's times are not times") from None
        token_id = str(claims.get("jti") or f"sha256:{hashlib.sha256(token.encode()).hexdigest()}")
        return Caller(str(user), frozenset(), expires_at, token_id, begins_at)


class _Kept(Struct, frozen=True):
    jwt: str


def token_in(cookie: str) -> str:
    """The token of a session cookie: the cookie itself, or what a `cookie-session` has written around it.

    That is `{"jwt": "…"}` in base64. Raises TokenRefused.
    """
    if "." in cookie:
        return cookie
    try:
        written = base64.b64decode(cookie + "=" * (-len(cookie) % 4), altchars=b"-_", validate=True)
        return json.decode(written, type=_Kept).jwt
    except (binascii.Error, ValueError, DecodeError, ValidationError, RecursionError):
        raise TokenRefused("the session is not one") from None
