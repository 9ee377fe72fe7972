"""The publisher: every fact once and in order to whoever reads what is committed, whatever dies."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Event, active_count
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaConnectionError, KafkaError
from msgspec import json
from msgspec.structs import replace

from domain.envelope import Envelope
from domain.money import Money
from domain.order_facts import OrderPaid
from interface.kafka import PUBLISHER
from interface.kafka import outlet as outlet_module
from interface.kafka.messages import message
from interface.kafka.standing import Standing
from interface.web.contracts.cinema_words import channel
from projections.engine import LOCK_SPACE
from tests.brokers import started_broker
from tests.dying_publisher import MOMENTS
from tests.given import CAPTURED, DECLINED, started
from tests.processes import eventually
from tests.publisher_side import (  # noqa: F401  # fixtures
    PATIENCE_S,
    PublisherSide,
    all_sent,
    beside,
    fill,
    publisher_side,
    publishing,
    shared_kafka,
)

FILES = Path("/dev/fd")
# Real waiting, but not for long.
IMPATIENT = {"LINGER_MS": 500, "REQUEST_TIMEOUT_MS": 2_000, "DELIVERY_TIMEOUT_MS": 2_500, "FLUSH_TIMEOUT_S": 3}
END_SESSION = """
SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


# --- Once, and in order ------------------------------------------------------------------------------------------


def test_every_fact_is_published_once_and_in_the_order_of_its_stream(side: PublisherSide) -> None:
    for _ in range(20):
        side.side.captured()
        side.side.append(*DECLINED)
    with publishing(side.publisher(max_batch=50)):
        all_sent(side)
        side.side.append(*CAPTURED)
        all_sent(side)
    side.assert_each_once_in_order()
    standing = side.standing()
    assert standing is not None
    assert standing.position == side.side.end == side.side.checkpoint(PUBLISHER)


