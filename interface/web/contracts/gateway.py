"""The payments gateway's contract: app users by their id or e-mail, their card, and what they are subscribed to.

Translations only. It has no call that registers a user: the first one for somebody new brings a card, and registers
them. Its callers send no idempotency key: a token is the wish to pay with it, and of one product there is one
subscription at a time, so that whoever asks twice is refused and not billed twice. With a key they are answered again.
"""

from functools import partial
from typing import Annotated, Any
from uuid import UUID, uuid4

from litestar import Request, Response, Router, delete, get, post, put
from litestar.datastructures import State
from litestar.params import PathParameter, QueryParameter

from application.payments import operation_id
from application.streams import Done, Story
from application.subscriptions import Wanted
from domain.customer import MAX_NAME_LENGTH, Customer
from domain.errors import InvalidName
from domain.subscription import Subscription
from interface.services import Services
from interface.web.access import caller_of, needs
from interface.web.billing_problems import declined, failure_of
from interface.web.card_numbers import holds_card_number
from interface.web.contracts import gateway_words as words
from interface.web.contracts.gateway_words import (
    UserCardBody,
    UserChangeBody,
    UserStatus,
    UserSubscription,
    UserSubscriptionBody,
)
from interface.web.customer_names import READ, Http, context_of, known, standing
from interface.web.customer_views import at_end_of
from interface.web.problems import FieldError, ProblemError, bad_request, unavailable
from interface.web.reading import read
from interface.web.requests import END, MAX_KEY_LENGTH, NO_CONTROLS
from interface.web.waiting import MAX_WAIT_S
from interface.web.webhooks import ANSWERS, MAX_EVENT_BYTES, Received, Webhook, keep
from projections import customers
from projections.customer_standing import CustomerStatus, status

User = Annotated[
    str,
    PathParameter(
        min_length=1, max_length=MAX_NAME_LENGTH, pattern=NO_CONTROLS, description="The user's id or e-mail."
    ),
]
# No Literal: what else stands there would be quoted by who refuses it, and might be a card's number.
AtPeriodEnd = Annotated[
    str,
    QueryParameter(
        name="at_period_end", pattern="^(true|false)" + END, description="Keep it to the end of what is paid."
    ),
]
OPEN = "the outcome is not known yet; the same request may be sent again"


# --- Users -------------------------------------------------------------------------------------------------------


@get("/users/{user:str}/payment-status", guards=[needs(READ)], operation_class=words.STATUS)
async def payment_status(services: Services, user: User) -> Response[UserStatus]:
    """How a user stands: what was paid until when, with which card, and for what."""
    return Response(UserStatus.of(await standing(services, user, partial(FieldError, parameter="user"))))


@put("/users/{user:str}/card", guards=[needs("write:payment")], operation_class=words.CARD)
async def set_card(request: Http, services: Services, user: User) -> Response[UserStatus]:
    """Have a user and their subscriptions pay with this from now on. Who is not known yet becomes known."""
    body: Any = read(await request.body(), UserCardBody)
    customer = await _registered(request, services, user)
    key = _key(request)
    operation = operation_id(customer, caller_of(request).subject, key) if key else None
    done = await services.customers.update_card(customer, body.token, operation, context_of(request))
    if done.outcome == "failed":
        raise ProblemError(declined(failure_of(done), partial(FieldError, pointer="#/token")))
    found = await _shown(services, done)
    return Response(UserStatus.of(found), status_code=202 if done.outcome == "open" else 200)


async def _registered(request: Http, services: Services, user: str) -> UUID:
    """The customer that a user is. Asked for again, it is the same one."""
    if holds_card_number(user):
        raise bad_request(FieldError("a card number must not stand here", parameter="user"))
    name = {"email": user, "user": None} if "@" in user else {"email": None, "user": user}
    try:
        done = await services.customers.register(**name, context=context_of(request))
    except InvalidName as refusal:
        raise bad_request(FieldError(refusal.reason, parameter="user")) from None
    if done.outcome == "failed":
        raise ProblemError(declined(failure_of(done), partial(FieldError, parameter="user")))
    if done.outcome == "open":
        raise unavailable("outcome-unknown", OPEN)
    return done.story.stream


