"""Wishes to write that come at the same moment share one statement and one commit.

A commit costs the same for one append as for thirty. While one group is being written, those that come meanwhile wait
and go together. Nobody waits for company: who finds a free place is written at once, and alone.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")

# Groups written at the same time, each on a connection of its own: while the database works on one, the other is made
# ready. More groups would be smaller ones.
MAX_GROUPS = 2
MAX_TOGETHER = 32


class _Member(Generic[Wish, Answer]):
    """One thread's wish, and what became of it: still to be written while it has no answer and no error."""

    __slots__ = ("answer", "apart", "error", "turn", "wish")

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.apart = False
        self.turn = Lock()
        self.turn.acquire()


class GroupCommit(Generic[Wish, Answer]):
    """Called from many threads; whoever comes to a free place leads, and writes for those who wait with it.

    `write` stores all of a group or nothing, and answers each. When it raises `unknown` nobody knows what was stored,
    and the whole group is told so. Whatever else it raises may be the fault of one: each tries again alone.
    """

    def __init__(self, write: Callable[[Sequence[Wish]], Sequence[Answer]], unknown: type[Exception]) -> None:
        self._write = write
        self._unknown = unknown
        self._lock = Lock()
        self._groups = 0
        self._waiting = deque[_Member[Wish, Answer]]()

    def do(self, wish: Wish) -> Answer:
        """The answer to this wish. Raises what `write` raises for it."""
        mine = _Member[Wish, Answer](wish)
        if not self._finds_a_place(mine):
            mine.turn.acquire()  # until it is written, or its turn to lead
        if mine.error is None and mine.answer is None and not mine.apart:
            self._lead(mine)
        if mine.error is not None:
            raise self._unknown from mine.error
        if mine.answer is None:
            return self._write([wish])[0]
        return mine.answer

    def _finds_a_place(self, mine: _Member[Wish, Answer]) -> bool:
        with self._lock:
            if self._groups < MAX_GROUPS:
                self._groups += 1
                return True
            self._waiting.append(mine)
            return False

    def _lead(self, mine: _Member[Wish, Answer]) -> None:
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TOGETHER - 1))]
        group = [mine, *others]
        for member in group:
            member.apart = True  # unless it turns out otherwise
        try:
            for member, answer in zip(group, self._write([member.wish for member in group]), strict=True):
                member.answer = answer
        except self._unknown as error:
            for member in group:
                member.error = error
        except Exception:
            if not others:
                raise
        finally:
            self._hand_on(others)

    def _hand_on(self, written: Sequence[_Member[Wish, Answer]]) -> None:
        """Give the place to whoever waits first, and wake those that were written."""
        with self._lock:
            leader = self._waiting.popleft() if self._waiting else None
            self._groups -= leader is None
        for member in (*written, leader) if leader else written:
            member.turn.release()
