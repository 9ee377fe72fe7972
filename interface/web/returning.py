"""Where the cardholder comes back to after authentication: a page that says thank you, and learns the outcome.

It needs no token: it moves nothing, tells nothing about the payment, and its address cannot be guessed.
"""

from uuid import UUID

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State

from application.payment_stream import Context
from application.payments import PaymentNotFound
from interface.services import Services
from interface.web.waiting import correlation_of

ACTOR = "cardholder"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Thank you</title>
<style>body {{ font: 1.2rem/1.5 system-ui; max-width: 30rem; margin: 20vh auto; padding: 0 1rem }}</style>
<p>{said}</p>
"""
SAID = {
    "done": "Thank you. The payment went through; you can close this window.",
    "failed": "The payment did not go through. Nothing was taken; you can close this window and try again.",
    "open": "Thank you. We are still waiting for your bank; you can close this window.",
    "waiting": "The payment still waits for your confirmation.",
}


@get("/return/{payment:uuid}", include_in_schema=False, media_type=MediaType.HTML)
async def returned(request: Request[None, None, State], services: Services, payment: UUID) -> Response[str]:
    """Learn from the provider what became of the authentication, and tell the cardholder in a sentence."""
    try:
        answer = await services.payments.returned(payment, Context(ACTOR, correlation_of(request)))
    except PaymentNotFound:
        return Response(PAGE.format(said="There is no such payment."), status_code=404, headers=HEADERS)
    return Response(PAGE.format(said=SAID[answer.outcome]), headers=HEADERS)
