"""`/v1/tokens`: taking a token back before it expires."""

from datetime import datetime
from typing import Annotated, Any

from litestar import Request, Response, Router, post
from litestar.datastructures import State
from litestar.openapi.spec import Example
from litestar.params import Body, PathParameter
from msgspec import Meta, Struct

from interface.invalidation import MAX_TOKEN_ID
from interface.services import Services
from interface.tokens import Caller
from interface.web import documented
from interface.web.access import authenticated, caller_of
from interface.web.card_numbers import holds_card_number
from interface.web.problems import FieldError, ProblemError, bad_request, problem
from interface.web.reading import check_request

TokenId = Annotated[
    str, PathParameter(min_length=1, max_length=MAX_TOKEN_ID, description="The token's `jti`, never the token.")
]
ADMIN = "admin"


class InvalidationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`expires_at`: when the token would have expired by itself, after which it need not be remembered."""

    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class Invalidation(Struct, frozen=True):
    token_id: str
    invalidated: bool


_INVALIDATED = {"token_id": "5f0c1d2e", "invalidated": True}
_RESPONSES = {**documented.INVALIDATION, 200: documented.answer(Invalidation, "refused from now on", _INVALIDATED)}
_EXAMPLES = [Example(summary="remember it until it has expired", value={"expires_at": "2026-12-01T00:00:00Z"})]


@post("/{token_id:str}/invalidation", responses=_RESPONSES, guards=[authenticated], status_code=200)
async def invalidate(
    request: Request[Caller, Any, State],
    services: Services,
    token_id: TokenId,
    data: Annotated[InvalidationBody, Body(examples=_EXAMPLES)],
) -> Response[Invalidation]:
    """Refuse a token from now on: at once here, within a second everywhere. One's own, or with `admin` anybody's."""
    caller = caller_of(request)
    if token_id != caller.token_id and ADMIN not in caller.scopes:
        challenge = f'Bearer error="insufficient_scope", scope="{ADMIN}"'
        refused = problem(403, "missing-scope", f"somebody else's token needs the scope {ADMIN}")
        raise ProblemError(refused, {"WWW-Authenticate": challenge})
    if token_id != caller.token_id and holds_card_number(token_id):
        raise bad_request(FieldError("a card number must not be sent here", parameter="token_id"))
    own = caller.expires_at if token_id == caller.token_id else None
    await services.invalidated.invalidate(token_id, own or data.expires_at)
    return Response(Invalidation(token_id, invalidated=True))


router = Router("/v1/tokens", route_handlers=[invalidate], before_request=check_request, tags=["tokens"])
