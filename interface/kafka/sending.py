"""The log brought to Kafka, a batch at a time, each with the standing that it leads to."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from domain.envelope import Envelope
from interface.kafka.outgoing import Tell, outgoing
from interface.kafka.outlet import Outlet, Record
from interface.kafka.standing import Standing
from projections.engine import FULL_ENOUGH, Log
from projections.parking import MAX_PARKED, Failure, TooManyParked, Unreadable

# A transaction costs Kafka as much as some hundred facts in it.
MAX_BATCH = 5_000

Row = Envelope | Unreadable


class Prepared(Struct, frozen=True):
    """A batch that only has to be sent: so many facts after `standing`, and what cannot go."""

    after: Standing
    facts: int
    records: list[Record]
    failures: list[Failure]
    leads_to: Standing


class Sending:
    """Lives in one thread, but for reading ahead. `standing` is what Kafka has committed; set it after a take-over."""

    def __init__(self, outlet: Outlet, read: Log, tell: Tell, max_batch: int = MAX_BATCH) -> None:
        self._outlet = outlet
        self._read = read
        self._tell = tell
        self._max_batch = max_batch
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: Future[Prepared] | None = None
        self.standing = Standing()

    def step(self) -> Prepared:
        """Send the next batch, if there is one, and answer what it was.

        Raises TooManyParked, what is passing, and what `Outlet.send` raises: after any of these the outlet is taken
        over again.
        """
        batch = self._next()
        if not batch.facts:
            return batch
        if len(batch.leads_to.aside) > MAX_PARKED:
            raise TooManyParked(f"more than {MAX_PARKED} streams fail; the first: {batch.failures[0].reason}")
        if batch.facts >= FULL_ENOUGH:
            self._look_ahead(batch.leads_to)
        self._outlet.send(batch.records, batch.leads_to)
        self.standing = batch.leads_to
        return batch

    def bring_back(self, stream: UUID, rows: Sequence[Row]) -> Failure | None:
        """Send what a stream that is aside missed, in order; from then on it goes with the others.

        `rows` is the whole stream. Raises as `step` does.
        """
        since = self.standing.aside.get(str(stream))
        if since is None:
            return None
        missed = [row for row in rows if since <= (row.position or 0) <= self.standing.position]
        records, failures = outgoing(self._tell, missed, frozenset())
        aside = {name: position for name, position in self.standing.aside.items() if name != str(stream)}
        aside |= _aside(failures)
        standing = replace(self.standing, aside=aside)
        self._outlet.send(records, standing)
        self.standing = standing
        return failures[0] if failures else None

    def close(self) -> None:
        if self._reader:
            self._reader.shutdown(cancel_futures=True)
        self._outlet.close()

    def _next(self) -> Prepared:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            prepared = ahead.result()
            if prepared.after == self.standing:
                return prepared
        return self._prepared(self.standing)

    def _look_ahead(self, after: Standing) -> None:
        self._reader = self._reader or ThreadPoolExecutor(1, thread_name_prefix="publisher reads")
        self._ahead = self._reader.submit(self._prepared, after)

    def _prepared(self, after: Standing) -> Prepared:
        rows = self._read(after.position, self._max_batch)
        records, failures = outgoing(self._tell, rows, frozenset(map(UUID, after.aside)))
        leads_to = after
        if rows:
            last = rows[-1]
            aside = after.aside | _aside(failures) if failures else after.aside
            fact = f"{last.stream}.{last.version}"
            leads_to = replace(after, position=last.position or 0, fact=fact, aside=aside)
        return Prepared(after, len(rows), records, failures, leads_to)


def _aside(failures: Sequence[Failure]) -> dict[str, int]:
    return {str(failure.stream): failure.position for failure in failures}
