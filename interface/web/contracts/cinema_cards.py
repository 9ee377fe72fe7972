"""What the cinema is paid with: Stripe's payment method for the card that was handed over, or why there is none."""

from typing import Annotated

from msgspec import Meta, Struct

from application.gateway import Unknown
from application.stripe_cards import is_test_key, test_method
from application.stripe_methods import NotAllowed, RawCard
from domain.payment_facts import Failure
from interface.services import Services
from interface.web.contracts.cinema_words import Method

# What stands in the history where there was nothing to pay with.
NO_METHOD = "none"
NO_NUMBERS = "cards by number are not taken by this deployment"
ONLY_TEST_NUMBERS = "only Stripe's test card numbers are taken by this deployment"
# Refusals of our own, made before the provider is asked.
NO_PAYPAL = Failure("method_not_offered", None, "PayPal is not offered by this deployment", retryable=False)
NO_CARD = Failure("missing_card", None, "card_details are needed for this payment method", retryable=False)
EXPIRED = Failure("expired_card", None, "the card has expired", retryable=False)
NOT_TAKEN = Failure("numbers_not_taken", None, NO_NUMBERS, retryable=False)
NOT_A_TEST = Failure("invalid_number", None, ONLY_TEST_NUMBERS, retryable=False)


class CardDetails(Struct, frozen=True):
    card_number: Annotated[str, Meta(max_length=30)]
    expiry_month: Annotated[int, Meta(ge=1, le=12)]
    expiry_year: Annotated[int, Meta(ge=0, le=9999)]
    cvv: Annotated[str, Meta(max_length=4)]
    cardholder_name: Annotated[str, Meta(max_length=200)]

    def __repr__(self) -> str:
        return "CardDetails(…)"


async def method_for(method: Method, card: CardDetails | None, services: Services) -> str | Failure | Unknown:
    """Raises nothing; Unknown when the provider cannot be asked for one now."""
    if method == "paypal":
        return NO_PAYPAL
    if card is None:
        return NO_CARD
    now = services.clock()
    year = card.expiry_year if card.expiry_year > 99 else 2000 + card.expiry_year
    if (year, card.expiry_month) < (now.year, now.month):
        return EXPIRED
    if not takes_cards(services):
        return NOT_TAKEN
    test = test_method(card.card_number) if is_test_key(services.settings.stripe_api_key) else None
    if test is not None:
        return test
    if not services.settings.stripe_raw_cards:
        return NOT_A_TEST
    if services.breaker.unavailable_s() is not None:
        return Unknown("away")
    made = await services.gateway.method_of(RawCard(card.card_number, card.expiry_month, year, card.cvv))
    return NOT_TAKEN if isinstance(made, NotAllowed) else made


def takes_cards(services: Services) -> bool:
    """Test numbers are turned into Stripe's test methods; others go to Stripe, where that was asked for."""
    return services.settings.stripe_raw_cards or is_test_key(services.settings.stripe_api_key)
