"""`/v1/customers`: register, find, pay with another card; what one is subscribed to, and its history.

Wherever a customer is named it may be by its id, by its user's id or by its e-mail.
"""

from functools import partial
from typing import Annotated

from litestar import Response, Router, post, put
from litestar.params import Body, HeaderParameter
from msgspec import Meta, Struct

from application.payments import operation_id
from application.streams import Done
from domain.customer import MAX_NAME_LENGTH, Customer
from domain.customer_facts import NameAdded
from interface.services import Services
from interface.web import documented_billing as documented
from interface.web.access import caller_of, needs
from interface.web.billing_problems import declined, failure_of
from interface.web.customer_names import CustomerName, Http, context_of, headers_of, known, may_read
from interface.web.customer_queries import events, find, newest, subscriptions
from interface.web.customer_views import CustomerView, at_end_of
from interface.web.problems import MEDIA_TYPE, FieldError, Problem
from interface.web.reading import check_request
from interface.web.requests import END, MAX_KEY_LENGTH

OptionalKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        pattern=r"^[\x21-\x7e]+" + END,
        description="May be left out: a payment method that is sent again names the same wish.",
    ),
]
Token = Annotated[str, Meta(pattern="^(pm|tok)_[A-Za-z0-9_]+" + END, max_length=200)]
UserId = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[^@\s\x00-\x1f\x7f]+" + END)]
Email = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, pattern=r"^[^@\s\x00]+@[^@\s\x00]+" + END)]


class CustomerBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Who it is: a user's id, an e-mail or both. A name that is new becomes another one of whom the other names."""

    user: UserId | None = None
    email: Email | None = None


class CardBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A Stripe payment method (`pm_…`) or token (`tok_…`), never a card number."""

    payment_method: Token


# --- Commands ----------------------------------------------------------------------------------------------------


@post("/", responses=documented.REGISTER, guards=[needs("write:payment")], status_code=201)
async def register(
    request: Http, services: Services, data: Annotated[CustomerBody, Body(examples=documented.CUSTOMER_EXAMPLES)]
) -> Response[CustomerView | Problem]:
    """Register a customer, or find the one that is known by these names.

    It takes no Idempotency-Key: the names say which customer is meant, so that asked twice it is one. 201 with a new
    customer, 200 with one that is known, 409 when the two names are those of two.
    """
    done = await services.customers.register(data.user, data.email, context_of(request))
    named = any(isinstance(envelope.fact, NameAdded) for envelope in done.story.envelopes)
    return _answered(request, done, "#/email", created=not named)


@put("/{customer:str}/card", responses=documented.SET_CARD, guards=[needs("write:payment")])
async def set_card(
    request: Http,
    services: Services,
    customer: CustomerName,
    data: Annotated[CardBody, Body(examples=documented.CARD_EXAMPLES)],
    idempotency_key: OptionalKey = None,
) -> Response[CustomerView | Problem]:
    """Have the customer and its subscriptions pay with this from now on.

    402 when the card is declined: what was paid with before stays.
    """
    story = await known(services, customer, partial(FieldError, parameter="customer"))
    subject = caller_of(request).subject
    key = operation_id(story.stream, subject, idempotency_key) if idempotency_key else None
    done = await services.customers.update_card(story.stream, data.payment_method, key, context_of(request))
    return _answered(request, done, "#/payment_method")


def _answered(
    request: Http, done: Done[Customer], pointer: str, *, created: bool = False
) -> Response[CustomerView | Problem]:
    at = at_end_of(done.story)
    view = CustomerView.of(at, personal=may_read(request))
    headers = headers_of(at, replayed=done.replayed)
    if done.outcome == "failed":
        told = declined(failure_of(done), partial(FieldError, pointer=pointer), customer=view)
        return Response(told, status_code=told.status, media_type=MEDIA_TYPE, headers=headers)
    if done.outcome == "open":
        return Response(view, status_code=202, headers=headers)
    fresh = created and not done.replayed
    if fresh:
        headers["Location"] = f"/v1/customers/{view.id}"
    return Response(view, status_code=201 if fresh else 200, headers=headers)


router = Router(
    "/v1/customers",
    route_handlers=[register, set_card, find, events, subscriptions, newest],
    before_request=check_request,
    tags=["customers"],
)
