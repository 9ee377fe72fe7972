"""`payledger publish` that kills itself with -9: `python -m tests.dying_publisher MOMENT TRANSACTION [TOPIC]`.

With a topic: a replay to it.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from kafka import KafkaProducer

from interface import publishing, settings
from interface.kafka.replay import replay

MOMENTS = ("begun", "half sent", "acknowledged", "committed", "between")
HALF = 40
TOPIC = 3
BATCH = 30


def main() -> None:
    moment, transaction = sys.argv[1], int(sys.argv[2])
    transactions, records = count(1), count(1)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(method: str, *, before: bool = False, when: Callable[[], bool]) -> None:
        original = getattr(KafkaProducer, method)

        def call(producer: Any, *args: Any, **kwargs: Any) -> Any:
            last = when()
            if last and before:
                die()
            answer = original(producer, *args, **kwargs)
            if last:
                die()
            return answer

        setattr(KafkaProducer, method, call)

    def now() -> bool:
        return next(transactions) == transaction

    def half() -> bool:
        return next(records) == HALF

    match moment:
        case "begun":
            dying("begin_transaction", when=now)
        case "half sent":
            dying("send", when=half)
        case "acknowledged":
            dying("commit_transaction", before=True, when=now)
        case "committed":
            dying("commit_transaction", when=now)
        case _:  # between two
            dying("begin_transaction", before=True, when=now)
    found = settings.read(os.environ)
    if len(sys.argv) > TOPIC:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        replay(found, 1, sys.argv[TOPIC], lambda *_: None, BATCH)
    else:
        publishing.publish(found)


if __name__ == "__main__":
    main()
