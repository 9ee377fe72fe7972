"""`payledger publish`: facts to Kafka as they come, or history once more to a topic of its own."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import psycopg
from kafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from interface import publishing, settings
from interface.bootstrap import FOLDING, collect_seldom
from interface.kafka.publisher import AnotherLog
from interface.kafka.replay import Refused, replay
from interface.sandbox.alive import watch_parent
from interface.settings import TOPIC, Settings, SettingsInvalid


def _topic(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not TOPIC.fullmatch(value):
        raise click.BadParameter("a topic's name has letters, digits, dots, underscores and hyphens")
    return value


@click.command()
@click.option("--from", "since", type=click.IntRange(min=1), metavar="POSITION", help="The first fact to replay.")
@click.option("--topic", callback=_topic, metavar="NEW", help="Replay into this topic, up to what is in the log now.")
def publish(since: int | None, topic: str | None) -> None:
    """Publish facts to Kafka; with --from and --topic: replay history into another topic, and end.

    A replay that was stopped goes on from there when it is run again.
    """
    if (since is None) != (topic is None):
        raise click.UsageError("--from and --topic belong together.")
    if since is not None and topic is not None:
        _replay(_settings(), since, topic)
        return
    watch_parent()
    publishing.publish(_settings())


def _replay(settings: Settings, since: int, topic: str) -> None:
    collect_seldom(FOLDING)
    try:
        with _progress(topic) as told:
            outcome = replay(settings, since, topic, told)
    except (Refused, AnotherLog) as refused:
        raise click.ClickException(str(refused)) from None
    except (KafkaError, TimeoutError, psycopg.Error) as error:
        raise click.ClickException(f"{type(error).__name__}; run it again to go on") from None
    click.echo(f"{topic} holds the facts from position {outcome.since} to {outcome.position}")
    for stream, position in outcome.aside.items():
        click.echo(f"but for the stream {stream} from position {position} on, which cannot be read")
    sys.exit(1 if outcome.aside else 0)


@contextmanager
def _progress(topic: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn(f"replaying to {topic}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None)
        yield lambda position, end: progress.update(task, completed=position, total=end)


def _settings() -> Settings:
    try:
        return settings.read(os.environ)
    except SettingsInvalid as invalid:
        raise click.ClickException(str(invalid)) from None
