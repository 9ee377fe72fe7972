"""Consumer groups: who is a member, in which generation, and what the leader assigned to whom.

    EMPTY --join--> JOINING --all members joined--> SYNCING --leader's assignments--> STABLE
                       ^------- a member joins, leaves or falls silent -----------------+

Volatile, on the loop's clock: after a restart the members are unknown, are told so, and join again.
"""

import asyncio
import uuid
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from interface.sandbox.broker_protocol import Code, RefusedError

GATHER_S = 0.3
"""A group that begins waits this long for further members, as Kafka does (group.initial.rebalance.delay.ms).

Short of kafka-python's retry_backoff_ms, 100, its leader would not know the topic's partitions yet.
"""
MAX_MEMBERS = 256
MIN_SESSION_S, MAX_SESSION_S = 0.1, 1800.0


class Stage(Enum):
    """Where a group is in its round."""

    EMPTY = auto()
    JOINING = auto()
    SYNCING = auto()
    STABLE = auto()


class JoinWish(NamedTuple):
    """What a client says when it joins; `protocols` are assignors by preference, with their metadata."""

    member_id: str
    client_id: str
    protocols: dict[str, bytes]
    session_s: float
    rebalance_s: float
    announces: bool
    """The client joins twice: once to get a member id, and again with it (KIP-394)."""


class Joined(NamedTuple):
    """A member's place in a generation; only the leader is told who else is in it."""

    generation: int
    protocol: str
    leader: str
    member_id: str
    roster: dict[str, bytes]


class MemberIdRequiredError(RefusedError):
    """Join again with this id."""

    def __init__(self, member_id: str) -> None:
        super().__init__(Code.MEMBER_ID_REQUIRED)
        self.member_id = member_id


@dataclass(slots=True, eq=False)
class _Member:
    wish: JoinWish
    seen: float
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[bytes] | None = None
    assignment: bytes = b""

    @property
    def waits_for_us(self) -> bool:
        return any(future is not None and not future.done() for future in (self.joining, self.syncing))

    def refuse(self, code: Code) -> None:
        for future in (self.joining, self.syncing):
            if future is not None and not future.done():
                future.set_exception(RefusedError(code))
        self.joining = self.syncing = None


