"""Apache Kafka itself on this machine: one node in KRaft mode, from Maven Central's jars, without a container.

`python -m tests.peers.real_kafka --data DIR [--port PORT]` runs one in the foreground and says where it listens.
"""

import argparse
import base64
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from interface.sandbox.account import Account
from interface.sandbox.folder import free_port, open_log, tail
from interface.sandbox.postmaster import spawn

CHECKOUT = Path(__file__).parent.parent.parent
CACHE = CHECKOUT / ".peers"
JARS = CACHE / "kafka"
ARCHIVE = CACHE / "kafka.jsa"
INSTALL_LIMIT_S = 300
START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
LOOK_S = 0.02
# The first compiler alone and one collector: a broker that lives a minute is started in half the time.
JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable")
SAYS = "-Dorg.apache.logging.log4j.level=WARN"
# One node, so one copy of everything, and quick to notice that its former self is gone; else as Kafka comes.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": "4",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "200",
    "socket.request.max.bytes": str(16 * 1024 * 1024),
}


class RealKafka:
    """One broker on one directory, on one port over all its lives, which end with ours."""

    process: subprocess.Popen[bytes]

    def __init__(self, data: Path, port: int = 0) -> None:
        self.data = data.resolve()
        self.port = port or free_port()
        self.log = self.data / "kafka.log"
        self._properties = self.data / "server.properties"
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return once it answers. Raises RuntimeError with what it said when it does not."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._configure()
        if not (self.data / "log" / "meta.properties").exists():
            self._format()
        archive = [f"-XX:SharedArchiveFile={ARCHIVE}"] if ARCHIVE.exists() else []
        with open_log(self.log) as log:
            argv = [*_java(*archive), "kafka.Kafka", str(self._properties)]
            self.process = spawn(argv, Account(), log)
        deadline = time.monotonic() + START_LIMIT_S
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka does not start on {self.data}:\n{tail(self.log)}")
            time.sleep(LOOK_S)

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(STOP_LIMIT_S)

    def _listens(self) -> bool:
        """It opens its port last, once it is the leader of what it has."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _configure(self) -> None:
        """The controller's port may be another one in each life: nobody but the broker itself asks for it."""
        controller = f"127.0.0.1:{free_port()}"
        settings = SETTINGS | {
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data / "log"),
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        argv = [*_java(), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)]
        made = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=START_LIMIT_S)
        if made.returncode != 0:
            raise RuntimeError(f"Kafka's storage cannot be made in {self.data}:\n{made.stdout}{made.stderr}")


# ── Installed once ────────────────────────────────────────────────────────────────────────────────────────


def missing_tools() -> list[str]:
    """What this machine lacks to run it."""
    return [name for name, tool in (("Java 17 or newer", "java"), ("Maven", "mvn")) if shutil.which(tool) is None]


def install() -> None:
    """Fetch the jars that tests/peers/pom.xml names, unless they are there. Raises OSError or SubprocessError."""
    if not JARS.exists():
        pom = Path(__file__).with_name("pom.xml")
        aside = JARS.with_name("kafka.new")
        shutil.rmtree(aside, ignore_errors=True)
        fetch = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        fetch += [f"-DoutputDirectory={aside}", "-DincludeScope=runtime"]
        subprocess.run(fetch, check=True, timeout=INSTALL_LIMIT_S)
        aside.rename(JARS)
    if not ARCHIVE.exists():
        _archive()


def _archive() -> None:
    """Keep the loaded classes of one short life: each later one starts in half the time.

    Without the archive everything works the same, only later.
    """
    data = CACHE / "first-life"
    broker = RealKafka(data)
    broker.kill()
    argv = [*_java(f"-XX:ArchiveClassesAtExit={ARCHIVE}"), "kafka.Kafka", str(broker._properties)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not broker._listens():
            time.sleep(LOOK_S)
        process.send_signal(signal.SIGTERM)
        process.wait(START_LIMIT_S)
    shutil.rmtree(data)


def _java(*options: str) -> list[str]:
    java = shutil.which("java")
    if java is None:
        raise FileNotFoundError("java is not on the PATH")
    return [java, "-cp", f"{JARS}/*", SAYS, *JVM, *options]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.peers.real_kafka", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where it keeps its messages")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")
    arguments = parser.parse_args()
    install()
    broker = RealKafka(arguments.data, arguments.port)
    print(f"ready {broker.address} pid {broker.process.pid}", flush=True)  # noqa: T201
    try:
        return broker.process.wait()
    except KeyboardInterrupt:
        broker.kill()
        return 0


if __name__ == "__main__":
    sys.exit(main())
