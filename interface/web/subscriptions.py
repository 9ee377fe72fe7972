"""`/v1/subscriptions`: begin, change, cancel, resume; get, history."""

from functools import partial
from typing import Annotated
from uuid import UUID

from litestar import Response, Router, get, patch, post
from litestar.params import Body
from msgspec import Meta, Struct

from application.payments import operation_id
from application.streams import Done
from application.subscriptions import SubscriptionNotFound, Wanted
from domain.customer import MAX_NAME_LENGTH
from domain.subscription import Subscription
from domain.subscription_decisions import MAX_QUANTITY, MAX_TRIAL_DAYS
from interface.services import Services
from interface.web import documented_billing as documented
from interface.web.access import caller_of, needs
from interface.web.billing_problems import declined, failure_of
from interface.web.customer_names import READ, Http, context_of, headers_of, known
from interface.web.customer_views import SubscriptionView, at_end_of
from interface.web.facts import fact_view
from interface.web.problems import MEDIA_TYPE, FieldError, Problem, bad_request
from interface.web.reading import check_request
from interface.web.requests import NO_CONTROLS, After, IdempotencyKey, Reference
from interface.web.views import FactList
from interface.web.waiting import wait_for
from projections import customers

TrialDays = Annotated[int, Meta(ge=0, le=MAX_TRIAL_DAYS, description="Days for nothing before the first period.")]
Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, description="Pieces of it.")]


class SubscriptionBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What to subscribe to. `product` by its id or name; without `price` its default one, or the only one it has.

    `another`: although the customer has a subscription to the product already.
    """

    customer: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, pattern=NO_CONTROLS)]
    product: Reference
    price: Reference | None = None
    quantity: Quantity = 1
    trial_days: TrialDays = 0
    another: bool = False


class ChangeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be different from now on; what is not named stays."""

    product: Reference | None = None
    price: Reference | None = None
    quantity: Quantity | None = None


class CancellationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """At once, or when what was paid for has been used."""

    at_period_end: bool = False


# --- Commands ----------------------------------------------------------------------------------------------------


@post("/", responses=documented.SUBSCRIBE, guards=[needs("write:payment")], status_code=201)
async def begin(
    request: Http,
    services: Services,
    data: Annotated[SubscriptionBody, Body(examples=documented.SUBSCRIBE_EXAMPLES)],
    idempotency_key: IdempotencyKey,
) -> Response[SubscriptionView | Problem]:
    """Subscribe a customer to a product.

    201 with the subscription, 200 when the same request was answered before, 202 while the outcome is not known, 402
    with it inside the problem when its first payment is declined, 409 when there is one to the product already.
    """
    customer = (await known(services, data.customer, partial(FieldError, pointer="#/customer"))).stream
    operation = operation_id(customer, caller_of(request).subject, idempotency_key)
    wanted = Wanted(data.product, data.price, data.quantity, data.trial_days, data.another)
    done = await services.subscriptions.begin(customer, wanted, operation, context_of(request))
    return _answered(done, created=True)


@patch("/{subscription:uuid}", responses=documented.CHANGE, guards=[needs("write:payment")])
async def change(
    request: Http,
    services: Services,
    subscription: UUID,
    data: Annotated[ChangeBody, Body(examples=documented.CHANGE_EXAMPLES)],
    idempotency_key: IdempotencyKey,
) -> Response[SubscriptionView | Problem]:
    """Have another product, price or quantity from now on. What that costs at once is prorated."""
    if data == ChangeBody():
        raise bad_request(FieldError("must name a product, a price or a quantity", pointer="#"))
    done = await services.subscriptions.change(
        subscription,
        data.product,
        data.price,
        data.quantity,
        operation_id(subscription, caller_of(request).subject, idempotency_key),
        context_of(request),
    )
    return _answered(done)


@post(
    "/{subscription:uuid}/cancellation", responses=documented.CANCEL, guards=[needs("write:payment")], status_code=200
)
async def cancel(
    request: Http,
    services: Services,
    subscription: UUID,
    data: Annotated[CancellationBody, Body(examples=documented.CANCEL_EXAMPLES)],
    idempotency_key: IdempotencyKey,
) -> Response[SubscriptionView | Problem]:
    """End it at once, or when what was paid for has been used. One that has ended stays as it is."""
    operation = operation_id(subscription, caller_of(request).subject, idempotency_key)
    done = await services.subscriptions.cancel(
        subscription, operation, context_of(request), at_period_end=data.at_period_end
    )
    return _answered(done)


@post("/{subscription:uuid}/resumption", responses=documented.CHANGE, guards=[needs("write:payment")], status_code=200)
async def resume(
    request: Http, services: Services, subscription: UUID, idempotency_key: IdempotencyKey
) -> Response[SubscriptionView | Problem]:
    """Keep it after all, as long as its planned end has not come."""
    operation = operation_id(subscription, caller_of(request).subject, idempotency_key)
    return _answered(await services.subscriptions.resume(subscription, operation, context_of(request)))


def _answered(done: Done[Subscription], *, created: bool = False) -> Response[SubscriptionView | Problem]:
    at = at_end_of(done.story)
    view = SubscriptionView.of(at)
    headers = headers_of(at, replayed=done.replayed)
    if done.outcome == "failed":
        told = declined(failure_of(done), subscription=view)
        return Response(told, status_code=told.status, media_type=MEDIA_TYPE, headers=headers)
    if done.outcome == "open":
        return Response(view, status_code=202, headers=headers)
    fresh = created and not done.replayed
    if fresh:
        headers["Location"] = f"/v1/subscriptions/{view.id}"
    return Response(view, status_code=201 if fresh else 200, headers=headers)


# --- Queries -----------------------------------------------------------------------------------------------------


@get("/{subscription:uuid}", responses=documented.GET_SUBSCRIPTION, guards=[needs(READ)])
async def find(services: Services, subscription: UUID, after: After = None) -> Response[SubscriptionView]:
    """A subscription as the read model has it. `after` waits, bounded, until it includes that position."""
    await wait_for(services, customers.NAME, after)
    async with services.queries.connection() as conn:
        at = await customers.subscription(conn, subscription)
    if at is None:
        raise SubscriptionNotFound
    return Response(SubscriptionView.of(at), headers=headers_of(at))


@get("/{subscription:uuid}/events", responses=documented.SUBSCRIPTION_EVENTS, guards=[needs(READ)])
async def events(services: Services, subscription: UUID) -> Response[FactList]:
    """The subscription's whole history, fact by fact, from the log itself."""
    story = await services.subscriptions.load(subscription)
    facts = [fact_view(envelope, personal=True) for envelope in story.envelopes]
    return Response(FactList(facts), headers=headers_of(at_end_of(story)))


router = Router(
    "/v1/subscriptions",
    route_handlers=[begin, change, cancel, resume, find, events],
    before_request=check_request,
    tags=["subscriptions"],
)
