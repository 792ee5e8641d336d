"""What several watch is made once, and what still changes is made anew."""

from __future__ import annotations

import pytest

from app.loom.inspector import rows as rows_module
from app.loom.inspector.rows import SharedRows
from app.loom.recording.record import Record
from app.loom.recording.recorder import Recorder
from app.loom.recording.ring import Ring
from tests.loom.recording.calls import started, unary


def test_a_row_is_made_once_its_call_has_ended_and_each_time_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_TEXTS", 2)
    made: list[str] = []

    def make(record: Record) -> str:
        made.append(record.id)
        return f"{record.id} {len(made)}"

    rows, recorder = SharedRows(make), Recorder(Ring())
    recorder(started(1))
    [live] = recorder.ring.newest_first()
    assert rows.text(live) != rows.text(live)
    for event in [*unary(1)[1:], *unary(2), *unary(3)]:
        recorder(event)
    for record in recorder.ring.newest_first():
        assert rows.text(record) == rows.text(record)
    assert len(made) == 2 + 3
    assert len(rows._texts) <= 2
