"""Ids that look like Stripe's: a prefix and random letters and digits."""

import secrets
import string

_ALPHABET = (string.ascii_letters + string.digits).encode()
_BYTE_TO_CHAR = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))

_LENGTHS = {"cus_": 14, "req_": 14}
_USUAL_LENGTH = 24
_POOL_BYTES = 1_024
_pool = b""


def new_id(prefix: str) -> str:
    """For example `pi_` and 24 characters."""
    return prefix + random_text(_LENGTHS.get(prefix, _USUAL_LENGTH))


def random_text(length: int) -> str:
    global _pool  # noqa: PLW0603 - one system call for many ids
    if len(_pool) < length:
        _pool = secrets.token_bytes(_POOL_BYTES)
    taken, _pool = _pool[:length], _pool[length:]
    return taken.translate(_BYTE_TO_CHAR).decode()
