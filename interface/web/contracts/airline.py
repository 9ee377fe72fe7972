"""The airline's contract: pre-authorise, collect once the booking is confirmed, refund or release when it failed.

Translations only. Its callers send no idempotency key, so a wish is named by what it is about: the token it pays with,
or the charge and what is done with it. A caller that means two equal payments says so with an `Idempotency-Key`.
"""

import hashlib
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Request, Response, Router, post, put
from litestar.datastructures import State
from msgspec import Meta, Raw, Struct

from application.gateway import Absent, ChargeSeen, Unknown
from application.payment_stream import Context
from application.payments import Answer, PaymentNotFound, ProviderUnavailable, operation_id, payment_id
from application.stripe_adoption import ADOPTED
from domain.errors import InvalidMoney
from domain.money import Money
from domain.payment import Payment
from domain.payment_commands import Authorize, Capture, Refund, Void
from domain.payment_facts import Refunded
from interface.services import Services
from interface.tokens import Caller
from interface.web.access import caller_of, needs
from interface.web.contracts.amounts import from_major
from interface.web.problems import FieldError, ProblemError, bad_request, problem, unavailable
from interface.web.reading import read
from interface.web.requests import END, Amount, Text
from interface.web.waiting import correlation_of

# Derives streams and operations, whoever asks: it never changes.
CONTRACT = "contract:airline"
Http = Request[Caller, Any, State]
Word = Literal["authorized", "captured", "failed", "refunded", "pending"]

Token = Annotated[str, Meta(pattern="^(tok|pm|pi|ch)_[A-Za-z0-9_]+" + END, max_length=200)]
Currency = Annotated[str, Meta(pattern="^[A-Za-z]{3}" + END, description="ISO 4217.")]
Email = Annotated[str, Meta(pattern=r"^[^@\s\x00]+@[^@\s\x00]+" + END, max_length=320)]
ChargeId = Annotated[str, Meta(pattern="^ch_[A-Za-z0-9_]+" + END, max_length=200)]


class PaymentBody(Struct, frozen=True):
    """`amount` in major units; the token may be one to authorize, or a PaymentIntent or charge to adopt."""

    amount: Raw
    currency: Currency
    stripeToken: Token  # noqa: N815  the contract's name
    description: Text
    email: Email


class ChargeBody(Struct, frozen=True):
    """`amount` in minor units."""

    stripeToken: Annotated[str, Meta(pattern="^(tok|pm)_[A-Za-z0-9_]+" + END, max_length=200)]  # noqa: N815
    amount: Amount
    currency: Currency
    email: Email
    description: Text


class ChargeIdBody(Struct, frozen=True):
    chargeId: ChargeId  # noqa: N815
    email: Email | None = None


# --- Pay ---------------------------------------------------------------------------------------------------------


@put("/payment", guards=[needs("write:payment")])
async def pay(request: Http, services: Services) -> dict[str, Word]:
    """Pre-authorise a payment, or adopt one that the front end has authorized at Stripe. Answers with its state."""
    body: Any = await _read(request, services, PaymentBody, "Payment")
    try:
        amount = from_major(body.amount, body.currency.lower())
    except InvalidMoney as error:
        field = "currency" if not hasattr(error, "reason") else "amount"
        said = getattr(error, "reason", "is not an ISO 4217 currency")
        services.metrics.airline["InvalidPaymentRequest"].inc()
        raise bad_request(FieldError(said, pointer=f"#/{field}")) from None
    token = await _adoptable(services, body.stripeToken)
    stream, key = _named(request, token, body)
    answer = await _authorize(request, services, stream, key, body, amount, token)
    payment = answer.at.payment
    if answer.outcome == "failed" and token.startswith(ADOPTED):
        said = payment.failure.message if payment.failure else "it cannot be adopted"
        raise bad_request(FieldError(said, pointer="#/stripeToken"))
    return {"status": word_for(payment)}


@post("/charge", guards=[needs("write:payment")], status_code=200)
async def charge(request: Http, services: Services) -> Response[Any]:
    """Pre-authorise: nothing is taken before it is captured."""
    body: Any = await _read(request, services, ChargeBody, "Payment")
    amount = Money(body.amount, body.currency.lower())
    stream, key = _named(request, body.stripeToken, body)
    answer = await _authorize(request, services, stream, key, body, amount, body.stripeToken)
    payment = answer.at.payment
    if answer.outcome == "done":
        return Response({"createdCharge": _charge(payment)})
    if answer.outcome == "open":
        return Response({"status": "pending"}, status_code=202)
    said = payment.failure.message if payment.failure else "the cardholder must authenticate"
    raise ProblemError(problem(402, "declined", said))


async def _authorize(
    request: Http, services: Services, stream: UUID, key: str, body: Any, amount: Money, token: str
) -> Answer:
    wish = Authorize(
        operation=operation_id(stream, CONTRACT, key),
        amount=amount,
        capture="manual",
        payment_method=token,
        description=body.description,
        metadata={"contract": "airline", "email": body.email},
    )
    answer = await services.payments.carry_out(stream, wish, _context(request))
    _count(services, answer, "Payment")
    return answer


async def _read(request: Http, services: Services, into: type[Struct], kind: str) -> Any:
    try:
        return read(await request.body(), into)
    except ProblemError:
        services.metrics.airline[f"Invalid{kind}Request"].inc()
        raise


