"""Consumer groups by their id, and their requests: join, sync, heartbeat, leave, and the group's committed offsets."""

import asyncio

from kafka.protocol.consumer import (
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    SyncGroupResponse,
)

from interface.sandbox.broker_facts import OffsetsCommitted, Place, PlacedOffset
from interface.sandbox.broker_groups import (
    MAX_SESSION_S,
    MIN_SESSION_S,
    Group,
    Joined,
    JoinWish,
    MemberIdRequiredError,
    Stage,
)
from interface.sandbox.broker_protocol import Code, Message, RefusedError
from interface.sandbox.broker_state import Committed, Store

NO_GENERATION = -1
NO_OFFSET = Committed(-1, "")
MAX_REBALANCE_S = 3600.0
_ANNOUNCES_SINCE = 4  # version of JoinGroup
_SEVERAL_LEAVE_SINCE = 3  # version of LeaveGroup


class Groups:
    """All groups, by their id."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def known(self, group_id: str) -> Group:
        """Raises RefusedError: there is no such group, so nobody can be a member of it."""
        if group_id not in self._groups:
            raise RefusedError(Code.UNKNOWN_MEMBER_ID)
        return self._groups[group_id]

    def joined(self, group_id: str) -> Group:
        """The group, which begins when it is first joined. Raises RefusedError for an empty id."""
        if not group_id:
            raise RefusedError(Code.INVALID_GROUP_ID)
        if group_id not in self._groups:
            self._groups[group_id] = Group(asyncio.get_running_loop())
        return self._groups[group_id]

    def check_member(self, group_id: str, member_id: str, generation: int) -> None:
        """May this client commit offsets for the group? Raises RefusedError.

        One that is no member may, as long as the group has none.
        """
        if generation == NO_GENERATION and not member_id:
            group = self._groups.get(group_id)
            if group is not None and group.members:
                raise RefusedError(Code.UNKNOWN_MEMBER_ID)
            return
        group = self.known(group_id)
        group.member(member_id, generation)
        if group.stage is Stage.SYNCING:
            raise RefusedError(Code.REBALANCE_IN_PROGRESS)


class Membership:
    """Answers requests of consumer groups."""

    def __init__(self, store: Store, groups: Groups) -> None:
        self._store = store
        self._groups = groups

    async def join(self, request: Message) -> Message:
        code, joined = Code.NONE, Joined(-1, "", "", request.member_id, {})
        try:
            joined = await self._groups.joined(request.group_id).join(_wish(request))
        except MemberIdRequiredError as refusal:
            code, joined = refusal.code, joined._replace(member_id=refusal.member_id)
        except RefusedError as refusal:
            code = refusal.code
        member = JoinGroupResponse.JoinGroupResponseMember
        return JoinGroupResponse(
            throttle_time_ms=0,
            error_code=code,
            generation_id=joined.generation,
            protocol_name=joined.protocol,
            leader=joined.leader,
            member_id=joined.member_id,
            members=[
                member(member_id=name, group_instance_id=None, metadata=metadata)
                for name, metadata in joined.roster.items()
            ],
        )

    async def sync(self, request: Message) -> Message:
        code, assignment = Code.NONE, b""
        assignments = {item.member_id: bytes(item.assignment) for item in request.assignments}
        try:
            group = self._groups.known(request.group_id)
            assignment = await group.sync(request.member_id, request.generation_id, assignments)
        except RefusedError as refusal:
            code = refusal.code
        return SyncGroupResponse(throttle_time_ms=0, error_code=code, assignment=assignment)

    async def heartbeat(self, request: Message) -> Message:
        code = Code.NONE
        try:
            self._groups.known(request.group_id).heartbeat(request.member_id, request.generation_id)
        except RefusedError as refusal:
            code = refusal.code
        return HeartbeatResponse(throttle_time_ms=0, error_code=code)

    async def leave(self, request: Message) -> Message:
        several = request.version >= _SEVERAL_LEAVE_SINCE
        names = [member.member_id for member in request.members] if several else [request.member_id]
        codes = [self._leave_one(request.group_id, name) for name in names]
        answer = LeaveGroupResponse.MemberResponse
        return LeaveGroupResponse(
            throttle_time_ms=0,
            error_code=Code.NONE if several else codes[0],
            members=[
                answer(member_id=name, group_instance_id=None, error_code=code)
                for name, code in zip(names, codes, strict=True)
            ],
        )

    async def commit_offsets(self, request: Message) -> Message:
        """Valid offsets are committed together; an offset of an unknown partition is refused alone."""
        code, unknown = Code.NONE, set[Place]()
        try:
            self._groups.check_member(request.group_id, request.member_id, request.generation_id_or_member_epoch)
            offsets, unknown = self._sort_out(request)
            if offsets:
                self._store.record(OffsetsCommitted(request.group_id, offsets))
        except RefusedError as refusal:
            code = refusal.code
        answer = OffsetCommitResponse.OffsetCommitResponseTopic
        result = answer.OffsetCommitResponsePartition

        def outcome(place: Place) -> Message:
            fate = Code.UNKNOWN_TOPIC_OR_PARTITION if place in unknown else code
            return result(partition_index=place[1], error_code=fate)

        return OffsetCommitResponse(
            throttle_time_ms=0,
            topics=[
                answer(
                    name=topic.name,
                    partitions=[outcome((topic.name, wish.partition_index)) for wish in topic.partitions],
                )
                for topic in request.topics
            ],
        )

    async def fetch_offsets(self, request: Message) -> Message:
        kept = self._store.offsets.get(request.group_id, {})
        if request.topics is None:
            wished: dict[str, list[int]] = {}
            for topic, partition in kept:
                wished.setdefault(topic, []).append(partition)
        else:
            wished = {topic.name: list(topic.partition_indexes) for topic in request.topics}
        unstable = self._unstable(request.group_id) if request.require_stable else set[Place]()
        answer = OffsetFetchResponse.OffsetFetchResponseTopic
        result = answer.OffsetFetchResponsePartition

        def outcome(place: Place) -> Message:
            committed = NO_OFFSET if place in unstable else kept.get(place, NO_OFFSET)
            return result(
                partition_index=place[1],
                committed_offset=committed.offset,
                committed_leader_epoch=-1,
                metadata=committed.note,
                error_code=Code.UNSTABLE_OFFSET_COMMIT if place in unstable else Code.NONE,
            )

        return OffsetFetchResponse(
            throttle_time_ms=0,
            topics=[
                answer(name=name, partitions=[outcome((name, index)) for index in indexes])
                for name, indexes in wished.items()
            ],
            error_code=Code.NONE,
        )

    def _leave_one(self, group_id: str, member_id: str) -> Code:
        try:
            self._groups.known(group_id).remove(member_id)
        except RefusedError as refusal:
            return refusal.code
        return Code.NONE

    def _sort_out(self, request: Message) -> tuple[list[PlacedOffset], set[Place]]:
        known: list[PlacedOffset] = []
        unknown: set[Place] = set()
        for topic in request.topics:
            for wish in topic.partitions:
                place: Place = (topic.name, wish.partition_index)
                try:
                    self._store.partition(place)
                    known.append((*place, wish.committed_offset, wish.committed_metadata or ""))
                except RefusedError:
                    unknown.add(place)
        return known, unknown

    def _unstable(self, group_id: str) -> set[Place]:
        """Places whose offset an open transaction is about to change."""
        return {
            (topic, partition)
            for transaction in self._store.transactions.values()
            for topic, partition, _, _ in transaction.offsets.get(group_id, [])
        }


def _wish(request: Message) -> JoinWish:
    session_s = request.session_timeout_ms / 1000
    if not MIN_SESSION_S <= session_s <= MAX_SESSION_S:
        raise RefusedError(Code.INVALID_SESSION_TIMEOUT)
    return JoinWish(
        member_id=request.member_id,
        client_id=request.header.client_id or "client",
        protocols={protocol.name: bytes(protocol.metadata) for protocol in request.protocols},
        session_s=session_s,
        rebalance_s=min(max(request.rebalance_timeout_ms / 1000, session_s), MAX_REBALANCE_S),
        announces=request.version >= _ANNOUNCES_SINCE,
    )
