"""Each person's own key, and what is sealed with it.

Personal fields are sealed with AES-256-GCM under a key of the person's own; those keys are kept wrapped by the
deployment's `ENCRYPTION_KEY`. Destroying a person's key erases everything sealed with it, in every copy there is.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from threading import Lock
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import tuple_row

KEY_BYTES = 32
NONCE_BYTES = 12
# Keys held in memory: enough for the people of a busy hour, and a bound.
MAX_CACHED = 10_000

# The person's key: what is there, or else this one. Nothing, when somebody stored theirs at the same moment.
_KEEP = """
WITH kept AS (SELECT wrapped FROM person_keys WHERE person = %(person)s), made AS (
    INSERT INTO person_keys (person, wrapped) SELECT %(person)s, %(wrapped)s WHERE NOT EXISTS (SELECT FROM kept)
    ON CONFLICT (person) DO NOTHING RETURNING wrapped
) SELECT wrapped FROM kept UNION ALL SELECT wrapped FROM made
"""

Connect = Callable[[], AbstractContextManager[Connection[Any]]]


class Keys(Struct, frozen=True):
    """The deployment's `ENCRYPTION_KEY`, several while it is being rotated, and where random bytes come from."""

    masters: tuple[bytes, ...]
    chance: Callable[[int], bytes]

    @property
    def fingerprints(self) -> tuple[bytes, ...]:
        """Keys for telling equal requests, one of each master key."""
        return tuple(sha256(b"payledger fingerprint" + key).digest() for key in self.masters)


class Vault:
    """Seals and opens. The first master key wraps; any of them unwraps."""

    def __init__(self, keys: Keys, connect: Connect) -> None:
        self._masters = [AESGCM(key) for key in keys.masters]
        self._connect = connect
        self._chance = keys.chance
        self._cached: OrderedDict[str, AESGCM] = OrderedDict()
        self._lock = Lock()

    def seal(self, person: str, about: bytes, plain: bytes) -> bytes:
        """`plain` under the person's key (made at first use), bound to `about`: it opens nowhere else."""
        key = self._remembered(person) or self._made(person)
        nonce = self._chance(NONCE_BYTES)
        return nonce + key.encrypt(nonce, plain, about)

    def open(self, person: str, about: bytes, box: bytes) -> bytes | None:
        """What was sealed; None when the person's key is gone (erased), or the box is not about this."""
        key = self._key(person)
        return _decrypted(key, box, about) if key else None

    def _remembered(self, person: str) -> AESGCM | None:
        with self._lock:
            if person in self._cached:
                self._cached.move_to_end(person)
            return self._cached.get(person)

    def _key(self, person: str) -> AESGCM | None:
        if key := self._remembered(person):
            return key
        with self._connect() as conn, conn.cursor(row_factory=tuple_row) as cursor:
            query = "SELECT wrapped FROM person_keys WHERE person = %s"
            row = cursor.execute(query, [person], prepare=True).fetchone()
        return self._kept(person, bytes(row[0])) if row else None

    def _made(self, person: str) -> AESGCM:
        """Make the person's key; if somebody else was faster, theirs is the key."""
        nonce, key = self._chance(NONCE_BYTES), self._chance(KEY_BYTES)
        wrapped = nonce + self._masters[0].encrypt(nonce, key, person.encode())
        with self._connect() as conn, conn.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(_KEEP, {"person": person, "wrapped": wrapped}, prepare=True).fetchone()
        kept = self._kept(person, bytes(row[0])) if row else self._key(person)
        assert kept is not None, "a key that was just stored can be unwrapped"  # noqa: S101
        return kept

    def _kept(self, person: str, wrapped: bytes) -> AESGCM | None:
        for master in self._masters:
            key = _decrypted(master, wrapped, person.encode())
            if key is not None:
                with self._lock:
                    self._cached[person] = AESGCM(key)
                    if len(self._cached) > MAX_CACHED:
                        self._cached.popitem(last=False)
                    return self._cached[person]
        return None


def _decrypted(key: AESGCM, box: bytes, about: bytes) -> bytes | None:
    try:
        return key.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], about)
    except InvalidTag:
        return None
