"""Adopting a PaymentIntent that somebody else made: it is checked against what we were told, and marked as ours."""

from collections.abc import Awaitable, Callable, Mapping

import stripe

from application.gateway import AuthorizeInstruction, Unknown
from application.stripe_answers import Intent, evidence, read
from application.stripe_bare_charges import PREFIX
from application.stripe_outcomes import authorization
from application.stripe_standing import payment_named
from domain.money import to_stripe
from domain.payment_commands import Outcome, RecordFailed
from domain.payment_facts import Failure

# A PaymentIntent, or a charge that has none (stripe_bare_charges.py).
ADOPTED = ("pi_", PREFIX)
# With one of these, money is reserved or taken; anything else is not a payment yet, or no more.
_HELD = frozenset({"requires_capture", "succeeded"})

Get = Callable[[str], Awaitable[stripe.StripeResponse]]
Mark = Callable[[str], Awaitable[stripe.StripeResponse]]


async def adopt(instruction: AuthorizeInstruction, get: Get, mark: Mark) -> Outcome | Unknown:
    """Take a PaymentIntent over. One that is not what we were told is refused, and nothing is changed of it."""
    name = instruction.payment_method
    response = await get(f"payment_intents/{name}")
    wrong = _wrong(read(response, Intent), instruction)
    if wrong is not None:
        failure = Failure("adoption_refused", None, wrong, retryable=False)
        return RecordFailed(instruction.operation, failure, evidence(response, name), name)
    return authorization(instruction.operation, await mark(f"payment_intents/{name}"))


def _wrong(intent: Intent, instruction: AuthorizeInstruction) -> str | None:
    """Why it cannot be adopted, if it cannot."""
    marked = payment_named(intent.metadata)
    if marked not in {None, instruction.payment}:
        return "it belongs to another payment already"
    if intent.status not in _HELD:
        return f"it has not been authorized: {intent.status}"
    told: Mapping[str, object] = {"amount": to_stripe(instruction.amount), "currency": instruction.amount.currency}
    differing = [name for name, value in told.items() if getattr(intent, name) != value]
    return f"its {' and '.join(differing)} is not what was asked for" if differing else None