def _count(services: Services, answer: Answer, kind: str) -> None:
    words = {"done": "Successful", "failed": "Failed"}
    if answer.outcome in words and not answer.replayed:
        services.metrics.airline[words[answer.outcome] + kind].inc()


async def _adoptable(services: Services, token: str) -> str:
    """A charge is adopted as the PaymentIntent that it was made for."""
    if not token.startswith("ch_"):
        return token
    found = await _seen(services, token)
    if isinstance(found, ChargeSeen) and found.payment_intent:
        return found.payment_intent
    said = "there is no such charge" if isinstance(found, Absent) else "this charge has no PaymentIntent to adopt"
    raise bad_request(FieldError(said, pointer="#/stripeToken"))


def _named(request: Http, token: str, body: Any) -> tuple[UUID, str]:
    """The stream and key of what is paid. One PaymentIntent is one payment, whoever asks for it."""
    if token.startswith(ADOPTED):
        return payment_id(f"{CONTRACT}:adopted", token), "adopt"
    caller = caller_of(request).subject
    given = request.headers.get("idempotency-key")
    amount = bytes(body.amount).decode() if isinstance(body, PaymentBody) else str(body.amount)
    parts = [token, amount, body.currency.lower(), body.email, body.description, type(body).__name__]
    key = given or hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return payment_id(f"{CONTRACT}:{caller}", key), "authorize"


# --- Collect and refund ------------------------------------------------------------------------------------------


@post("/capture", guards=[needs("write:payment")], status_code=200)
async def capture(request: Http, services: Services) -> Response[Any]:
    """Take the whole of what was pre-authorised."""
    body: Any = await _read(request, services, ChargeIdBody, "Payment")
    stream = await _payment_of(services, body.chargeId)
    wish = Capture(operation_id(stream, CONTRACT, f"capture:{body.chargeId}"))
    answer = await services.payments.carry_out(stream, wish, _context(request))
    _done(answer)
    receipt = await _seen(services, body.chargeId)
    url = receipt.receipt_url if isinstance(receipt, ChargeSeen) else None
    return Response({"capturedCharge": _charge(answer.at.payment) | {"captured": True, "receipt_url": url}})


@post("/refund", guards=[needs("write:payment")], status_code=200)
async def refund(request: Http, services: Services) -> Response[Any]:
    """Give all that is left back; what was never taken is released."""
    body: Any = await _read(request, services, ChargeIdBody, "Refund")
    stream = await _payment_of(services, body.chargeId)
    history = await services.payments.history(stream)
    payment = history.payment
    key = f"refund:{body.chargeId}"
    returning, releasing = operation_id(stream, CONTRACT, key), operation_id(stream, CONTRACT, f"void:{body.chargeId}")
    # What was asked for before is what it is about, whatever has happened since.
    taken = payment is not None and releasing not in payment.operations and bool(payment.captured)
    wish = Refund(returning) if taken else Void(releasing)
    answer = await services.payments.carry_out(stream, wish, _context(request))
    _count(services, answer, "Refund")
    _done(answer)
    operation = answer.at.payment.operations[wish.operation]
    history = await services.payments.history(stream)
    made = (one.fact for one in history.envelopes if isinstance(one.fact, Refunded) and one.operation == wish.operation)
    name = next((fact.refund for fact in made), wish.operation)
    returned = {
        "id": name,
        "object": "refund",
        "amount": operation.amount.minor,
        "charge": body.chargeId,
        "currency": operation.amount.currency,
        "status": "succeeded",
    }
    return Response({"createdRefund": returned})


def _done(answer: Answer) -> None:
    if answer.outcome == "open":
        raise unavailable("outcome-unknown", "the outcome is not known yet; the same request may be sent again")
    if answer.outcome == "failed":
        failure = answer.at.payment.failure
        raise ProblemError(problem(402, "declined", failure.message if failure else "the provider said no"))


async def _payment_of(services: Services, charge_id: str) -> UUID:
    found = await _seen(services, charge_id)
    if isinstance(found, Absent) or found.payment is None:
        raise PaymentNotFound
    return found.payment


async def _seen(services: Services, charge_id: str) -> ChargeSeen | Absent:
    found = await services.gateway.charge(charge_id)
    if isinstance(found, Unknown):
        raise ProviderUnavailable(1.0)
    return found


# --- Words -------------------------------------------------------------------------------------------------------


def word_for(payment: Payment) -> Word:
    """The one vocabulary behind the five contracts, in the airline's words."""
    match payment.status:
        case "authorized" | "partially_captured" | "captured" | "partially_refunded" | "disputed":
            return "captured" if payment.captured else "authorized"
        case "refunded":
            return "refunded"
        case "pending" | "requires_action":
            return "pending"
        case _:
            return "failed"


def _charge(payment: Payment) -> dict[str, Any]:
    return {
        "id": payment.charge,
        "object": "charge",
        "amount": payment.amount.minor,
        "amount_captured": payment.captured.minor,
        "amount_refunded": payment.refunded.minor,
        "captured": bool(payment.captured),
        "currency": payment.amount.currency,
        "payment_intent": payment.payment_intent,
        "status": "succeeded",
    }


def _context(request: Http) -> Context:
    return Context(caller_of(request).subject, correlation_of(request))


router = Router("/", route_handlers=[pay, charge, capture, refund], include_in_schema=False)
