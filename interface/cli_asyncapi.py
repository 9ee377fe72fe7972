"""`payledger asyncapi`: what goes to Kafka, for those who read it there."""

import click
from msgspec import json

from interface.kafka.asyncapi import document


@click.command()
@click.option("--topic", envvar="KAFKA_TOPIC", default="payments", show_default=True, help="Of facts.")
@click.option("--cinema-topic", envvar="CINEMA_TOPIC", default="movie_app_events", show_default=True)
@click.option("--ticketing-topic", envvar="TICKETING_TOPIC", default="ticketing.payments", show_default=True)
def asyncapi(topic: str, cinema_topic: str, ticketing_topic: str) -> None:
    """Print the AsyncAPI document of all messages that are published."""
    click.echo(json.format(json.encode(document(topic, cinema_topic, ticketing_topic))))
