"""Card numbers that must be nowhere: how they may be written, and where one looks for them.

One more string of digits, which is nobody's card, is planted where a caller's own names are kept: a search that does
not find it there proves nothing.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path

# Among Stripe's test numbers some pay, some are declined; the next is a number that we do not know and Stripe does.
TAKEN = ("4111111111111111", "5555555555554444", "378282246310005")
DECLINED = ("4000000000000002", "4000000000009995")
HANDED_ON = "5200828282828210"
PAYING = (*TAKEN, *DECLINED, HANDED_ON)
# Right in form and nobody's in test mode: Stripe itself refuses it.
SOMEBODYS = "4012888888881881"
CARDS = (*PAYING, SOMEBODYS)
# Its check digit is wrong, so that it is a card number only where one is expected.
MISTYPED = "5555555555554443"
NUMBERS = (*CARDS, MISTYPED)
CODE = "¤¶§µ"  # no digits: three of them stand everywhere by chance
HOLDER = "Canary Quillfeather"
# A customer is known by it: the provider is told, and who may read; nobody else.
EMAIL = "quillfeather@canary.example"
# Its check digit is wrong, too, and nothing expects a card number of it: an order may be named so.
PLANTED = "4929123456781230"

# Words of 16 and 32 bits have zeros between them. Zeros and something else at will is what small numbers in binary look
# like: PostgreSQL 15 has a card's digits in a row of object ids, in each database that it makes.
_BETWEEN = rb"(?:%20|\\u00a0|&nbsp;|\0[^0-9\0]\0|\0{1,3}+|[^0-9\0]{0,3}+)"
_HEX_BETWEEN = rb"(?:2[0bBdDeE]|5[fF]|[cC]2[aA]0|00)?"
_EMPTY = re.compile(rb"\0{64,}")


# --- What is searched for ----------------------------------------------------------------------------------------


def grouped(number: str, by: str) -> str:
    """As it is printed on the card."""
    return by.join(re.findall(r"\d{4}", number) if len(number) == 16 else [number[:4], number[4:10], number[10:]])


def in_digits(number: str) -> Iterator[re.Pattern[bytes]]:
    """Its digits in their order, whatever separates them, in any encoding that shows them; and the same in hex."""
    yield re.compile(_BETWEEN.join(digit.encode() for digit in number))
    yield re.compile(_HEX_BETWEEN.join(digit.encode().hex().encode() for digit in number))


def written(text: str) -> Iterator[bytes]:
    yield text.encode()
    yield text.encode("utf-16-le").rstrip(b"\0")  # stands in both orders of bytes
    yield json.dumps(text)[1:-1].encode()
    yield text.encode().hex().encode()
    yield text.encode().hex().upper().encode()
    yield from in_base64(text.encode())


def in_base64(text: bytes) -> Iterator[bytes]:
    """Whatever stands before it and after it: the characters that depend on it alone, at each of three places."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text)
        yield whole[-(-before * 8 // 6) : (before + len(text)) * 8 // 6]


def digests(number: str) -> Iterator[bytes]:
    """There are so few numbers that a digest is as good as the number itself."""
    for algorithm in ("sha1", "sha256"):
        digest = hashlib.new(algorithm, number.encode()).digest()
        yield from (digest, digest.hex().encode())


def _needles() -> dict[bytes, str]:
    """What is no row of digits, and what it stands for."""
    found: dict[bytes, str] = {}
    for number in NUMBERS:
        for by in ("", " "):
            found |= dict.fromkeys(in_base64(grouped(number, by).encode()), f"{number} in base64")
        found |= dict.fromkeys(digests(number), f"a digest of {number}")
    for text in (CODE, HOLDER, HOLDER.replace(" ", "+"), HOLDER.replace(" ", "%20")):
        found |= dict.fromkeys(written(text), text)
    for text in (EMAIL, EMAIL.replace("@", "%40")):
        found |= dict.fromkeys(written(text), EMAIL)
    return found


PATTERNS = [(pattern, number) for number in (*NUMBERS, PLANTED) for pattern in in_digits(number)]
NEEDLES = _needles()


def held(data: bytes) -> set[str]:
    """Which of them stand in it. What was never written to is long, and is looked at once."""
    written_to = _EMPTY.sub(b"\0", data)
    rows = {number for pattern, number in PATTERNS if pattern.search(written_to)}
    return rows | {name for needle, name in NEEDLES.items() if needle in written_to}


# --- Where it is searched for ------------------------------------------------------------------------------------


def held_by(files: Iterable[Path]) -> dict[str, set[str]]:
    """By the file that they stand in. One that goes away meanwhile holds nothing any more."""
    found = {}
    for path in files:
        with suppress(FileNotFoundError):
            found[str(path)] = held(path.read_bytes())
    return found


def nothing_but_the_planted(found: Mapping[str, set[str]], *, told: str | None = None) -> None:
    """No card anywhere, and the search has proved that it sees digits there; and what was `told` there, if anything."""
    expected = {PLANTED, told} if told else {PLANTED}
    wrong = {where: names - expected for where, names in found.items() if names - expected}
    assert not wrong, wrong
    assert expected <= {name for names in found.values() for name in names}, "what was planted was not found"


def memory_of(pid: int) -> Iterator[bytes]:
    """Whatever a process has written in its memory, region by region; programs and libraries are read only."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            begin, end = (int(number, 16) for number in place.split("-"))
            if rights.startswith("rw"):
                with suppress(OSError):  # given back meanwhile
                    yield _region(memory, begin, end)


def _region(memory: FileIO, begin: int, end: int) -> bytes:
    memory.seek(begin)
    return b"".join(iter(lambda: memory.read(end - memory.tell()), b""))
