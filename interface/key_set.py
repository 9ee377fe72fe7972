"""Public keys that others sign their tokens with: a JSON Web Key Set (RFC 7517) from a file or an address.

It is read anew now and then, and when a token names a key that is not in it, so that a rotation needs no restart.
"""

import asyncio
import json
import logging
from pathlib import Path

import aiohttp
import jwt

log = logging.getLogger(__name__)

# Of the algorithms that a key may be used with: never one that would take a public key for a secret.
ALGORITHMS = ("RS256", "EdDSA")
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
TIMEOUT_S = 5.0
REFRESH_S = 300.0
# However many tokens name keys that we do not know.
MIN_REFRESH_S = 10.0
RSA_MIN_BITS = 2048


class KeySetUnusable(Exception):  # noqa: N818  it says what was found
    """The key set cannot be read, or holds no key that may check a token."""


class KeySet:
    """`source` is a path or an http(s) address. Read before use with `refresh`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._keys: dict[str, jwt.PyJWK] = {}
        self.readings = 0
        self._read_s = float("-inf")
        self._reading = asyncio.Lock()

    def key(self, key_id: str) -> jwt.PyJWK | None:
        return self._keys.get(key_id)

    async def refresh(self, *, at_least_s: float = MIN_REFRESH_S) -> None:
        """Read the keys anew, unless that was done so recently. Raises KeySetUnusable, and keeps what it had."""
        async with self._reading:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._read_s < at_least_s:
                return
            self._read_s = now_s
            self._keys = usable(await self._read())
            self.readings += 1

    async def follow(self) -> None:
        """Refresh now and then, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except KeySetUnusable as error:
                log.warning("the key set was not refreshed: %s", error)

    async def _read(self) -> bytes:
        try:
            if not self._source.startswith(("http://", "https://")):
                return await asyncio.to_thread(self._read_file)
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._source) as answer:
                answer.raise_for_status()
                return await _whole(answer.content)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise KeySetUnusable(f"it cannot be read ({type(error).__name__})") from error

    def _read_file(self) -> bytes:
        with Path(self._source).open("rb") as file:
            return file.read(MAX_BYTES + 1)


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """To its end, or so far that it is too large: a single read is content with what has come so far."""
    body = bytearray()
    while len(body) <= MAX_BYTES and (part := await content.readany()):
        body += part
    return bytes(body)


def usable(body: bytes) -> dict[str, jwt.PyJWK]:
    """The keys that may check a token, by their id. Raises KeySetUnusable when there is none."""
    if len(body) > MAX_BYTES:
        raise KeySetUnusable("it is too large")
    try:
        told = json.loads(body)["keys"][:MAX_KEYS]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeySetUnusable("it is no JSON Web Key Set") from error
    keys = {}
    for one in told:
        key = _key(one)
        if key is not None and isinstance(key.key_id, str) and key.key_id:
            keys[key.key_id] = key
    if not keys:
        raise KeySetUnusable(f"it has no key for {' or '.join(ALGORITHMS)} with an id")
    return keys


def _key(told: object) -> jwt.PyJWK | None:
    """A public key for signatures; secrets (`oct`), weak keys and other uses are none."""
    if not isinstance(told, dict) or told.get("kty") not in ("RSA", "OKP") or told.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(told, algorithm=told.get("alg") or ("RS256" if told["kty"] == "RSA" else "EdDSA"))
    except (jwt.PyJWTError, TypeError, ValueError):  # what others write may be of any type
        return None
    weak = told["kty"] == "RSA" and key.key.key_size < RSA_MIN_BITS
    return key if key.algorithm_name in ALGORITHMS and not weak else None
