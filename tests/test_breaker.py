"""A provider that does not answer is left alone for a while, and a no is an answer."""

import asyncio
from uuid import uuid4

import pytest

from application.breaker import BUSY_RETRY_S, MAX_CALLS, MAX_UNANSWERED, PAUSE_S, Breaker
from application.gateway import Absent, AnyInstruction, AuthorizeInstruction, GatewayMisconfigured, Unknown
from domain.payment_commands import Outcome, RecordAuthorized, RecordFailed
from tests.fake_gateway import PATIENCE_S, Behaviour, FakeGateway
from tests.given import usd

UNANSWERED = Behaviour(arrives=False)


class Line:
    """A provider, the breaker in front of it, and a clock in seconds."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.gateway = FakeGateway()
        self.breaker = Breaker(self.gateway, lambda: self.now_s)

    async def call(self, behaviour: Behaviour | None = None) -> Outcome | Unknown:
        """A new authorization; the provider treats it so, if it hears of it at all."""
        sent = len(self.gateway.asked)
        self.gateway.will(behaviour or Behaviour())
        answer = await self.breaker.perform(instruction())
        if len(self.gateway.asked) == sent:
            self.gateway._next.clear()
        return answer

    async def unanswered(self, times: int) -> None:
        for _ in range(times):
            assert await self.call(UNANSWERED) == Unknown("timeout")

    async def held(self) -> tuple[asyncio.Task[Outcome | Unknown], asyncio.Event]:
        """A call that is with the provider until it is let go."""
        go = asyncio.Event()
        self.gateway.busy.clear()
        task = asyncio.create_task(self.call(Behaviour(until=go)))
        await asyncio.wait_for(self.gateway.busy.wait(), PATIENCE_S)
        return task, go


def instruction() -> AnyInstruction:
    return AuthorizeInstruction(
        payment=uuid4(),
        operation="auth_1",
        amount=usd(100_00),
        capture="manual",
        payment_method="pm_card_visa",
        description=None,
        metadata={},
    )


def test_it_opens_when_so_many_calls_in_a_row_were_not_answered() -> None:
    async def scene() -> None:
        line = Line()
        await line.unanswered(MAX_UNANSWERED - 1)
        assert line.breaker.unavailable_s() is None
        await line.unanswered(1)
        assert line.breaker.unavailable_s() == PAUSE_S
        assert await line.call() == Unknown("breaker open")
        assert len(line.gateway.asked) == MAX_UNANSWERED, "the provider was not asked"

    asyncio.run(scene())


@pytest.mark.parametrize("answer", [Behaviour(), Behaviour(declines=True), Behaviour(challenges=True)])
def test_an_answer_ends_the_row_and_a_no_is_one(answer: Behaviour) -> None:
    async def scene() -> None:
        line = Line()
        for _ in range(3):
            await line.unanswered(MAX_UNANSWERED - 1)
            assert not isinstance(await line.call(answer), Unknown)
        assert not line.breaker.is_open

    asyncio.run(scene())


def test_after_the_pause_one_call_tries_and_the_others_wait_for_it() -> None:
    async def scene() -> None:
        line = Line()
        await line.unanswered(MAX_UNANSWERED)
        line.now_s += PAUSE_S - 0.001
        assert await line.call() == Unknown("breaker open")
        line.now_s += 0.001
        assert line.breaker.unavailable_s() is None
        probe, go = await line.held()
        asked = len(line.gateway.asked)
        assert line.breaker.unavailable_s() == BUSY_RETRY_S
        assert await line.call() == Unknown("breaker open")
        assert len(line.gateway.asked) == asked
        go.set()
        assert isinstance(await probe, RecordAuthorized)
        assert line.breaker.unavailable_s() is None
        assert isinstance(await line.call(), RecordAuthorized)

    asyncio.run(scene())


def test_a_try_that_is_not_answered_begins_another_pause() -> None:
    async def scene() -> None:
        line = Line()
        await line.unanswered(MAX_UNANSWERED)
        for _ in range(3):
            line.now_s += PAUSE_S
            await line.unanswered(1)
            assert line.breaker.unavailable_s() == PAUSE_S
        line.now_s += PAUSE_S
        assert isinstance(await line.call(Behaviour(declines=True)), RecordFailed)
        assert not line.breaker.is_open

    asyncio.run(scene())


def test_a_caller_that_goes_away_while_it_tries_lets_another_try() -> None:
    async def scene() -> None:
        line = Line()
        await line.unanswered(MAX_UNANSWERED)
        line.now_s += PAUSE_S
        probe, _ = await line.held()
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert line.breaker.unavailable_s() == PAUSE_S
        line.now_s += PAUSE_S
        assert isinstance(await line.call(), RecordAuthorized)

    asyncio.run(scene())


def test_a_call_from_before_it_opened_does_not_end_the_try() -> None:
    async def scene() -> None:
        line = Line()
        early, go_early = await line.held()
        await line.unanswered(MAX_UNANSWERED)
        line.now_s += PAUSE_S
        probe, go = await line.held()
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        line.now_s += PAUSE_S
        assert await line.call() == Unknown("breaker open"), "one is trying already"
        go.set()
        go_early.set()
        assert isinstance(await probe, RecordAuthorized)

    asyncio.run(scene())


def test_a_late_answer_to_an_earlier_call_closes_it_too() -> None:
    async def scene() -> None:
        line = Line()
        early, go = await line.held()
        await line.unanswered(MAX_UNANSWERED)
        go.set()
        await early
        assert line.breaker.unavailable_s() is None

    asyncio.run(scene())


def test_looking_counts_like_acting() -> None:
    async def scene() -> None:
        line = Line()
        for number in range(MAX_UNANSWERED):
            line.gateway.will(Behaviour(answers=False))
            look = line.breaker.standing(uuid4(), "auth_1", None) if number % 2 else line.breaker.payment_of("pi_1")
            assert await look == Unknown("timeout")
        assert await line.call() == Unknown("breaker open")
        assert await line.breaker.payment_of("pi_1") == Unknown("breaker open")
        line.now_s += PAUSE_S
        assert isinstance(await line.breaker.payment_of("pi_1"), Absent), "that nothing is there is an answer"
        assert not line.breaker.is_open

    asyncio.run(scene())


def test_callers_beyond_the_limit_are_refused_at_once() -> None:
    async def scene() -> None:
        line = Line()
        go = asyncio.Event()
        line.gateway.will(*[Behaviour(until=go)] * MAX_CALLS)
        calls = [asyncio.create_task(line.breaker.perform(instruction())) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        assert len(line.gateway.asked) == MAX_CALLS
        assert line.breaker.unavailable_s() == BUSY_RETRY_S
        assert await line.breaker.perform(instruction()) == Unknown("too many calls")
        assert len(line.gateway.asked) == MAX_CALLS
        go.set()
        assert {type(answer) for answer in await asyncio.gather(*calls)} == {RecordAuthorized}
        assert line.breaker.unavailable_s() is None, "nor were the refused ones counted as unanswered"

    asyncio.run(scene())


def test_wrong_credentials_are_no_silence_of_the_provider() -> None:
    class Strict(FakeGateway):
        async def verify(self) -> None:
            raise GatewayMisconfigured

    with pytest.raises(GatewayMisconfigured):
        asyncio.run(Breaker(Strict(), lambda: 0.0).verify())
