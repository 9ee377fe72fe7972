"""Cards that callers hand over by number: in Stripe's test mode its public test numbers become its test methods.

A number is looked up and let go; nothing keeps it (https://docs.stripe.com/testing).
"""

# The digits are public, and the only ones that this project knows.
TEST_METHODS = {
    "4242424242424242": "pm_card_visa",
    "4111111111111111": "pm_card_visa",
    "4000056655665556": "pm_card_visa_debit",
    "5555555555554444": "pm_card_mastercard",
    "378282246310005": "pm_card_amex",
    "6011111111111117": "pm_card_discover",
    "4000000000000002": "pm_card_chargeDeclined",
    "4000000000009995": "pm_card_chargeDeclinedInsufficientFunds",
    "4000000000009987": "pm_card_chargeDeclinedLostCard",
    "4000000000009979": "pm_card_chargeDeclinedStolenCard",
    "4000000000000069": "pm_card_chargeDeclinedExpiredCard",
    "4000000000000127": "pm_card_chargeDeclinedIncorrectCvc",
    "4000000000000119": "pm_card_chargeDeclinedProcessingError",
}


def test_method(number: str) -> str | None:
    """Stripe's test payment method for one of its test numbers, typed as people type them."""
    return TEST_METHODS.get(number.replace(" ", "").replace("-", ""))


def is_test_key(api_key: str) -> bool:
    return api_key.startswith(("sk_test_", "rk_test_"))
