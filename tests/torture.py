"""How hard the storms blow: for seconds in `make test`, for minutes in `make torture`. Nobody else reads TORTURE."""

import os
from typing import NamedTuple


class Size(NamedTuple):
    """`storm_s`: how long the writers of a storm that is timed go on; `patience_s`: how long anything is waited for.

    `fault_runs`: beside those of tests/test_faults.py; `kills`: of all processes at once. `order_messages` and
    `published_facts`: on a topic.
    """

    writers: int
    appends_each: int
    payments_each: int
    held_open: int
    fault_runs: int
    kills: int
    order_messages: int
    published_facts: int
    storm_s: float
    patience_s: float


SIZES = {
    "seconds": Size(
        writers=4,
        appends_each=60,
        payments_each=6,
        held_open=8,
        fault_runs=5,
        kills=1,
        order_messages=2_000,
        published_facts=3_000,
        storm_s=3,
        patience_s=30,
    ),
    "minutes": Size(
        writers=12,
        appends_each=1_500,
        payments_each=150,
        held_open=200,
        fault_runs=2_000,
        kills=20,
        order_messages=50_000,
        published_facts=200_000,
        storm_s=120,
        patience_s=900,
    ),
}
SIZE = SIZES[os.environ.get("TORTURE", "seconds")]


def tell(**counts: int) -> None:
    """What a storm has counted, for whoever runs it by hand."""
    print("\n" + ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in sorted(counts.items())))  # noqa: T201
