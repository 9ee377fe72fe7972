"""Whether a Kafka is there: asked before a client is built, for one that finds none leaves sockets and threads."""

import socket
from contextlib import suppress

from kafka.errors import KafkaConnectionError

TIMEOUT_S = 5
DEFAULT_PORT = 9092


def reach(bootstrap_servers: str) -> None:
    """Raises KafkaConnectionError when none of the servers lets us in."""
    for server in bootstrap_servers.split(","):
        with suppress(OSError), socket.create_connection(_address(server.strip()), TIMEOUT_S):
            return
    raise KafkaConnectionError("no broker answers")


def _address(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = server, str(DEFAULT_PORT)
    return host.strip("[]"), int(port)
