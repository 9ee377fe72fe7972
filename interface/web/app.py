"""The Litestar application."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.middleware import AbstractMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, ScalarRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from interface.log_watch import before_stopping
from interface.metrics import metered
from interface.services import Services
from interface.sessions import COOKIE
from interface.tracing import traced
from interface.web import (
    asyncapi,
    customers,
    documented,
    events,
    health,
    metrics,
    orders,
    payments,
    returning,
    subscriptions,
    tokens,
    webhooks,
)
from interface.web.billing_problems import BILLING_HANDLERS
from interface.web.contracts import airline, cinema, gateway, ticketing, ticketing_words
from interface.web.contracts import documented as contracts
from interface.web.contracts.cinema_envelope import in_its_words
from interface.web.contracts.preflight import preflights
from interface.web.limits import bounded, limited
from interface.web.problems import HANDLERS
from interface.web.reading import MAX_BODY_BYTES
from interface.web.security_headers import READER_VERSION, guarded

# What the rate limits tell with every answer.
TOLD = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

DESCRIPTION = """An event-sourced payment ledger. Amounts are whole minor units; times are RFC 3339 with an offset.

A command carries an `Idempotency-Key`, unless its own words name it: sent again it is answered again, never done
again.
Every answer to a command carries `Ledger-Position`; a query with `?after=` that position includes it."""


def create_app(services: Services) -> Litestar:
    """The application around services that it opens at start-up and closes at shutdown."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None, None]:
        app.state.tokens, app.state.services = services.tokens, services
        await services.open()
        try:
            with before_stopping(services.log.leave):
                yield
        finally:
            await services.close()

    gauges = metrics.Gauges(services)
    app = Litestar(
        route_handlers=[
            health.health,
            health.ready,
            metrics.metrics,
            returning.returned,
            payments.router,
            orders.router,
            customers.router,
            subscriptions.router,
            events.router,
            asyncapi.asyncapi,
            tokens.router,
            webhooks.router,
            airline.router,
            cinema.router,
            gateway.router,
            ticketing.router,
        ],
        dependencies={
            "services": Provide(lambda: services, sync_to_thread=False, use_cache=True),
            "gauges": Provide(lambda: gauges, sync_to_thread=False, use_cache=True),
        },
        exception_handlers=HANDLERS | BILLING_HANDLERS,
        lifespan=[lifespan],
        openapi_config=_openapi(),
        cors_config=_cors(services.settings.cors_origins),
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )
    documented.complete(app.openapi_schema)
    contracts.complete(app.openapi_schema)
    _behind_limits(app, services)
    app.asgi_handler = preflights(app.asgi_handler, services.settings.cors_origins)
    app.asgi_handler = guarded(app.asgi_handler)
    app.asgi_handler = in_its_words(app.asgi_handler, services.clock)
    app.asgi_handler = ticketing_words.in_its_words(app.asgi_handler)
    # Around everything, so that what no route answers is counted, too.
    app.asgi_handler = metered(app.asgi_handler, services.metrics)
    if services.settings.traces_endpoint:
        app.asgi_handler = traced(app.asgi_handler)
    return app


def _behind_limits(app: Litestar, services: Services) -> None:
    """Limits around every route, and inside CORS where there is any, so that a page may read what it is refused for."""
    cors = app.asgi_handler if isinstance(app.asgi_handler, AbstractMiddleware) else None
    inner = cors.app if cors else app.asgi_handler
    inner = limited(inner, services.limits, services.tokens, services.settings.trusted_proxies)
    if cors:
        cors.app = bounded(inner)
    else:
        app.asgi_handler = bounded(inner)


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    """Which pages may call from a browser; none, unless the settings say so."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "X-Api-Key", "X-Correlation-Id"],
        expose_headers=["ETag", "Ledger-Position", "Location", "Retry-After", "Idempotent-Replayed", *TOLD],
        max_age=86_400,
    )


def _openapi() -> OpenAPIConfig:
    bearer = SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
    session = SecurityScheme(type="apiKey", name=COOKIE, security_scheme_in="cookie")
    return OpenAPIConfig(
        title="payledger",
        version=version("payledger"),
        description=DESCRIPTION,
        path="/schema",
        # One page to read it on, of one version: no more is let in by its Content-Security-Policy.
        render_plugins=[ScalarRenderPlugin(version=READER_VERSION, path="/"), JsonRenderPlugin(), YamlRenderPlugin()],
        use_handler_docstrings=True,
        components=Components(security_schemes={"bearer": bearer, "session": session}),
        security=[{"bearer": []}],
    )
