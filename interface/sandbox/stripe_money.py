"""What Stripe accepts as an amount, and what it keeps as a fee. Integer minor units throughout.

Source: Stripe's pages on currencies and on minimum and maximum charges.
"""

from interface.sandbox.stripe_errors import StripeError, refused

MAX_AMOUNT_MINOR = 99_999_999

ZERO_DECIMAL = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf")
)
THREE_DECIMAL = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
WHOLE_HUNDREDS = frozenset({"isk", "ugx"})  # without a minor unit, yet sent with two digits, always 00

MINIMUM_MINOR = {
    "usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250,
    "eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300,
    "nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000,
}  # fmt: skip

_WITH_TWO_DIGITS = """
usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf chf cny cop crc cve
czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl hrk htg huf idr ils inr isk jmd kes kgs khr kyd kzt
lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mro mru mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr
pln qar ron rsd rub sar sbd scr sek sgd shp sle sos srd std szl thb tjs top try ttd twd tzs uah ugx uyu uzs wst xcd yer
zar zmw
"""
CURRENCIES = frozenset(_WITH_TWO_DIGITS.split()) | ZERO_DECIMAL | THREE_DECIMAL

_FEE_PER_MILLE = 29
_FEE_FIXED_MINOR = 30


def check_currency(currency: str) -> str:
    """The currency in lower case; refuses one that Stripe does not know."""
    lowered = currency.lower()
    if lowered not in CURRENCIES:
        raise refused(
            f"Invalid currency: {lowered[:20]}. Stripe currently supports these currencies:"
            f" {', '.join(sorted(CURRENCIES))}",
            param="currency",
        )
    return lowered


def check_amount(amount: int, currency: str, param: str = "amount") -> int:
    """An amount to charge: at least the currency's minimum, at most eight digits, digits the currency has."""
    check_positive(amount, param)
    if amount > MAX_AMOUNT_MINOR:
        raise refused(
            f"Amount must be no more than {display(MAX_AMOUNT_MINOR, currency)}", code="amount_too_large", param=param
        )
    minimum = MINIMUM_MINOR.get(currency, 1)
    if amount < minimum:
        raise refused(f"Amount must be at least {display(minimum, currency)}", code="amount_too_small", param=param)
    check_digits(amount, currency, param)
    return amount


def check_positive(amount: int, param: str) -> None:
    if amount < 1:
        code = "parameter_invalid_integer"
        raise refused("This value must be greater than or equal to 1.", code=code, param=param)


def check_digits(amount: int, currency: str, param: str) -> None:
    """Three-decimal currencies end in 0; ISK and UGX, which have no minor unit, end in 00."""
    if step_error := _step_error(amount, currency, param):
        raise step_error


def _step_error(amount: int, currency: str, param: str) -> StripeError | None:
    step = 10 if currency in THREE_DECIMAL else 100 if currency in WHOLE_HUNDREDS else 1
    if amount % step == 0:
        return None
    message = f"Invalid amount: {amount} {currency} must be divisible by {step}."
    return refused(message, code="invalid_charge_amount", param=param)


def fee_of(amount: int) -> int:
    """2.9 % and 30, rounded half up, never more than the amount: plausible, not any account's price list."""
    return min(amount, (amount * _FEE_PER_MILLE + 500) // 1000 + _FEE_FIXED_MINOR)


def display(amount: int, currency: str) -> str:
    """For sentences in errors: `$10.00 usd`-like text without a float."""
    digits = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    whole, rest = divmod(amount, 10**digits)
    text = f"{whole:,}" + (f".{rest:0{digits}}" if digits else "")
    sign = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency.upper()}"