def test_reading_ahead_while_sending_skips_nothing(side: PublisherSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interface.kafka.sending.FULL_ENOUGH", 3)
    fill(side, 10)
    with publishing(side.publisher(max_batch=3)):
        all_sent(side)
    side.assert_each_once_in_order()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_of_a_transaction_it_is_gone_on_with_as_if_nothing_had_been(
    side: PublisherSide, moment: str
) -> None:
    fill(side, 10)
    with publishing(side.publisher(max_batch=7)):
        all_sent(side)
    fill(side, 20)
    with side.process("tests.dying_publisher", moment, "1") as dying:
        assert dying.wait(PATIENCE_S) == -signal.SIGKILL
    with publishing(side.publisher()):
        all_sent(side)
    side.assert_each_once_in_order()


def test_killed_again_and_again_while_facts_come_it_misses_and_repeats_none(side: PublisherSide) -> None:
    for moment, transaction in (("acknowledged", 2), ("half sent", 1), ("committed", 3)):
        with side.process("tests.dying_publisher", moment, str(transaction)) as dying:
            while dying.poll() is None:
                fill(side, 10)
                with suppress(subprocess.TimeoutExpired):
                    dying.wait(0.02)
    with side.process():
        fill(side, 1)
        all_sent(side)
    side.assert_each_once_in_order()


def test_a_commit_whose_answer_was_lost_is_not_done_again(side: PublisherSide, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lost = KafkaProducer.commit_transaction, list[int]()

    def commit(producer: Any) -> None:
        real(producer)
        if len(lost) < 2:
            lost.append(1)
            raise KafkaConnectionError("the answer is lost")

    monkeypatch.setattr(KafkaProducer, "commit_transaction", commit)
    fill(side, 10)
    with publishing(side.publisher(max_batch=15)):
        all_sent(side)
    assert len(lost) == 2
    side.assert_each_once_in_order()


def test_a_commit_that_is_never_answered_is_given_up(side: PublisherSide, monkeypatch: pytest.MonkeyPatch) -> None:
    real, waiting = KafkaProducer.commit_transaction, Event()

    def commit(producer: Any) -> None:
        if not waiting.is_set():
            waiting.set()
            Event().wait(PATIENCE_S)
        real(producer)

    monkeypatch.setattr(KafkaProducer, "commit_transaction", commit)
    monkeypatch.setattr(outlet_module, "COMMIT_TIMEOUT_S", 0.1)
    fill(side, 2)
    with publishing(side.publisher()):
        all_sent(side)
    assert waiting.is_set()
    side.assert_each_once_in_order()


def test_events_for_others_are_committed_with_the_facts_they_tell_of(side: PublisherSide) -> None:
    wished = replace(started(), order="booking-1", customer="user-1", channel=channel("paypal"))
    side.side.append(wished, *CAPTURED[1:])
    payment = uuid4()
    side.side.append(OrderPaid("order-7", payment, Money(20_00, "usd"), "ch_1"))  # type: ignore[arg-type]  # any fact
    with side.process("tests.dying_publisher", "acknowledged", "1") as dying:
        assert dying.wait(PATIENCE_S) == -signal.SIGKILL
    topics_told = (side.topic, side.cinema, side.ticketing)
    assert [side.published(topic) for topic in topics_told] == [[], [], []]

    with publishing(side.publisher()):
        all_sent(side)
    side.assert_each_once_in_order()
    (told,) = side.published(side.cinema)
    assert (told.key, json.decode(told.value)["event_type"]) == (b"booking-1", "payment.success")
    (paid,) = side.published(side.ticketing)
    assert (paid.key, paid.headers[0]) == (b"order-7", ("event-type", b"payment:created"))
    assert json.decode(paid.value) == {"id": str(payment), "orderId": "order-7", "stripeId": "ch_1"}


# --- One at a time -----------------------------------------------------------------------------------------------


def test_whoever_takes_over_fences_the_one_before_whatever_that_had_open(side: PublisherSide) -> None:
    fill(side, 2)
    rows = side.side.read(0, 100)
    older, newer = side.outlet, side.outlet
    assert older.take_over() is None
    records = [(side.topic, message(row)) for row in rows if isinstance(row, Envelope)]
    older.send(records[:4], Standing(4))
    older._producer.begin_transaction()
    older._producer.send(side.topic, b"never to be read")
    older._producer.flush(PATIENCE_S)

    assert newer.take_over() == Standing(4)
    newer.send(records[4:], Standing(8))
    with pytest.raises(KafkaError):
        older._producer.commit_transaction()
    older.close()
    newer.close()
    side.assert_each_once_in_order()


def test_one_that_froze_and_was_replaced_sends_nothing_any_more_and_stands_by(side: PublisherSide) -> None:
    fill(side, 5)
    with side.process() as first:
        all_sent(side)
        os.kill(first.pid, signal.SIGSTOP)
        side.side.conn.execute(END_SESSION, (LOCK_SPACE,))
        with side.process():
            fill(side, 5)
            all_sent(side)
            os.kill(first.pid, signal.SIGCONT)
            fill(side, 5)
            all_sent(side)
            fill(side, 5)
            all_sent(side)
        assert first.poll() is None
        fill(side, 5)
        all_sent(side)
    side.assert_each_once_in_order()


def test_of_two_one_works_and_the_other_takes_over_when_it_ends(side: PublisherSide) -> None:
    fill(side, 3)
    with side.process() as first, side.process() as second:
        all_sent(side)
        first.kill()
        fill(side, 3)
        all_sent(side)
        second.kill()
    side.assert_each_once_in_order()


# --- What is not there -------------------------------------------------------------------------------------------


def test_while_the_broker_is_away_it_waits_and_then_catches_up(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in IMPATIENT.items():
        monkeypatch.setattr(outlet_module, name, value)
    with started_broker(tmp_path) as broker, beside(database_url, broker.address) as side:
        fill(side, 5)
        with publishing(side.publisher(max_batch=10)):
            all_sent(side)
            for _ in range(2):
                broker.kill()
                fill(side, 5)
                broker.start()
                all_sent(side)
        side.assert_each_once_in_order()


def test_it_stops_when_told_while_no_broker_answers(side: PublisherSide) -> None:
    side.kafka = "127.0.0.1:1"
    with publishing(side.publisher()):
        eventually(lambda: side.side.one("SELECT count(*) FROM checkpoints") == 1)


def test_a_broker_that_stays_away_costs_no_sockets_and_no_threads(side: PublisherSide) -> None:
    side.kafka = "127.0.0.1:1"
    outlet = side.outlet
    open_files, threads = len(list(FILES.iterdir())), active_count()
    for _ in range(5):
        with pytest.raises(KafkaError):
            outlet.take_over()
    assert (len(list(FILES.iterdir())), active_count()) == (open_files, threads)