async def _shown(services: Services, done: Done[Customer]) -> CustomerStatus:
    """How a customer stands after what was done: its callers name no position, so it is waited for here, bounded."""
    await _seen(services, done.story)
    now = services.clock()
    async with services.queries.connection() as conn:
        found = await customers.status_of(conn, done.story.stream, now)
    return found or status(at_end_of(done.story), (), now)


# --- Subscriptions -----------------------------------------------------------------------------------------------


@post("/subscriptions", guards=[needs("write:payment")], status_code=201, operation_class=words.SUBSCRIBE)
async def subscribe(request: Http, services: Services) -> Response[UserSubscription]:
    """Subscribe a user to a product."""
    body: Any = read(await request.body(), UserSubscriptionBody)
    customer = await known(services, body.user, partial(FieldError, pointer="#/user"))
    operation = _operation(request, customer.stream)
    wanted = Wanted(body.product, body.price)
    done = await services.subscriptions.begin(customer.stream, wanted, operation, context_of(request))
    return await _answered(services, done, created=True)


@put("/subscriptions/{subscription:uuid}", guards=[needs("write:payment")], operation_class=words.CHANGE)
async def change(request: Http, services: Services, subscription: UUID) -> Response[UserSubscription]:
    """Have another product, or another price of it. What that costs at once is prorated."""
    body: Any = read(await request.body(), UserChangeBody)
    if body == UserChangeBody():
        raise bad_request(FieldError("must name a product or a price", pointer="#"))
    operation = _operation(request, subscription)
    done = await services.subscriptions.change(
        subscription, body.product, body.price, None, operation, context_of(request)
    )
    return await _answered(services, done)


@delete(
    "/subscriptions/{subscription:uuid}", guards=[needs("write:payment")], status_code=200, operation_class=words.CANCEL
)
async def cancel(
    request: Http, services: Services, subscription: UUID, at_period_end: AtPeriodEnd = "false"
) -> Response[UserSubscription]:
    """End a subscription: at once, or when what was paid for has been used."""
    operation = _operation(request, subscription)
    done = await services.subscriptions.cancel(
        subscription, operation, context_of(request), at_period_end=at_period_end == "true"
    )
    return await _answered(services, done)


async def _answered(
    services: Services, done: Done[Subscription], *, created: bool = False
) -> Response[UserSubscription]:
    if done.outcome == "failed":
        raise ProblemError(declined(failure_of(done)))
    await _seen(services, done.story)
    at = at_end_of(done.story)
    user = (await services.customers.load(at.state.customer)).known.user
    fresh = created and not done.replayed
    code = 202 if done.outcome == "open" else 201 if fresh else 200
    return Response(UserSubscription.of(at, user), status_code=code)


async def _seen(services: Services, story: Story[Any]) -> None:
    """Whoever asks for a user's status next is to find this in it. What is done is done, if that takes too long."""
    await services.progress.reached(customers.NAME, story.position, MAX_WAIT_S)


def _operation(request: Http, stream: UUID) -> str:
    """Without a key every request is a wish of its own: what is so already is answered so, or refused."""
    key = _key(request)
    return operation_id(stream, caller_of(request).subject, key) if key else str(uuid4())


def _key(request: Http) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (key.isascii() and key.isprintable() and len(key) <= MAX_KEY_LENGTH):
        raise bad_request(FieldError(f"must have at most {MAX_KEY_LENGTH} characters", header="Idempotency-Key"))
    return key or None


# --- Webhooks ----------------------------------------------------------------------------------------------------

_SIGNED: dict[str, Any] = {
    "responses": ANSWERS,
    "status_code": 200,
    "security": [{}],
    "operation_class": Webhook,
    "request_max_body_size": MAX_EVENT_BYTES,
}


@post("/webhooks/charge/succeeded", **_SIGNED)
async def charge_succeeded(request: Request[Any, Any, State], services: Services) -> Response[Received]:
    """Keep Stripe's `charge.succeeded` in the inbox that all its events are in; anything else is 400."""
    return await keep(request, services, only="charge.succeeded")


@post("/webhooks/charge/failed", **_SIGNED)
async def charge_failed(request: Request[Any, Any, State], services: Services) -> Response[Received]:
    """Keep Stripe's `charge.failed` in the inbox that all its events are in; anything else is 400."""
    return await keep(request, services, only="charge.failed")


router = Router(
    "/payments-gateway/api",
    route_handlers=[payment_status, set_card, subscribe, change, cancel, charge_succeeded, charge_failed],
    tags=["payments gateway"],
)
