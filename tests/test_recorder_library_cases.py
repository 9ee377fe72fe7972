"""The `eventsourcing` library's own test cases for recorders, run on ours.

Left out, with the reason:

- `optional_test_insert_subscribe`: it waits for the NOTIFY that the library's recorder sends with every append; ours
  sends none, because it would serialise the commits. Readers are woken out of band.
- `NonInterleavingNotificationIDsBaseCase`: it asserts the table lock, that is, that of two appends at the same time one
  draws all of its positions first. Ours may interleave; readers wait behind the horizon instead (test_event_store.py).
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent

from application.event_store import Ledger
from application.recorder import LedgerRecorder

# The module with the cases also holds those of a cipher, whose library we do not need.
_cipher = ModuleType("eventsourcing.cipher")
_cipher.__dict__["AESCipher"] = None
with patch.dict(sys.modules, {"eventsourcing.cipher": _cipher}):
    from eventsourcing.tests import persistence as library


class WithoutPositions(LedgerRecorder):
    """Ours as the library's recorder of streams alone, which knows no positions and compares rows that have none."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super().insert_events(stored_events, **kwargs)

    def select_events(self, originator_id: UUID | str, **kwargs: Any) -> Sequence[Any]:
        rows = super().select_events(originator_id, **kwargs)
        return [StoredEvent(row.originator_id, row.originator_version, row.topic, row.state) for row in rows]


class RecorderOfATest:
    """Gives the library's cases, which are not pytest's, the recorder of a fresh ledger."""

    recorder: LedgerRecorder

    @pytest.fixture(autouse=True)
    def _recorder(self, ledger: Ledger) -> None:
        self.recorder = ledger.recorder


class TestStreamsAsTheLibraryExpectsThem(RecorderOfATest, library.AggregateRecorderTestCase):
    def create_recorder(self) -> LedgerRecorder:
        return WithoutPositions(self.recorder.datastore, events_table_name=self.recorder.events_table_name)


class TestTheLogAsTheLibraryExpectsIt(RecorderOfATest, library.ApplicationRecorderTestCase[LedgerRecorder]):
    def create_recorder(self) -> LedgerRecorder:
        return self.recorder
