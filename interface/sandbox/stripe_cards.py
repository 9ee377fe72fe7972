"""Stripe's public test cards as data: what each one is, and how its issuer answers.

Names and numbers are those of Stripe's page on testing. A card has a payment method `pm_card_NAME` and a token
`tok_NAME` for each of its names. A number is looked up once, here; nothing else ever holds it.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

from interface.sandbox.stripe_calendar import month_after
from interface.sandbox.stripe_errors import DeclinedError, Json

Challenge = Literal["never", "optional", "required", "unless_off_session"]


@dataclass(frozen=True, slots=True)
class Decline:
    """An issuer's no. `code` is Stripe's error code, `reason` the decline code, absent for some codes."""

    code: str
    message: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TestCard:
    """A card by its names; `decline` is the answer to a charge (after a challenge, if there is one).

    `disputed`: a captured charge is contested at once, for this reason; as an inquiry first, if that is `inquiry`.
    `returns`: its refunds fail some time after they seemed to have succeeded.
    """

    names: tuple[str, ...]
    brand: str
    last4: str
    funding: str = "credit"
    country: str = "US"
    decline: Decline | None = None
    attachable: bool = True
    challenge: Challenge = "never"
    multicapture: bool = True
    disputed: str | None = None
    returns: bool = False

    @property
    def fingerprint(self) -> str:
        """Equal for equal cards. Derived from the name, never from the number, so nothing can be computed back."""
        return hashlib.sha256(self.names[0].encode()).hexdigest()[:16]


DECLINED = Decline("card_declined", "Your card was declined.", "generic_decline")
INSUFFICIENT = Decline("card_declined", "Your card has insufficient funds.", "insufficient_funds")
LOST = Decline("card_declined", "Your card was declined.", "lost_card")
STOLEN = Decline("card_declined", "Your card was declined.", "stolen_card")
VELOCITY = Decline(
    "card_declined",
    "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
    "card_velocity_exceeded",
)
FRAUDULENT = Decline("card_declined", "Your card was declined.", "fraudulent")
EXPIRED = Decline("expired_card", "Your card has expired.")
INCORRECT_CVC = Decline("incorrect_cvc", "Your card's security code is incorrect.")
PROCESSING = Decline("processing_error", "An error occurred while processing your card. Try again in a little bit.")
INCORRECT_NUMBER = Decline("incorrect_number", "Your card number is incorrect.")
AUTHENTICATION = Decline(
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
    "authentication_required",
)
LIVE_CARD = Decline(
    "card_declined",
    "Your card was declined. Your request was in test mode, but used a non test (live) card. For a list of valid"
    " test cards, visit: https://stripe.com/docs/testing.",
    "test_mode_live_card",
)


def _declined(number: str, decline: Decline, *names: str) -> tuple[str, TestCard]:
    return number, TestCard(names, "visa", number[-4:], decline=decline, attachable=False)


def _card(number: str, brand: str, *names: str, funding: str = "credit") -> tuple[str, TestCard]:
    return number, TestCard(names, brand, number[-4:], funding=funding)


def _disputed(number: str, reason: str, *names: str) -> tuple[str, TestCard]:
    return number, TestCard(names, "visa", number[-4:], disputed=reason)


def _challenged(number: str, challenge: Challenge, *names: str, decline: Decline | None = None) -> tuple[str, TestCard]:
    return number, TestCard(names, "visa", number[-4:], challenge=challenge, decline=decline)


_BY_NUMBER = dict(
    [
        _card("4242424242424242", "visa", "visa", "us"),
        _card("4111111111111111", "visa", "visa_4111"),
        _card("4000056655665556", "visa", "visa_debit", funding="debit"),
        _card("5555555555554444", "mastercard", "mastercard"),
        _card("2223003122003222", "mastercard", "mastercard_2series"),
        _card("5200828282828210", "mastercard", "mastercard_debit", funding="debit"),
        _card("5105105105105100", "mastercard", "mastercard_prepaid", funding="prepaid"),
        _card("378282246310005", "amex", "amex"),
        _card("371449635398431", "amex", "amex_2"),
        _card("6011111111111117", "discover", "discover"),
        _card("6011000990139424", "discover", "discover_2"),
        _card("3056930009020004", "diners", "diners"),
        _card("3566002020360505", "jcb", "jcb"),
        _card("6200000000000005", "unionpay", "unionpay"),
        _card("4000000000000077", "visa", "bypassPending"),
        _declined("4000000000000002", DECLINED, "visa_chargeDeclined", "chargeDeclined"),
        _declined(
            "4000000000009995", INSUFFICIENT, "visa_chargeDeclinedInsufficientFunds", "chargeDeclinedInsufficientFunds"
        ),
        _declined("4000000000009987", LOST, "visa_chargeDeclinedLostCard", "chargeDeclinedLostCard"),
        _declined("4000000000009979", STOLEN, "visa_chargeDeclinedStolenCard", "chargeDeclinedStolenCard"),
        _declined("4000000000000069", EXPIRED, "chargeDeclinedExpiredCard", "visa_chargeDeclinedExpiredCard"),
        _declined("4000000000000127", INCORRECT_CVC, "chargeDeclinedIncorrectCvc", "visa_chargeDeclinedIncorrectCvc"),
        _declined(
            "4000000000000119", PROCESSING, "chargeDeclinedProcessingError", "visa_chargeDeclinedProcessingError"
        ),
        _declined("4000000000006975", VELOCITY, "visa_chargeDeclinedVelocityLimitExceeded"),
        _declined("4100000000000019", FRAUDULENT, "radarBlock", "visa_chargeDeclinedFraudulent"),
        _disputed("4000000000000259", "fraudulent", "createDispute"),
        _disputed("4000000000002685", "product_not_received", "createDisputeProductNotReceived"),
        _disputed("4000000000001976", "inquiry", "createDisputeInquiry"),
        _challenged("4000002500003155", "unless_off_session", "authenticationRequiredOnSetup"),
        _challenged("4000002760003184", "required", "authenticationRequired"),
        _challenged("4000003800000446", "unless_off_session", "authenticationRequiredSetupForOffSession"),
        _challenged(
            "4000008260003178",
            "required",
            "authenticationRequiredChargeDeclinedInsufficientFunds",
            decline=INSUFFICIENT,
        ),
        _challenged("4000000000003220", "required", "threeDSecure2Required"),
        _challenged("4000000000003063", "required", "threeDSecureRequired"),
        _challenged("4000000000003055", "optional", "threeDSecureOptional"),
        (
            "4000000000000341",
            TestCard(("chargeCustomerFail", "visa_chargeCustomerFail"), "visa", "0341", decline=DECLINED),
        ),
        ("4000000000005126", TestCard(("refundFail",), "visa", "5126", returns=True)),
        (
            "4000008400000076",
            TestCard(("credit_disableEnterpriseCardFeatures",), "visa", "0076", multicapture=False),
        ),
    ]
)

_BY_NAME = {name: card for card in _BY_NUMBER.values() for name in card.names}
_BY_FINGERPRINT = {card.fingerprint: card for card in _BY_NUMBER.values()}

MIN_DIGITS = 12
MAX_DIGITS = 19


def card_of_payment_method(payment_method: str) -> TestCard | None:
    """The card behind a static `pm_card_…`."""
    return _BY_NAME.get(payment_method.removeprefix("pm_card_")) if payment_method.startswith("pm_card_") else None


def card_of_token(token: str) -> TestCard | None:
    """The card behind a static `tok_…`."""
    return _BY_NAME.get(token.removeprefix("tok_")) if token.startswith("tok_") else None


def card_of_fingerprint(fingerprint: str) -> TestCard:
    return _BY_FINGERPRINT[fingerprint]


def decline_of(method: Json, now: int) -> Decline | None:
    """The issuer's no to a charge of a payment method: the card's own, or that it has expired."""
    card = method["card"]
    own = card_of_fingerprint(card["fingerprint"]).decline
    return own or (EXPIRED if month_after(card["exp_year"], card["exp_month"]) <= now else None)


def card_of_number(number: str) -> TestCard:
    """The card of one of Stripe's test numbers; any other is refused the way Stripe's test mode does it."""
    digits = number.replace(" ", "").replace("-", "")
    if found := _BY_NUMBER.get(digits):
        return found
    readable = digits.isascii() and digits.isdigit() and MIN_DIGITS <= len(digits) <= MAX_DIGITS
    decline = LIVE_CARD if readable and _luhn(digits) else INCORRECT_NUMBER
    raise DeclinedError(decline.message, code=decline.code, decline_code=decline.reason, param="number")


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0
