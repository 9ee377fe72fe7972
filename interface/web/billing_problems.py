"""What is said when a customer or a subscription does not allow what is asked of it, and by whom it is not known."""

from collections.abc import Callable
from typing import Any

from litestar import Request, Response
from msgspec.structs import replace

from application.catalog import CatalogUnavailable
from application.customers import CustomerNotFound
from application.streams import Done
from application.subscriptions import SubscriptionNotFound
from domain import errors
from domain.payment_facts import Failure
from interface.web.customer_views import CustomerView, SubscriptionView
from interface.web.problems import FieldError, Problem, ProblemError, bad_request, document, problem, unavailable

NOBODY = "no customer is known by this name"
# What the provider says of what it was handed, before it came to ask any issuer (https://docs.stripe.com/error-codes).
_OF_FIELDS = {
    "token_already_used": ("token-already-used", "this token was used before; a new wish needs a new one"),
    "resource_missing": ("unknown-token", "the provider knows no such token or payment method"),
    "email_invalid": ("invalid-email", "the provider takes no such e-mail"),
}


# --- What each refusal says --------------------------------------------------------------------------------------


def from_customer(refusal: errors.CustomerRefusal) -> Problem:
    match refusal:
        case errors.InvalidName():
            return bad_request(FieldError(refusal.reason, pointer=f"#/{refusal.kind}")).problem
        case errors.NameTaken() | errors.AlreadyNamed():
            said = "the e-mail is that of another user's customer"
            return problem(409, "name-taken", said, FieldError(said, pointer="#/email"))
        case errors.TooManyNames():
            said = f"a customer is known by at most {refusal.limit} e-mails"
            return problem(409, "too-many-names", said, FieldError(said, pointer="#/email"))
        case errors.CustomerNotReady():
            said = f"this is not possible while the customer is {refusal.status}"
            return problem(409, "customer-not-ready", said)
        case errors.CustomerBusy():
            said = f"an operation ({refusal.kind}) of this customer is still under way; ask again when it has ended"
            return problem(409, "operation-in-flight", said)
        case errors.TooManyUpdates():
            return problem(409, "too-many-operations", f"a customer takes at most {refusal.limit} operations")
        case _:
            return problem(409, "refused", "the customer does not allow this")


def from_subscription(refusal: errors.SubscriptionRefusal) -> Problem:
    match refusal:
        case errors.InvalidTerms():
            said = f"must be from {refusal.least} to {refusal.most}"
            return bad_request(FieldError(said, pointer=f"#/{refusal.field}")).problem
        case errors.UnknownProduct():
            field, said = (
                ("price", "no such price is sold") if refusal.price else ("product", "no such product is sold")
            )
            return problem(404, f"unknown-{field}", said, FieldError(said, pointer=f"#/{field}"))
        case errors.PriceOfAnotherProduct():
            said = "the price is another product's"
            return problem(422, "price-of-another-product", said, FieldError(said, pointer="#/price"))
        case errors.PriceNeeded():
            said = f"the product has no default price: name one of {', '.join(refusal.prices) or 'those it will have'}"
            return problem(422, "price-needed", said, FieldError(said, pointer="#/price"))
        case errors.AlreadySubscribed():
            said = f"the customer has a subscription to this product already, which is {refusal.status}"
            return problem(409, "already-subscribed", said, FieldError(said, pointer="#/product"))
        case _:
            return _not_in_this_state(refusal)


def _not_in_this_state(refusal: errors.SubscriptionRefusal) -> Problem:
    match refusal:
        case errors.SubscriptionNotReady():
            said = f"{refusal.command.lower()} is not possible while the subscription is {refusal.status}"
            return problem(409, "illegal-transition", said)
        case errors.SubscriptionOver():
            said = f"{refusal.command.lower()} is not possible any more: it ended at {refusal.ended_at:%FT%TZ}"
            return problem(409, "subscription-over", said, FieldError(said, parameter="subscription"))
        case errors.SubscriptionBusy():
            said = f"a {refusal.kind} of this subscription is still under way; ask again when it has ended"
            return problem(409, "operation-in-flight", said)
        case errors.TooManyChanges():
            return problem(409, "too-many-operations", f"more than {refusal.limit} of these are not kept for anybody")
        case _:
            return problem(409, "refused", "the subscription does not allow this")


def unknown_customer(named: FieldError) -> ProblemError:
    return ProblemError(problem(404, "customer-not-found", NOBODY, named))


# --- What the provider has refused -------------------------------------------------------------------------------


def failure_of(done: Done[Any]) -> Failure | None:
    """Why this very operation was refused, whatever has happened since."""
    told = [envelope.fact for envelope in done.story.envelopes if envelope.operation == done.operation]
    return next((failure for fact in told if (failure := getattr(fact, "failure", None)) is not None), None)


def declined(
    failure: Failure | None,
    where: Callable[[str], FieldError] | None = None,
    *,
    customer: CustomerView | None = None,
    subscription: SubscriptionView | None = None,
) -> Problem:
    """402, or 422 for what nobody can be asked about. `where`: what was handed in for it stood there."""
    if failure is not None and where is not None and failure.code in _OF_FIELDS:
        name, said = _OF_FIELDS[failure.code]
        told = problem(422, name, said, where(said))
    else:
        said = f"{failure.message} ({failure.decline_code or failure.code})" if failure else "the provider said no"
        told = problem(402, "declined", said)
    return replace(told, customer=customer, subscription=subscription)


# --- Handlers ----------------------------------------------------------------------------------------------------


def _customer_refusal(_: Request[Any, Any, Any], refusal: errors.CustomerRefusal) -> Response[Problem]:
    return document(from_customer(refusal))


def _subscription_refusal(_: Request[Any, Any, Any], refusal: errors.SubscriptionRefusal) -> Response[Problem]:
    return document(from_subscription(refusal))


def _no_customer(_: Request[Any, Any, Any], __: CustomerNotFound) -> Response[Problem]:
    return document(problem(404, "customer-not-found", NOBODY))


def _no_subscription(_: Request[Any, Any, Any], __: SubscriptionNotFound) -> Response[Problem]:
    said = "there is no subscription with this id"
    return document(problem(404, "subscription-not-found", said, FieldError(said, parameter="subscription")))


def _no_catalog(_: Request[Any, Any, Any], __: CatalogUnavailable) -> Response[Problem]:
    said = "what is sold could not be learned from the payment provider; the same request may be sent again"
    ended = unavailable("provider-unavailable", said)
    return document(ended.problem, ended.headers)


BILLING_HANDLERS: dict[type[Exception] | int, Any] = {
    errors.CustomerRefusal: _customer_refusal,
    errors.SubscriptionRefusal: _subscription_refusal,
    CustomerNotFound: _no_customer,
    SubscriptionNotFound: _no_subscription,
    CatalogUnavailable: _no_catalog,
}
