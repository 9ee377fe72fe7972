"""Payment methods made of what callers hand over: an older token, or a card by its number. Making one moves nothing.

Stripe takes numbers only from accounts that it has allowed to (https://support.stripe.com/questions/enabling-access-to-raw-card-data-apis),
and whoever sends them answers for them under PCI DSS (https://docs.stripe.com/security/guide). A number goes to Stripe
and nowhere else: nothing here keeps it, derives anything from it or puts it in a text.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import stripe
from msgspec import DecodeError, Struct
from stripe.params import PaymentMethodCreateParams

from application.gateway import AuthorizeInstruction, Instruction, Unknown
from application.stripe_answers import Method, read
from application.stripe_errors import despite_kept_error
from domain.payment_facts import Failure

log = logging.getLogger(__name__)

DEADLINE_S = 30
# ISO/IEC 7812-1 allows up to nineteen digits; payment cards have at least twelve. The rest is Stripe's to judge.
_NUMBER = re.compile(r"[0-9]{12,19}")
_CODE = re.compile(r"[0-9]{3,4}")
INVALID_NUMBER = Failure("invalid_number", None, "the card number is not valid", retryable=False)
INVALID_CODE = Failure("invalid_cvc", None, "the card's security code is not valid", retryable=False)

Post = Callable[..., Awaitable[stripe.StripeResponse]]
PostStep = Callable[[str, Mapping[str, object], Instruction, str], Awaitable[stripe.StripeResponse]]


class RawCard(Struct, frozen=True):
    """A card as it was typed. Shown as nothing: it must not be in a log because something else went wrong."""

    number: str
    exp_month: int
    exp_year: int
    code: str

    def __repr__(self) -> str:
        return "RawCard(…)"


class NotAllowed(Struct, frozen=True):
    """Stripe takes no numbers from this account, or not with these credentials."""


async def of_token(instruction: AuthorizeInstruction, post: PostStep) -> str:
    """Of one of Stripe's older card tokens, under the operation's own key; what is none is a method already."""
    if not instruction.payment_method.startswith("tok_"):
        return instruction.payment_method
    params: PaymentMethodCreateParams = {"type": "card", "card": {"token": instruction.payment_method}}
    response = await despite_kept_error(lambda step: post("payment_methods", params, instruction, f":method{step}"))
    return read(response, Method).id


async def of_card(card: RawCard, post: Post) -> str | Failure | NotAllowed | Unknown:
    """Of a card by its number (https://docs.stripe.com/api/payment_methods/create). Raises nothing.

    The SDK sends it under a random key, the same for its own tries and for nothing else.
    """
    number = card.number.replace(" ", "").replace("-", "")
    if not _NUMBER.fullmatch(number):
        return INVALID_NUMBER
    if card.code and not _CODE.fullmatch(card.code):
        return INVALID_CODE
    details: dict[str, object] = {"number": number, "exp_month": card.exp_month, "exp_year": card.exp_year}
    if card.code:
        details["cvc"] = card.code
    try:
        async with asyncio.timeout(DEADLINE_S):
            return read(await post("post", "/v1/payment_methods", type="card", card=details), Method).id
    except stripe.CardError as error:
        return _refused(error)
    except (stripe.RateLimitError, stripe.APIConnectionError, stripe.APIError) as error:
        return Unknown(type(error).__name__)
    except stripe.StripeError as error:
        # Not its text: it tells what was sent.
        log.error("the provider takes no card numbers from us: %s %s", type(error).__name__, error.code)  # noqa: TRY400
        return NotAllowed()
    except (aiohttp.ClientError, TimeoutError, DecodeError) as error:
        return Unknown(type(error).__name__)


def _refused(error: stripe.CardError) -> Failure:
    """Stripe's reason, in its words unless there are digits in them."""
    said = error.user_message or ""
    plain = said if said and not any(letter.isdigit() for letter in said) else "the card was refused"
    details = error.error
    return Failure(error.code or "card_declined", getattr(details, "decline_code", None), plain, retryable=False)
