"""The airline's contract: pre-authorise, collect once the booking is confirmed, refund or release when it failed.

Translations only. Its callers send no idempotency key, so a wish is named by what it is about: the token it pays with,
or the charge and what is done with it. A caller that means two equal payments says so with an `Idempotency-Key`.
"""

import hashlib
from typing import Any, Literal
from uuid import UUID

from litestar import Request, Response, Router, post, put
from litestar.datastructures import State
from msgspec import Struct

from application.gateway import Absent, ChargeSeen, Unknown
from application.payment_stream import Context
from application.payments import Answer, PaymentNotFound, ProviderUnavailable, operation_id, payment_id
from application.stripe_adoption import ADOPTED
from domain.errors import InvalidMoney
from domain.money import Money
from domain.payment import Phase
from domain.payment_commands import Authorize, Capture, Refund, Void
from domain.payment_facts import Refunded
from interface.services import Services
from interface.tokens import Caller
from interface.tracing import tell, tell_booking
from interface.web.access import caller_of, needs
from interface.web.contracts import airline_words as words
from interface.web.contracts.airline_words import ChargeBody, ChargeIdBody, PaymentBody, Word, charge_view, word_for
from interface.web.contracts.amounts import from_major
from interface.web.problems import FieldError, ProblemError, bad_request, problem, unavailable
from interface.web.reading import read
from interface.web.waiting import correlation_of

# Derives streams and operations, whoever asks: it never changes.
CONTRACT = "contract:airline"
Http = Request[Caller, Any, State]
Kind = Literal["Payment", "Refund"]


# --- Pay ---------------------------------------------------------------------------------------------------------


@put("/payment", guards=[needs("write:payment")], operation_class=words.PAY)
async def pay(request: Http, services: Services) -> dict[str, Word]:
    """Pre-authorise a payment, or adopt one that the front end has authorized at Stripe. Answers with its state."""
    body: Any = await _read(request, services, PaymentBody, "Payment")
    try:
        amount = from_major(body.amount, body.currency.lower())
    except InvalidMoney as error:
        field = "currency" if not hasattr(error, "reason") else "amount"
        said = getattr(error, "reason", "is not an ISO 4217 currency")
        _invalid(request, services, "Payment")
        raise bad_request(FieldError(said, pointer=f"#/{field}")) from None
    token = await _adoptable(services, body.stripeToken)
    stream, key = await _adopted(services, token, body) if token.startswith(ADOPTED) else _named(request, body)
    answer = await _authorize(request, services, stream, key, body, amount, token)
    payment = answer.at.payment
    if answer.outcome == "failed" and token.startswith(ADOPTED):
        said = payment.failure.message if payment.failure else "it cannot be adopted"
        raise bad_request(FieldError(said, pointer="#/stripeToken"))
    # Asked again, it says how the payment stands by now.
    now = (await services.payments.history(stream)).payment if answer.replayed else payment
    return {"status": word_for(now or payment)}


@post("/charge", guards=[needs("write:payment")], status_code=200, operation_class=words.CHARGE)
async def charge(request: Http, services: Services) -> Response[Any]:
    """Pre-authorise: nothing is taken before it is captured."""
    body: Any = await _read(request, services, ChargeBody, "Payment")
    amount = Money(body.amount, body.currency.lower())
    stream, key = _named(request, body)
    answer = await _authorize(request, services, stream, key, body, amount, body.stripeToken)
    payment = answer.at.payment
    if answer.outcome == "done":
        return Response({"createdCharge": charge_view(payment)})
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
    _count(request, services, answer, "Payment")
    return answer


async def _read(request: Http, services: Services, into: type[Struct], kind: Kind) -> Any:
    tell_booking(request.headers)
    try:
        return read(await request.body(), into)
    except ProblemError:
        _invalid(request, services, kind)
        raise


def _invalid(request: Http, services: Services, kind: Kind) -> None:
    services.metrics.airline[f"Invalid{kind}Request"].labels(_call(request)).inc()


def _count(request: Http, services: Services, answer: Answer, kind: Kind) -> None:
    """Tell what became of it: the metrics once, the trace each time it is asked."""
    if answer.outcome not in ("done", "failed"):
        return
    done = answer.outcome == "done"
    tell("FAILED" if not done else "REFUNDED" if kind == "Refund" else "SUCCESS")
    if not answer.replayed:
        services.metrics.airline[f"{'Successful' if done else 'Failed'}{kind}"].labels(_call(request)).inc()


def _call(request: Http) -> str:
    return request.scope["path"].strip("/")


