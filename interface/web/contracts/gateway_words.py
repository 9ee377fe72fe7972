"""The words of the payments gateway's contract: its bodies, its answers, and what the OpenAPI document says of them."""

from datetime import UTC, date, datetime
from typing import Annotated, Self
from uuid import UUID

from msgspec import Meta, Struct

from domain import subscription
from domain.customer import MAX_NAME_LENGTH
from domain.payment_facts import Card
from domain.subscription import PaymentStatus
from domain.subscription_paid import paid_until
from interface.web.contracts.documented import Body, problems, told
from interface.web.customers import Token
from interface.web.problems import MEDIA_TYPE
from interface.web.requests import NO_CONTROLS, Reference
from projections.customer_rows import SubscriptionAt
from projections.customer_standing import CustomerStatus

# A user's id or an e-mail.
User = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH, pattern=NO_CONTROLS)]


class UserCardBody(Struct, frozen=True):
    """A Stripe token or payment method."""

    token: Token


class UserSubscriptionBody(Struct, frozen=True):
    """`product` by its id or name; without `price` its default one, or the only one it has."""

    user: User
    product: Reference
    price: Reference | None = None


class UserChangeBody(Struct, frozen=True):
    """Another product, or another price of the same."""

    product: Reference | None = None
    price: Reference | None = None


# --- Answers -----------------------------------------------------------------------------------------------------


class UserSubscription(Struct, frozen=True, kw_only=True):
    """`payment_expire_date`: the day on which what was paid for ends. `ends_at`: when it ended, or will."""

    id: UUID
    user_id: str | None
    product: str
    price: str
    quantity: int
    status: subscription.Status
    payment_status: PaymentStatus
    payment_expire_date: date | None
    ends_at: datetime | None

    @classmethod
    def of(cls, at: SubscriptionAt, user: str | None) -> Self:
        state = at.state
        terms = state.terms.value if state.terms else None
        return cls(
            id=at.id,
            user_id=user,
            product=terms.product if terms else state.product,
            price=terms.price if terms else state.price,
            quantity=terms.quantity if terms else state.quantity,
            status=state.status,
            payment_status=state.payment_status,
            payment_expire_date=day(paid_until(state)),
            ends_at=state.ends_at,
        )


class UserStatus(Struct, frozen=True, kw_only=True):
    """How a user stands. `user_id` is null for somebody who is known by an e-mail alone.

    `payment_status` is `refunded` when the latest payment went back in full; `payment_expire_date` is then that of what
    was paid for before, null where nothing was. Of a part that went back nothing follows.
    """

    user_id: str | None
    payment_status: PaymentStatus
    payment_expire_date: date | None
    card: Card | None
    subscriptions: list[UserSubscription]

    @classmethod
    def of(cls, found: CustomerStatus) -> Self:
        user = found.customer.state.user
        return cls(
            user_id=user,
            payment_status=found.payment_status,
            payment_expire_date=day(found.payment_expire_date),
            card=found.card,
            subscriptions=[UserSubscription.of(at, user) for at in found.subscriptions],
        )


def day(moment: datetime | None) -> date | None:
    """The contract tells of days (31 January → 28 February) and says date where others say timestamp: in UTC."""
    return moment.astimezone(UTC).date() if moment else None


# --- The document ------------------------------------------------------------------------------------------------

_SUBSCRIBED = {
    "id": "5d0e6f0a-1f0c-5b57-8f5f-6a1f7a1f2b10",
    "user_id": "user_42",
    "product": "prod_Qabc",
    "price": "price_1Qabc",
    "quantity": 1,
    "status": "active",
    "payment_status": "paid",
    "payment_expire_date": "2026-02-28",
    "ends_at": None,
}
_STANDING = {
    "user_id": "user_42",
    "payment_status": "paid",
    "payment_expire_date": "2026-02-28",
    "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034},
    "subscriptions": [_SUBSCRIBED],
}
_MISSING_SAID = "there is no such user, subscription, product or price"
_MISSING = Body(
    "Problem",
    {"type": "urn:payledger:problem:customer-not-found", "title": "Not found", "status": 404, "detail": _MISSING_SAID},
    _MISSING_SAID,
    MEDIA_TYPE,
)
_READ = problems(400, 401, 403, 429, 503) | {404: _MISSING}
_COMMAND = _READ | problems(402, 409, 413, 422)
_WANTED = {"user": "user_42", "product": "Pro"}

STATUS = told(_READ | {200: Body(UserStatus, _STANDING, "how the user stands")})
CARD = told(
    _COMMAND
    | {
        200: Body(UserStatus, _STANDING, "how the user stands, with the new card"),
        202: Body(UserStatus, _STANDING | {"card": None}, "the outcome is not known yet; ask again"),
    },
    Body(UserCardBody, {"token": "tok_visa"}),
)
_PENDING = _SUBSCRIBED | {"status": "pending", "payment_status": "pending", "payment_expire_date": None}
_STANDS = {
    200: Body(UserSubscription, _SUBSCRIBED, "the subscription"),
    202: Body(UserSubscription, _PENDING, "the outcome is not known yet; ask for the user's status"),
}
SUBSCRIBE = told(
    _COMMAND | _STANDS | {201: Body(UserSubscription, _SUBSCRIBED, "begun")}, Body(UserSubscriptionBody, _WANTED)
)
CHANGE = told(_COMMAND | _STANDS, Body(UserChangeBody, {"product": "Pro"}))
CANCEL = told(_COMMAND | _STANDS)
