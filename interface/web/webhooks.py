"""`POST /webhooks/stripe`: what Stripe tells us, kept before it is answered. Its signature is its token."""

from typing import Any

from litestar import Request, Response, Router, post
from litestar.datastructures import State
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from msgspec import Struct

from application.stripe_events import BadEvent, BadSignature, verified
from interface.services import Services
from interface.web import documented
from interface.web.problems import FieldError, ProblemError, bad_request, problem

# Stripe's events are a few kilobytes; one with a long list in it is still far below this.
MAX_EVENT_BYTES = 512 * 1024
SIGNATURE = "Stripe-Signature"


class Received(Struct, frozen=True):
    received: bool = True


class Webhook(Operation):
    """What the body is: the framework sees none, because the handler takes it as bytes."""

    def __post_init__(self) -> None:
        event = OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT, description="An event, as Stripe signed it."))
        self.request_body = RequestBody({"application/json": event}, required=True)


ANSWERS = {**documented.WEBHOOK, 200: documented.answer(Received, "kept", {"received": True})}


@post(
    "/stripe",
    responses=ANSWERS,
    status_code=200,
    security=[{}],
    operation_class=Webhook,
    request_max_body_size=MAX_EVENT_BYTES,
)
async def stripe(request: Request[Any, Any, State], services: Services) -> Response[Received]:
    """Keep an event of Stripe's, once however often it comes, and handle it soon.

    400 without a valid signature over the very bytes of the body, made within 300 seconds of now.
    """
    return await keep(request, services)


async def keep(request: Request[Any, Any, State], services: Services, only: str | None = None) -> Response[Received]:
    """Keep what Stripe signed in the one inbox; with `only`, nothing but events of that type.

    Raises ProblemError (400) or StoreUnavailable.
    """
    body = await request.body()
    header = request.headers.get(SIGNATURE, "")
    try:
        event = verified(body, header, services.settings.stripe_webhook_secrets, services.clock())
    except BadSignature as error:
        services.metrics.webhooks.labels("refused").inc()
        said = str(error)
        raise ProblemError(problem(400, "bad-signature", said, FieldError(said, header=SIGNATURE))) from None
    except BadEvent as error:
        raise bad_request(FieldError(str(error), pointer="#")) from None
    if only is not None and event.type != only:
        raise bad_request(FieldError(f"only {only} is taken here", pointer="#/type"))
    await services.intake.keep(event)
    services.metrics.webhooks.labels("kept" if event.handled else "ignored").inc()
    return Response(Received())


router = Router("/webhooks", route_handlers=[stripe], tags=["webhooks"])