async def _adoptable(services: Services, token: str) -> str:
    """A charge is adopted as the PaymentIntent that it was made for, or by itself when it has none."""
    if not token.startswith("ch_"):
        return token
    found = await _seen(services, token)
    if isinstance(found, Absent):
        raise bad_request(FieldError("there is no such charge", pointer="#/stripeToken"))
    return found.payment_intent or found.id


async def _adopted(services: Services, token: str, body: PaymentBody) -> tuple[UUID, str]:
    """The stream and key of what is adopted. One PaymentIntent or charge is one payment, whoever asks for it.

    A try that was refused does not stand in the way of the next one, with the right amount or once it is confirmed.
    """
    stream = payment_id(f"{CONTRACT}:adopted:{body.currency.lower()}", token)
    history = await services.payments.find(stream)
    payment = history.payment
    attempt = 1 if payment is None else payment.attempt + (payment.phase is Phase.DECLINED)
    return stream, f"adopt:{attempt}"


def _named(request: Http, body: PaymentBody | ChargeBody) -> tuple[UUID, str]:
    """The stream and key of what is paid with a token: the same wish of the same caller is the same payment."""
    caller = caller_of(request).subject
    given = request.headers.get("idempotency-key")
    amount = bytes(body.amount).decode() if isinstance(body, PaymentBody) else str(body.amount)
    parts = [body.stripeToken, amount, body.currency.lower(), body.email, body.description, type(body).__name__]
    key = given or hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return payment_id(f"{CONTRACT}:{caller}", key), "authorize"


# --- Collect and refund ------------------------------------------------------------------------------------------


@post("/capture", guards=[needs("write:payment")], status_code=200, operation_class=words.CAPTURE)
async def capture(request: Http, services: Services) -> Response[Any]:
    """Take the whole of what was pre-authorised."""
    body: Any = await _read(request, services, ChargeIdBody, "Payment")
    stream, charge_id = await _located(services, body.chargeId)
    wish = Capture(operation_id(stream, CONTRACT, f"capture:{charge_id}"))
    answer = await services.payments.carry_out(stream, wish, _context(request))
    _count(request, services, answer, "Payment")
    _done(answer)
    receipt = await _seen(services, charge_id)
    url = receipt.receipt_url if isinstance(receipt, ChargeSeen) else None
    return Response({"capturedCharge": charge_view(answer.at.payment) | {"captured": True, "receipt_url": url}})


@post("/refund", guards=[needs("write:payment")], status_code=200, operation_class=words.REFUND)
async def refund(request: Http, services: Services) -> Response[Any]:
    """Give all that is left back; what was never taken is released."""
    body: Any = await _read(request, services, ChargeIdBody, "Refund")
    stream, charge_id = await _located(services, body.chargeId)
    payment = (await services.payments.history(stream)).payment
    returning, releasing = (operation_id(stream, CONTRACT, f"{kind}:{charge_id}") for kind in ("refund", "void"))
    # What was asked for before is what it is about, whatever has happened since.
    taken = payment is not None and releasing not in payment.operations and bool(payment.captured)
    wish = Refund(returning) if taken else Void(releasing)
    answer = await services.payments.carry_out(stream, wish, _context(request))
    _count(request, services, answer, "Refund")
    _done(answer)
    operation = answer.at.payment.operations[wish.operation]
    history = await services.payments.history(stream)
    made = (one.fact for one in history.envelopes if isinstance(one.fact, Refunded) and one.operation == wish.operation)
    name = next((fact.refund for fact in made), wish.operation)
    returned = {
        "id": name,
        "object": "refund",
        "amount": operation.amount.minor,
        "charge": charge_id,
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


async def _located(services: Services, named: str) -> tuple[UUID, str]:
    """The payment and its charge, by the charge or by its PaymentIntent. Raises PaymentNotFound."""
    if not named.startswith("pi_"):
        seen = await _seen(services, named)
        if isinstance(seen, Absent) or seen.payment is None:
            raise PaymentNotFound
        return seen.payment, named
    stream = await services.gateway.payment_of(named)
    if isinstance(stream, Unknown):
        raise ProviderUnavailable(1.0)
    payment = None if isinstance(stream, Absent) else (await services.payments.history(stream)).payment
    if isinstance(stream, Absent) or payment is None or payment.charge is None:
        raise PaymentNotFound
    return stream, payment.charge


async def _seen(services: Services, charge_id: str) -> ChargeSeen | Absent:
    found = await services.gateway.charge(charge_id)
    if isinstance(found, Unknown):
        raise ProviderUnavailable(1.0)
    return found


def _context(request: Http) -> Context:
    return Context(caller_of(request).subject, correlation_of(request))


router = Router("/", route_handlers=[pay, charge, capture, refund], tags=["airline"])
