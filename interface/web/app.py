"""The Litestar application."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from interface.log_watch import before_stopping
from interface.metrics import metered
from interface.services import Services
from interface.web import documented, events, health, metrics, orders, payments, returning
from interface.web.problems import HANDLERS
from interface.web.reading import MAX_BODY_BYTES

DESCRIPTION = """An event-sourced payment ledger. Amounts are whole minor units; times are RFC 3339 with an offset.

Every command carries an `Idempotency-Key`: sent again with the same body it is answered again, never done again.
Every answer to a command carries `Ledger-Position`; a query with `?after=` that position includes it."""


def create_app(services: Services) -> Litestar:
    """The application around services that it opens at start-up and closes at shutdown."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None, None]:
        app.state.tokens = services.tokens
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
            events.router,
        ],
        dependencies={
            "services": Provide(lambda: services, sync_to_thread=False, use_cache=True),
            "gauges": Provide(lambda: gauges, sync_to_thread=False, use_cache=True),
        },
        exception_handlers=HANDLERS,
        lifespan=[lifespan],
        openapi_config=_openapi(),
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )
    documented.complete(app.openapi_schema)
    # Around everything, so that what no route answers is counted, too.
    app.asgi_handler = metered(app.asgi_handler, services.metrics)
    return app


def _openapi() -> OpenAPIConfig:
    bearer = SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
    return OpenAPIConfig(
        title="payledger",
        version=version("payledger"),
        description=DESCRIPTION,
        path="/schema",
        use_handler_docstrings=True,
        components=Components(security_schemes={"bearer": bearer}),
        security=[{"bearer": []}],
    )
