"""A private PostgreSQL for one data folder: started, found again after any crash, and ended with us.

DIR/postgres            the cluster; a symlink when the account that runs it cannot reach DIR
DIR/postgres.log        what the server says; never a statement or a value
DIR/postgres.password   made at the first start, readable by us alone

It listens on 127.0.0.1 only, and asks for the password there too: other users of the machine reach that
address. There is no Unix socket; its path would be too long in a deep folder.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from interface.sandbox.account import Account, PostgresError, account_for
from interface.sandbox.folder import open_log, tail
from interface.sandbox.postgres_programs import programs_for
from interface.sandbox.postmaster import ENDINGS, POLL_S, is_ready, spawn, stop_orphan

START_LIMIT_S = 60.0
RETRY_S = 0.05
ROLE = DATABASE = "payledger"
ELSEWHERE = "payledger-postgres-"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Personal data must never reach a log. Errors name values ("Key (email)=(…) already exists"), so they go
    # to the client alone: `log` keeps what the server says about itself and drops what it says about a query.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class Postgres:
    """The server of one data folder. One process at a time may hold a folder (`lock_folder`)."""

    name = "postgres"
    restart = True

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.folder = folder.resolve()
        self.cluster = self.folder / "postgres"
        self.log = self.folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running server; None while there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def start(self) -> int:
        """Return the server's pid once it answers. Raises PostgresError.

        A new folder gets a new cluster. An existing one is recovered, whatever ended its last server; one
        that still runs on it without a parent is ended first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_place()
        account = account_for(self.cluster)
        programs = programs_for(account)
        if self.cluster.exists():
            stop_orphan(self.cluster.resolve())
        else:
            self._initialise(account, programs)
        process = self._launch(account, programs)
        self._make_database()
        return process.pid

    def wait(self) -> int:
        """Block until the server has ended; its exit status."""
        if self._process is None:
            raise PostgresError("PostgreSQL was not started")
        return self._process.wait()

    def stop(self) -> None:
        """End the server, in order if it lets us. Nothing committed is lost either way."""
        if self._process is None:
            return
        for ending, patience_s in ENDINGS:
            self._process.send_signal(ending)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
            return

    # The first start

    def _initialise(self, account: Account, programs: Path) -> None:
        """Make the cluster aside and rename it, so that a half-made one is never taken for whole."""
        fresh = self._fresh_place(account)
        with tempfile.NamedTemporaryFile("w", dir=next(account.temporary_folders())) as password:
            password.write(self._password())
            password.flush()
            account.own(Path(password.name))
            made = account.run(
                [
                    programs / "initdb",
                    f"--pgdata={fresh.resolve()}",
                    f"--username={ROLE}",
                    f"--pwfile={password.name}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--data-checksums",
                ]
            )
        if made.returncode != 0:
            raise PostgresError(f"initdb failed in {fresh.resolve()}:\n{made.stdout}{made.stderr}")
        fresh.rename(self.cluster)

    def _fresh_place(self, account: Account) -> Path:
        """An empty folder of the account's: in the data folder, or linked from there when out of its reach."""
        fresh = self.folder / "postgres.new"
        if fresh.is_symlink():
            if fresh.readlink().parent.name.startswith(ELSEWHERE):
                shutil.rmtree(fresh.readlink().parent, ignore_errors=True)
            fresh.unlink()
        elif fresh.exists():
            shutil.rmtree(fresh)
        if account.can_enter(self.folder):
            place = fresh
        else:  # /var/tmp outlives a reboot
            parent = next(account.temporary_folders("/var/tmp"))  # noqa: S108 - mkdtemp inside
            home = Path(tempfile.mkdtemp(prefix=ELSEWHERE, dir=parent))
            home.chmod(0o711)
            place = home / "data"
            fresh.symlink_to(place)
        place.mkdir(mode=0o700)
        account.own(place)
        return fresh

    def _password(self) -> str:
        file = self.folder / "postgres.password"
        if not file.exists():
            if self.cluster.exists():
                raise PostgresError(f"{file} is gone, and the ledger beside it asks for it")
            self.folder.mkdir(parents=True, exist_ok=True)
            aside = file.with_name(f"{file.name}.new")
            aside.touch(mode=0o600)
            aside.chmod(0o600)
            aside.write_text(secrets.token_urlsafe(24))
            aside.replace(file)
        return file.read_text().strip()

    # Every start

    def _check_place(self) -> None:
        """A ledger that lies elsewhere must still be there, and nobody else may have put another in its place."""
        if not self.cluster.is_symlink():
            return
        target = self.cluster.resolve()
        if not (target / "PG_VERSION").exists():
            raise PostgresError(f"the ledger of {self.folder} was kept in {target}, which is gone")
        if target.parent.stat().st_uid != os.geteuid():
            raise PostgresError(f"{target}, linked from {self.folder}, lies in a folder that is not ours")

    def _launch(self, account: Account, programs: Path) -> subprocess.Popen[bytes]:
        """Start the server and wait for it.

        After a kill -9 its old sessions may hold the shared memory a moment longer; that alone is retried.
        """
        cluster = self.cluster.resolve()
        argv = [str(programs / "postgres"), "-D", str(cluster), "-p", str(self.port)]
        argv += [f"--{name}={value}" for name, value in SETTINGS.items()]
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            with open_log(self.log) as log:
                before = log.tell()
                self._process = spawn(argv, account, log)
            while self._process.poll() is None:
                if is_ready(cluster, self._process.pid):
                    return self._process
                if time.monotonic() > deadline:
                    self.stop()
                    raise PostgresError(f"PostgreSQL is not ready after {START_LIMIT_S:g} s:\n{tail(self.log)}")
                time.sleep(POLL_S)
            with self.log.open("rb") as written:
                written.seek(before)
                held = b"shared memory block" in written.read()
            if not held or time.monotonic() > deadline:
                made_by = (cluster / "PG_VERSION").read_text().strip()
                what = f"{programs / 'postgres'} ended while starting on {cluster}, made by version {made_by}"
                raise PostgresError(f"{what}:\n{tail(self.log)}")
            time.sleep(RETRY_S)

    def _make_database(self) -> None:
        query = "SELECT FROM pg_database WHERE datname = %s"
        try:
            with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
                if connection.execute(query, (DATABASE,)).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            self.stop()
            raise PostgresError(f"PostgreSQL started and does not serve: {error}") from error

    def _url(self, database: str) -> str:
        return f"postgresql://{ROLE}:{self._password()}@127.0.0.1:{self.port}/{database}"
