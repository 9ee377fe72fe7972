"""The chain of hashes shows whatever was done to the log behind its back."""

from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result

from application.event_store import Ledger
from domain.envelope import NO_PREVIOUS
from interface.cli import main
from tests.given import AUTHORIZED, CAPTURED
from tests.test_event_store import envelopes

TAMPERING = {
    "a fact was changed": "UPDATE ledger_events SET state = replace(convert_from(state, 'UTF8'), '1000', '9000')::bytea"
    " WHERE originator_id = %(stream)s AND originator_version = 1",
    "a fact was renamed": "UPDATE ledger_events SET topic = 'Failed'"
    " WHERE originator_id = %(stream)s AND originator_version = 2",
    "a fact was removed": "DELETE FROM ledger_events WHERE originator_id = %(stream)s AND originator_version = 2",
    "the first fact was removed": "DELETE FROM ledger_events"
    " WHERE originator_id = %(stream)s AND originator_version = 1",
    "a fact was put in": "INSERT INTO ledger_events (originator_id, originator_version, topic, state)"
    " SELECT originator_id, 99, topic, state FROM ledger_events"
    " WHERE originator_id = %(stream)s AND originator_version = 2",
    "facts changed places": "UPDATE ledger_events"
    " SET originator_version = CASE originator_version WHEN 2 THEN 30 ELSE 2 END"
    " WHERE originator_id = %(stream)s AND originator_version IN (2, 3)",
    "a fact is no longer one": "UPDATE ledger_events SET state = 'x'"
    " WHERE originator_id = %(stream)s AND originator_version = 3",
}


def verify(url: str) -> Result:
    return CliRunner().invoke(main, ["audit", "verify", "--database-url", url])


@pytest.fixture
def victim(ledger: Ledger) -> UUID:
    """A stream among others, told in several appends."""
    streams = [uuid4() for _ in range(3)]
    for stream in streams:
        tail = NO_PREVIOUS
        for version, fact in enumerate((*AUTHORIZED, *CAPTURED[len(AUTHORIZED) :])):
            tail = ledger.append(envelopes(stream, fact, after=version), tail).tail
    return streams[1]


@pytest.mark.usefixtures("victim")
def test_an_untouched_log_is_verified(database_url: str) -> None:
    result = verify(database_url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{3 * len(CAPTURED)} facts in 3 streams verified, 0 broken" in result.stdout


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found_and_named(victim: UUID, database_url: str, what: str) -> None:
    with psycopg.connect(database_url) as conn:
        assert conn.execute(TAMPERING[what].encode(), {"stream": victim}).rowcount, what
    result = verify(database_url)
    assert result.exit_code == 1
    assert f"broken: stream {victim}" in result.stderr
    assert result.stderr.count("broken: stream") == result.stderr.count(str(victim)), "only the one that was touched"


@pytest.mark.usefixtures("ledger")
def test_an_empty_log_has_nothing_broken(database_url: str) -> None:
    assert verify(database_url).exit_code == 0
