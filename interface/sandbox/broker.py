"""A Kafka broker for one machine: the stand-in for a real one in the sandbox and in tests.

    python -m interface.sandbox.broker --port 9092 --data DIR

Unmodified Kafka clients produce (idempotently, in transactions), consume (in groups, read_committed) and
administer topics. Everything acknowledged survives `kill -9` of the broker, see broker_journal. It is one node
without replication, authentication, retention, compaction and quotas.

A request travels: connection (here) -> broker_protocol -> the handler that answers it (broker_records,
broker_topics, broker_transactions, broker_membership) -> broker_state, which stores a fact and folds it.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from kafka.protocol import admin, consumer, metadata, producer

from interface.sandbox import broker_protocol
from interface.sandbox.alive import watch_parent
from interface.sandbox.broker_membership import Groups, Membership
from interface.sandbox.broker_protocol import API_VERSIONS, MalformedRequestError, Message
from interface.sandbox.broker_records import Records
from interface.sandbox.broker_state import Store
from interface.sandbox.broker_topics import Address, Topics
from interface.sandbox.broker_transactions import Transactions

LOOPBACK = "127.0.0.1"
MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_CONNECTIONS = 1_000
_LENGTH_BYTES = 4

_log = logging.getLogger(__name__)
_Handler = Callable[[Message], Awaitable[Message | None]]


class Broker:
    """Serves one data directory. `start` and `stop` belong to one event loop."""

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int, data_dir: Path) -> int:
        """Listen, and say on which port: a free one is chosen for 0.

        Raises OSError, JournalInUseError, CorruptJournalError.
        """
        self._store = Store(data_dir)
        try:
            self._server = await asyncio.start_server(self._serve, host, port, start_serving=False)
        except OSError:
            self._store.close()
            raise
        address = Address(host, self._server.sockets[0].getsockname()[1])
        groups = Groups()
        self._transactions = Transactions(self._store, groups)
        self._transactions.start()
        self._handlers = _compose(self._store, self._transactions, groups, address)
        await self._server.start_serving()
        return address.port

    async def stop(self) -> None:
        """Hang up on everybody; what is stored stays."""
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._transactions.stop()
        self._store.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first request to its end; requests are answered in their order."""
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            _log.warning("refused a connection: %d are open", len(self._connections))
            writer.close()
            return
        self._connections.add(task)
        try:
            while True:
                await self._answer(await _read_frame(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the broker is about to be
        except MalformedRequestError as fault:
            _log.warning("closed a connection: %s", fault)
        except Exception:  # noqa: BLE001 - one bad request must not take the broker down
            _log.exception("closed a connection: a request could not be served")
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        request = broker_protocol.decode(frame)
        if request.key == API_VERSIONS:
            writer.write(broker_protocol.encode_api_versions(request))
        else:
            answer = await self._handlers[request.key](request.body)
            if answer is not None:
                writer.write(broker_protocol.encode(answer, request))
        await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big", signed=True)
    if not 0 <= length <= MAX_REQUEST_BYTES:
        raise MalformedRequestError(f"a request of {length} bytes")
    return await reader.readexactly(length)


def _compose(store: Store, transactions: Transactions, groups: Groups, address: Address) -> dict[int, _Handler]:
    """Which handler answers which request."""
    topics, records = Topics(store, address), Records(store, transactions)
    membership = Membership(store, groups)
    handlers: dict[Message, _Handler] = {
        metadata.MetadataRequest: topics.metadata,
        metadata.FindCoordinatorRequest: topics.find_coordinator,
        admin.CreateTopicsRequest: topics.create,
        admin.DeleteTopicsRequest: topics.delete,
        admin.DescribeConfigsRequest: topics.describe_configs,
        producer.ProduceRequest: records.produce,
        consumer.FetchRequest: records.fetch,
        consumer.ListOffsetsRequest: records.list_offsets,
        consumer.OffsetForLeaderEpochRequest: records.leader_epochs,
        producer.InitProducerIdRequest: transactions.init_producer_id,
        producer.AddPartitionsToTxnRequest: transactions.add_partitions,
        producer.AddOffsetsToTxnRequest: transactions.add_offsets,
        producer.TxnOffsetCommitRequest: transactions.commit_offsets,
        producer.EndTxnRequest: transactions.end,
        consumer.JoinGroupRequest: membership.join,
        consumer.SyncGroupRequest: membership.sync,
        consumer.HeartbeatRequest: membership.heartbeat,
        consumer.LeaveGroupRequest: membership.leave,
        consumer.OffsetCommitRequest: membership.commit_offsets,
        consumer.OffsetFetchRequest: membership.fetch_offsets,
    }
    return {int(request.API_KEY): handler for request, handler in handlers.items()}


async def _run(port: int, data_dir: Path, alive_fd: int | None) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    watch_parent(alive_fd)
    broker = Broker()
    bound = await broker.start(LOOPBACK, port, data_dir)
    sys.stdout.write(f"ready {bound}\n")
    sys.stdout.flush()
    await over.wait()
    await broker.stop()


def main() -> None:
    """Serve until SIGTERM or SIGINT, or until whoever holds the other end of `--alive-fd` is gone."""
    parser = argparse.ArgumentParser(description="A Kafka broker for one machine, on 127.0.0.1 only.")
    parser.add_argument("--port", type=int, required=True, help="0 chooses a free one")
    parser.add_argument("--data", type=Path, required=True, help="directory of the journal")
    parser.add_argument("--alive-fd", type=int, help="stop when this pipe is closed")
    wish = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(_run(wish.port, wish.data, wish.alive_fd))


if __name__ == "__main__":
    main()