@dataclass(slots=True)
class Group:
    """One group. Every method is called on the loop; refusals are RefusedError."""

    loop: asyncio.AbstractEventLoop
    stage: Stage = Stage.EMPTY
    generation: int = 0
    protocol: str = ""
    leader: str = ""
    members: dict[str, _Member] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    gathering: bool = False
    deadline: asyncio.TimerHandle | None = None

    async def join(self, wish: JoinWish) -> Joined:
        """Wait for the generation that this member is part of."""
        member = self._admit(wish)
        member.refuse(Code.REBALANCE_IN_PROGRESS)  # the same member on an older connection
        joining: asyncio.Future[Joined] = self.loop.create_future()
        member.joining = joining
        self._rebalance()
        self._settle()
        return await joining

    async def sync(self, member_id: str, generation: int, assignments: dict[str, bytes]) -> bytes:
        """The member's assignment, once the leader has told all of them."""
        member = self.member(member_id, generation)
        if self.stage is Stage.JOINING:
            raise RefusedError(Code.REBALANCE_IN_PROGRESS)
        if self.stage is Stage.SYNCING and member_id == self.leader:
            self._assign(assignments)
        if self.stage is Stage.STABLE:
            return member.assignment
        syncing: asyncio.Future[bytes] = self.loop.create_future()
        member.syncing = syncing
        return await syncing

    def heartbeat(self, member_id: str, generation: int) -> None:
        self.member(member_id, generation)
        if self.stage is Stage.JOINING:
            raise RefusedError(Code.REBALANCE_IN_PROGRESS)

    def member(self, member_id: str, generation: int) -> _Member:
        """A member in the present generation, which thereby has shown that it lives."""
        member = self.members.get(member_id)
        if member is None:
            raise RefusedError(Code.UNKNOWN_MEMBER_ID)
        if generation != self.generation:
            raise RefusedError(Code.ILLEGAL_GENERATION)
        member.seen = self.loop.time()
        return member

    def remove(self, member_id: str) -> None:
        """It left, or fell silent; the others share what it had. Raises RefusedError if it is unknown."""
        self.announced.discard(member_id)
        member = self.members.pop(member_id, None)
        if member is None:
            raise RefusedError(Code.UNKNOWN_MEMBER_ID)
        member.refuse(Code.UNKNOWN_MEMBER_ID)
        if self.members:
            self._rebalance()
            self._settle()
        else:
            self.stage = Stage.EMPTY
            self._stop_deadline()

    def _admit(self, wish: JoinWish) -> _Member:
        others = [member.wish for name, member in self.members.items() if name != wish.member_id]
        if len(others) >= MAX_MEMBERS or len(self.announced) >= MAX_MEMBERS:
            raise RefusedError(Code.GROUP_MAX_SIZE_REACHED)
        if not set(wish.protocols).intersection(*(other.protocols for other in others)):
            raise RefusedError(Code.INCONSISTENT_GROUP_PROTOCOL)
        if not wish.member_id:
            wish = wish._replace(member_id=f"{wish.client_id}-{uuid.uuid4()}")
            if wish.announces:
                self.announced.add(wish.member_id)
                raise MemberIdRequiredError(wish.member_id)
        elif wish.member_id not in self.members and wish.member_id not in self.announced:
            raise RefusedError(Code.UNKNOWN_MEMBER_ID)
        self.announced.discard(wish.member_id)
        member = self.members.get(wish.member_id)
        if member is None:
            member = self.members[wish.member_id] = _Member(wish, self.loop.time())
            self.loop.call_later(wish.session_s, self._expire, member)
        member.wish, member.seen = wish, self.loop.time()
        return member

    def _rebalance(self) -> None:
        """Everybody has to join again, within the patience of the most patient member."""
        if self.stage is Stage.JOINING:
            return
        self.gathering = self.stage is Stage.EMPTY
        if self.gathering:
            self.loop.call_later(GATHER_S, self._gathered)
        self.stage = Stage.JOINING
        for member in self.members.values():
            if member.syncing is not None and not member.syncing.done():
                member.syncing.set_exception(RefusedError(Code.REBALANCE_IN_PROGRESS))
            member.syncing = None
        patience_s = max(member.wish.rebalance_s for member in self.members.values())
        self.deadline = self.loop.call_later(patience_s, self._drop_absent)

    def _gathered(self) -> None:
        self.gathering = False
        self._settle()

    def _settle(self) -> None:
        """Begin the generation when everybody is there."""
        if self.stage is not Stage.JOINING or self.gathering:
            return
        if any(member.joining is None for member in self.members.values()):
            return
        self._stop_deadline()
        self.stage = Stage.SYNCING
        self.generation += 1
        if self.leader not in self.members:
            self.leader = next(iter(self.members))
        common = set.intersection(*(set(member.wish.protocols) for member in self.members.values()))
        preferred = self.members[self.leader].wish.protocols
        self.protocol = next(name for name in preferred if name in common)
        roster = {name: member.wish.protocols[self.protocol] for name, member in self.members.items()}
        for name, member in self.members.items():
            told = roster if name == self.leader else {}
            if member.joining is not None and not member.joining.done():
                member.joining.set_result(Joined(self.generation, self.protocol, self.leader, name, told))
            member.joining, member.assignment, member.seen = None, b"", self.loop.time()

    def _assign(self, assignments: dict[str, bytes]) -> None:
        self.stage = Stage.STABLE
        for name, member in self.members.items():
            member.assignment = assignments.get(name, b"")
            if member.syncing is not None and not member.syncing.done():
                member.syncing.set_result(member.assignment)
            member.syncing = None

    def _expire(self, member: _Member) -> None:
        """Remove a member that was silent for its whole session; look again when that could be next."""
        if self.members.get(member.wish.member_id) is not member:
            return
        if member.waits_for_us:
            member.seen = self.loop.time()
        left_s = member.seen + member.wish.session_s - self.loop.time()
        if left_s > 0:
            self.loop.call_later(left_s, self._expire, member)
        else:
            self.remove(member.wish.member_id)

    def _drop_absent(self) -> None:
        self.deadline = None
        for name in [name for name, member in self.members.items() if member.joining is None]:
            self.remove(name)

    def _stop_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
