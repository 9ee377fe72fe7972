"""Idempotency keys as Stripe keeps them.

The first answer of a request that reached its endpoint is kept with its key for 24 hours, be it 200, 402 or 500, and
is given again for the same request. Another path or other parameters are refused, and so is a second request while the
first one runs. What fails before the endpoint keeps nothing.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from interface.sandbox.stripe_errors import key_in_use, key_mismatch, refused
from interface.sandbox.stripe_forms import Pairs
from interface.sandbox.stripe_journal import Kept

KEPT_S = 24 * 3600
MAX_KEY_CHARS = 255

_SECRETS = ("[number]", "[cvc]")
_SHOWN_OF_SECRET = 4


class Keys:
    """Kept answers, oldest first."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._running: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, kept: Kept) -> None:
        self._kept.pop(kept.key, None)
        self._kept[kept.key] = kept

    def forget_expired(self, now: int) -> None:
        """Keys are in order of time, so this looks at no more than it removes, and one."""
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if now - oldest.at < KEPT_S:
                return
            del self._kept[oldest.key]

    @contextmanager
    def claim(self, key: str, path: str, fingerprint: str, now: int) -> Iterator[Kept | None]:
        """The answer already given, or None and the key is ours until the block ends."""
        self.forget_expired(now)
        if (kept := self._kept.get(key)) is not None:
            if kept.path != path:
                raise key_mismatch(key, other_path=kept.path, path=path)
            if kept.fingerprint != fingerprint:
                raise key_mismatch(key, other_path=None, path=path)
            yield kept
            return
        if key in self._running:
            raise key_in_use(key)
        self._running[key] = path
        try:
            yield None
        finally:
            del self._running[key]


def check_key(key: str) -> None:
    if len(key) > MAX_KEY_CHARS:
        raise refused(
            f"Keys for idempotent requests can be at most {MAX_KEY_CHARS} characters long; yours has {len(key)}.",
            code="parameter_invalid",
            param="Idempotency-Key",
        )


def fingerprint_of(pairs: Pairs) -> str:
    """Equal for equal parameters in any order. Card numbers go in by their last digits, so no hash gives them away."""
    shown = sorted((name, text[-_SHOWN_OF_SECRET:] if name.endswith(_SECRETS) else text) for name, text in pairs)
    return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()
