"""`/asyncapi.json`: what goes to Kafka, as a document, beside what goes over HTTP (`/schema`)."""

from typing import Any

from litestar import get
from litestar.openapi import ResponseSpec

from interface.kafka.asyncapi import document
from interface.services import Services

_ANSWER = ResponseSpec(
    dict[str, Any], generate_examples=False, description="An AsyncAPI 3 document of all messages that are published"
)


@get("/asyncapi.json", tags=["events"], responses={200: _ANSWER}, security=[{}], sync_to_thread=False)
def asyncapi(services: Services) -> dict[str, Any]:
    """The messages on Kafka of this deployment: their topics, keys, headers and bodies, and what may change in them."""
    settings = services.settings
    return document(settings.kafka_topic, settings.cinema_topic, settings.ticketing_topic)
