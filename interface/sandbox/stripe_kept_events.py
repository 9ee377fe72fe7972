"""Events are kept for 30 days, as Stripe keeps them, and as long as somebody still has to be told of them."""

from collections import deque
from itertools import islice, takewhile

from interface.sandbox.stripe_errors import Json
from interface.sandbox.stripe_store import Store

EVENTS_KEPT_S = 30 * 24 * 3600
MAX_OUTDATED_AT_ONCE = 10_000


class KeptEvents:
    """`pending` are those that have not been delivered, oldest first."""

    def __init__(self, store: Store) -> None:
        self.pending: dict[str, None] = {}
        self._store = store
        self._by_age: deque[tuple[int, str]] = deque()

    def add(self, event: Json) -> None:
        self._by_age.append((event["created"], event["id"]))
        self.pending[event["id"]] = None

    def told(self, events: list[str]) -> None:
        """These need not be delivered any more."""
        for wanted in events:
            self.pending.pop(wanted, None)

    def outdated(self, now: int) -> list[str]:
        """Too old to be asked for, and not delivered: the oldest of them, as many as a record should tell of."""
        old = takewhile(lambda event: event[0] < now - EVENTS_KEPT_S, self._by_age)
        return [wanted for _, wanted in islice(old, MAX_OUTDATED_AT_ONCE) if wanted in self.pending]

    def forget_old(self) -> None:
        """Those that are old next to the newest one, up to the first that is still to be delivered."""
        while self._by_age:
            at, wanted = self._by_age[0]
            if at >= self._by_age[-1][0] - EVENTS_KEPT_S or wanted in self.pending:
                return
            self._by_age.popleft()
            self._store.forget("event", wanted)
