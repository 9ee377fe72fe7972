"""What the adapters ask that no other test of theirs has them ask, so that stripe-mock is shown it, too."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import stripe

from application.gateway import Absent, VoidInstruction
from application.stripe_billing_lookups import StripeBillingLookups
from application.stripe_gateway import StripeGateway
from domain.payment_commands import RecordVoided
from tests.faults import stand_in
from tests.test_stripe_billing_lookups import invoice
from tests.test_stripe_gateway import authorized, perform, use


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with stand_in() as url:
        yield url


def test_a_reserve_of_which_nothing_was_taken_is_cancelled(url: str) -> None:
    void = VoidInstruction(
        payment=uuid4(), operation="op_2", payment_intent=authorized(url).payment_intent, partly_captured=False
    )
    (outcome,) = perform(url, void)
    assert isinstance(outcome, RecordVoided)


def test_a_payment_without_a_name_is_searched_for(url: str) -> None:
    assert isinstance(use(url, lambda gateway: gateway.standing(uuid4(), "op_1", None)), Absent)


def test_the_lines_that_an_invoice_did_not_bring_along_are_fetched(url: str) -> None:
    async def ask(gateway: StripeGateway) -> None:
        longer = invoice(id="in_none", lines={"data": [], "has_more": True})
        await StripeBillingLookups(gateway.api.get)._lines(longer)

    with pytest.raises(stripe.InvalidRequestError, match="in_none"):
        use(url, ask)
