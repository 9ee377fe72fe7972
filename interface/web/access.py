"""Who may call: a bearer token on every route of `/v1`, and the scope that the route needs."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers.base import BaseRouteHandler

from interface.tokens import Caller, TokenRefused, Tokens
from interface.web.problems import ProblemError, problem

Connection = ASGIConnection[Any, Any, Any, Any]


def needs(scope: str) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """A guard: the caller's token is valid and carries the scope. Raises 401 with a challenge, or 403 naming it."""

    # Async, because the framework would send a plain function to a thread for every request.
    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        await authenticated(connection, handler)
        caller = caller_of(connection)
        if scope not in caller.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            refused = problem(403, "missing-scope", f"this needs the scope {scope}")
            raise ProblemError(refused, {"WWW-Authenticate": challenge})

    return guard


async def authenticated(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard: the caller's token is valid. Raises 401 with a challenge."""
    scheme, _space, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthorizedException("a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
    tokens: Tokens = connection.app.state.tokens
    try:
        connection.state.caller = await tokens.check_fresh(token.strip())
    except TokenRefused as refused:
        challenge = f'Bearer error="invalid_token", error_description="{refused}"'
        raise NotAuthorizedException(str(refused), headers={"WWW-Authenticate": challenge}) from None


def caller_of(connection: Connection) -> Caller:
    """The caller that the guard let in."""
    caller: Caller = connection.state.caller
    return caller
