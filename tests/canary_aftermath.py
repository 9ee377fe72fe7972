"""A system that was sent card numbers in every way, and whose API process was shot with some in its hands."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import psycopg
from kafka import KafkaConsumer, TopicPartition

from interface.dev import STAND_IN_KEY
from tests import canary_billing
from tests.canary import DECLINED, PAYING, PLANTED, TAKEN, held_by
from tests.canary_caller import Caller
from tests.processes import eventually
from tests.system import System
from tests.test_rate_limits_shared import api, at_once, environment
from tests.test_traces import Collector

HEAL_S = 120
TOPICS = ("payments", "movie_app_events")
LIVE_KEY = "sk_live_canary"
PASSED_ON = ("Content-Type", "Idempotency-Key", "Stripe-Version")
BEGUN = "SELECT count(*) FROM open_operations WHERE NOT waiting"


class Live:
    """Stripe in live mode: the stand-in, behind a key of which it is never told. It keeps what it is sent."""

    def __init__(self, stand_in: str) -> None:
        self._sent = b""
        self._stand_in = httpx.Client(base_url=stand_in)
        live = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Authorization"] == f"Bearer {LIVE_KEY}"
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                live._sent += body
                headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
                headers["Authorization"] = f"Bearer {STAND_IN_KEY}"
                answer = live._stand_in.request(self.command, self.path, content=body, headers=headers)
                self.send_response(answer.status_code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST  # noqa: N815  the library's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> bytes:
        """What it was sent."""
        self._server.shutdown()
        self._server.server_close()
        self._stand_in.close()
        return self._sent


class Aftermath:
    """Every place is searched once, when all is over."""

    def __init__(self, system: System, collector: Collector) -> None:
        self.system, self.collector = system, collector
        self.metrics: list[bytes] = []
        self.test = Caller("test", system, system.http, looked_up=(*TAKEN, *DECLINED))
        self._send_all_of_it()
        self._pay_in_live_mode()
        collector.wait_for(Booking=PLANTED)
        self.metrics.append(system.get("/metrics").content)
        self._shoot()
        self._read_back()
        with psycopg.connect(system.database_url, autocommit=True) as conn:
            conn.execute(f"DO $$ BEGIN RAISE LOG '{PLANTED}'; END $$")
            conn.execute("CHECKPOINT")
        roots = (system.data.resolve(), (system.data / "postgres").resolve())  # which may be elsewhere
        files = {path for root in roots for path in root.rglob("*") if path.is_file()}
        self._found = held_by([*files, system.output])

    def found_in(self, name: str) -> dict[str, set[str]]:
        """What stands in the files of one part of the data folder, or in a file of it."""
        root = (self.system.data / name).resolve()
        found = {path: names for path, names in self._found.items() if Path(path).is_relative_to(root)}
        assert found, root
        return found

    # What happened

    def _send_all_of_it(self) -> None:
        caller = self.test
        payment = str(self.system.paid(order=PLANTED, metadata={"mark": PLANTED})["id"])
        caller.send("POST", "/charge", b"{}", {"X-Booking-Id": PLANTED})
        caller.pay_as_meant("", " ", "-")
        caller.pay_with_what_cannot_be_read()
        caller.put_it_in_every_field(payment)
        caller.put_it_around_the_body()
        caller.tell_it_as_stripe_would("/webhooks/stripe", "charge.captured")
        for path in canary_billing.WEBHOOKS:
            caller.tell_it_as_stripe_would(path, f"charge.{path.rpartition('/')[2]}")
        canary_billing.subscribe(caller)
        canary_billing.put_it_everywhere(caller)

    def _pay_in_live_mode(self) -> None:
        """Stripe is asked with a live key, so that no number is a test number: where they are taken, and where not."""
        taking, refusing = Live(self.system.stripe), Live(self.system.stripe)
        with at_once(self._live_api("on", taking), self._live_api("off", refusing)) as processes:
            self.live, self.not_taken = (
                Caller(name, self.system, http, looked_up=())
                for name, http in zip(("live", "not-taken"), processes, strict=True)
            )
            self.live.pay_as_meant("", " ")
            self.not_taken.pay_as_meant("")
            self.metrics += [http.get("/metrics").content for http in processes]
        self.sent_live, self.sent_where_not_taken = taking.stop(), refusing.stop()

    @contextmanager
    def _live_api(self, raw: str, provider: Live) -> Iterator[httpx.Client]:
        settings = {"STRIPE_API_KEY": LIVE_KEY, "STRIPE_API_BASE": provider.url, "STRIPE_RAW_CARDS": raw}
        settings |= {"RATE_LIMIT": "off", "STRIPE_LOG": "debug", "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url}
        log = self.system.data / "logs" / f"live-{raw}.log"
        with log.open("w+b") as output, api(environment(self.system, **settings), output) as http:
            http.headers["Authorization"] = f"Bearer {self.system.token}"
            yield http

    def _shoot(self) -> None:
        """End the process in the way that leaves a dump, each number in its hands."""
        before = self.system.pids["api"]
        eventually(self.system.settled, HEAL_S)
        with (
            self.system.fault("POST /v1/payment_intents", "slow", delay_ms=10_000, times=0),
            ThreadPoolExecutor() as all_,
        ):
            asked = [all_.submit(self.test.pay, number, f"{PLANTED}-shot-{number[-4:]}") for number in PAYING]
            eventually(lambda: self._begun() == len(PAYING), HEAL_S)
            os.kill(before, signal.SIGABRT)
            ended = [one.exception() for one in asked]
        assert all(isinstance(error, httpx.TransportError) for error in ended), ended
        eventually(lambda: self.system.pids.get("api", before) != before and self.system.ready(), HEAL_S)

    def _begun(self) -> int:
        with psycopg.connect(self.system.database_url) as conn:
            row = conn.execute(BEGUN).fetchone()
        return int(row[0]) if row else 0

    def _read_back(self) -> None:
        """Everything that the ledger tells of what it has kept, sealed or not."""
        http, keep = self.system.http, self.test.keep
        keep(http.get("/v1/events", params={"limit": 1_000}))
        page: dict[str, Any] = {"next_cursor": ""}
        while (cursor := page["next_cursor"]) is not None:
            page = keep(http.get("/v1/payments", params={"limit": 100} | ({"cursor": cursor} if cursor else {}))).json()
            for payment in page["payments"]:
                keep(http.get(f"/v1/payments/{payment['id']}/events"))
        keep(http.get("/v1/orders", params={"limit": 100}))
        for customer in keep(http.get("/v1/customers", params={"limit": 100})).json()["customers"]:
            keep(http.get(f"/v1/customers/{customer['id']}/events"))
        self.metrics.append(http.get("/metrics").content)


def messages_of(system: System) -> Iterator[bytes]:
    """Everything on every topic, from the first record to what is the last one now."""
    consumer = KafkaConsumer(bootstrap_servers=system.kafka, enable_auto_commit=False)
    parts = [TopicPartition(topic, part) for topic in TOPICS for part in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(parts)
    consumer.seek_to_beginning(*parts)
    ends = consumer.end_offsets(parts)
    while any(consumer.position(part) < end for part, end in ends.items()):
        for records in consumer.poll(timeout_ms=1_000).values():
            for record in records:
                yield repr((record.key, record.headers)).encode() + record.value
    consumer.close()
