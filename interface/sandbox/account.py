"""Who PostgreSQL runs as. It refuses to be root, so root hands it to an account that may do little."""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ACCOUNT_VARIABLE = "PAYLEDGER_POSTGRES_USER"
RUN_LIMIT_S = 120


class PostgresError(RuntimeError):
    """PostgreSQL cannot be run here, or does not start; the message says why and quotes what it said."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine; both ids None means: ourselves."""

    uid: int | None = None
    gid: int | None = None

    @property
    def is_ours(self) -> bool:
        return self.uid is None

    def run(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as this account, with a small environment of its own."""
        return subprocess.run(  # noqa: S603 - only programs that this package names
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_LIMIT_S,
            cwd="/",
            env=small_environment(),
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.is_ours else (),
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether it can reach the folder. The kernel is asked, as modes alone do not tell (ACLs, mounts)."""
        try:
            return self.is_ours or self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", folder]).returncode == 0
        except PermissionError:
            raise PostgresError(
                f"this root may not become user {self.uid}, and PostgreSQL refuses to run as root: "
                "start as another user, or name a server in DATABASE_URL"
            ) from None

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def temporary_folders(self, *preferred: str) -> Iterator[Path]:
        """Folders for temporary things that it can reach, the preferred ones first."""
        for name in dict.fromkeys((*preferred, tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - mkdtemp inside
            folder = Path(name).resolve()
            if folder.is_dir() and self.can_enter(folder):
                yield folder


def account_for(cluster: Path) -> Account:
    """Ourselves; when root, the owner of the existing cluster, else the user named by the environment or nobody."""
    if os.geteuid() != 0:
        return Account()
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    name = os.environ.get(ACCOUNT_VARIABLE, "nobody")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise PostgresError(f"no user {name!r} on this machine: name one in {ACCOUNT_VARIABLE}") from None
    if entry.pw_uid == 0:
        raise PostgresError(f"PostgreSQL refuses to run as root: name another user in {ACCOUNT_VARIABLE}")
    return Account(entry.pw_uid, entry.pw_gid)


def small_environment() -> dict[str, str]:
    """What PostgreSQL needs from ours: no secrets, no PG… variables, messages in English."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}
