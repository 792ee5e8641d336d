"""Records are what happened, bounded, without secrets; what is not kept is counted."""

from __future__ import annotations

import pytest

from app.loom.call import Direction, Event, HalfClosed, Status, StreamKind
from app.loom.recording import recorder as recorder_module
from app.loom.recording.duplicates import MAX_COMPARED_BYTES, Duplicates
from app.loom.recording.record import BASE_BYTES, Record
from app.loom.recording.recorder import MAX_CALL_BYTES, MAX_MESSAGES, Recorder
from app.loom.recording.redaction import PLACEHOLDER, Redaction
from app.loom.recording.ring import Ring
from tests.loom.recording.calls import ended, message, request, response, started, unary


class Told:
    def __init__(self) -> None:
        self.changes: list[str] = []
        self.ends: list[Record] = []

    def changed(self, record: Record) -> None:
        assert record.is_live
        self.changes.append(record.id)

    def finished(self, record: Record) -> None:
        assert not record.is_live
        self.ends.append(record)


def played(events: list[Event], recorder: Recorder | None = None) -> Recorder:
    recorder = recorder or Recorder(Ring())
    for event in events:
        recorder(event)
    return recorder


def test_a_call_appears_when_it_starts_its_messages_as_they_pass_and_its_end_with_its_status() -> None:
    told = Told()
    recorder = Recorder(Ring(), [told])
    events = unary(7, status=Status.NOT_FOUND)
    recorder(events[0])
    [record] = recorder.ring.newest_first()
    assert (record.is_live, record.status, record.duration_s, recorder.live) == (True, None, None, 1)
    played(events[1:], recorder)
    assert [(m.direction, m.data, record.since_start_s(m)) for m in record.messages] == [
        (Direction.REQUEST, b"ask", 0.1),
        (Direction.RESPONSE, b"answer", 0.4),
    ]
    assert (record.status, record.duration_s, recorder.live) == (Status.NOT_FOUND, 0.5, 0)
    assert record.kind() is StreamKind.UNARY
    assert record.kind(StreamKind.BIDI_STREAMING) is StreamKind.BIDI_STREAMING
    assert told.changes == [record.id] * 3
    assert told.ends == [record]


def test_secrets_are_gone_before_anything_is_kept_and_the_rest_stays_in_order() -> None:
    recorder = played(unary(1), Recorder(Ring(), redaction=Redaction(["X-Key", " x-id"])))
    [record] = recorder.ring.newest_first()
    assert record.headers == (
        (b":path", b"/a.S/M"),
        (b"authorization", PLACEHOLDER),
        (b"x-id", PLACEHOLDER),
        (b"x-id", PLACEHOLDER),
    )
    assert record.ended is not None
    kept = [record.headers, record.response_headers, record.ended.trailers]
    assert not any(b"s3cret" in value for headers in kept for _, value in headers)
    [plain] = played(unary(1)).ring.newest_first()
    assert plain.headers[2:] == ((b"x-id", b"1"), (b"x-id", b"2"))


def test_a_secret_is_one_whatever_the_case_of_its_name() -> None:
    sent = ((b"Authorization", b"s3cret"), (b"X-Key", b"s3cret"), (b"x-id", b"1"))
    hidden = ((b"Authorization", PLACEHOLDER), (b"X-Key", PLACEHOLDER), (b"x-id", b"1"))
    assert Redaction(["x-key"])(sent) == hidden


def test_ids_are_not_used_again_after_a_restart() -> None:
    ids = {record.id for _ in range(2) for record in played(unary(1)).ring.newest_first()}
    assert len(ids) == 2


def test_the_ring_keeps_the_newest_by_count_and_by_bytes_and_counts_what_went() -> None:
    recorder = Recorder(Ring(max_records=3, max_bytes=100 * BASE_BYTES))
    for call in range(5):
        played(unary(call), recorder)
    assert [record.id.rpartition("-")[2] for record in recorder.ring.newest_first()] == ["4", "3", "2"]
    assert recorder.ring.evicted == 2
    played([started(9), request(9, b"x" * 97 * BASE_BYTES)], recorder)
    assert recorder.ring.size_bytes <= 100 * BASE_BYTES
    assert recorder.ring.newest_first()[0].is_live
    recorder.ring.clear()
    assert len(recorder.ring) == 1  # the live one


def test_what_is_not_listed_any_more_is_held_within_the_same_bytes_and_goes_first() -> None:
    recorder = Recorder(Ring(max_records=2, max_bytes=20 * BASE_BYTES))
    for call in range(6):
        played(unary(call), recorder)
    ring = recorder.ring
    assert [record.id.rpartition("-")[2] for record in ring.held()] == ["5", "4", "3", "2", "1", "0"]
    oldest = list(ring.held())[-1]
    assert ring.get(oldest.id) is oldest
    assert ring.size_bytes == sum(record.size_bytes for record in ring.held())
    played([started(9), request(9, b"x" * 12 * BASE_BYTES)], recorder)
    assert ring.size_bytes <= 20 * BASE_BYTES
    assert len(ring) == 2
    assert ring.get(oldest.id) is None
    assert 0 < ring.older < 5
    ring.clear()
    assert (len(ring), ring.older) == (1, 0)
    assert ring.size_bytes == ring.newest_first()[0].size_bytes


def test_live_calls_alone_cannot_fill_the_memory() -> None:
    told = Told()
    recorder = Recorder(Ring(max_records=3, max_bytes=20_000), [told])
    for call in range(6):
        played([started(call), request(call, b"x" * 6_000)], recorder)
    for call in range(6):  # those that are not listed any more, too
        played([request(call, b"x" * 6_000, 1)], recorder)
    assert recorder.ring.size_bytes <= 20_000
    assert len(recorder.ring) == 3
    played([ended(call) for call in range(6)], recorder)
    assert recorder.live == 0
    assert recorder.ring.size_bytes == sum(record.size_bytes for record in recorder.ring.held())
    assert len(told.ends) == 6
    assert sum(len(message.data) for record in told.ends for message in record.messages) <= 20_000
    assert [record.left_out + len(record.messages) for record in told.ends] == [2] * 6


def test_a_live_call_that_is_not_listed_any_more_is_held_whole_while_there_is_room() -> None:
    recorder = Recorder(Ring(max_records=2))
    for call in range(4):
        played([started(call), request(call, b"x")], recorder)
    played([response(0, b"y")], recorder)
    oldest = list(recorder.ring.held())[-1]
    assert [message.data for message in oldest.messages] == [b"x", b"y"]
    recorder.ring.clear()
    assert (len(recorder.ring), recorder.ring.older) == (2, 2)


def test_an_endless_stream_keeps_how_it_began_and_its_newest_messages() -> None:
    recorder = Recorder(Ring())
    played([started(1), request(1, b"go")], recorder)
    for number in range(MAX_MESSAGES * 3):
        recorder(response(1, str(number).encode(), number))
    [record] = recorder.ring.newest_first()
    assert len(record.messages) == MAX_MESSAGES
    assert record.left_out == MAX_MESSAGES * 2 + 1
    assert record.responses == MAX_MESSAGES * 3
    assert [m.data for m in record.messages[:2]] == [b"go", b"0"]
    assert record.messages[-1].data == str(MAX_MESSAGES * 3 - 1).encode()
    for number in range(20):
        recorder(response(1, b"x" * (MAX_CALL_BYTES // 8), number))
    assert record.size_bytes <= MAX_CALL_BYTES + 1_000
    assert recorder.ring.size_bytes == record.size_bytes


def test_too_many_calls_in_flight_go_by_unrecorded_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_LIVE", 2)
    recorder = played([event for call in range(4) for event in unary(call)[:2]])
    assert (recorder.live, recorder.dropped, len(recorder.ring)) == (2, 2, 2)
    played([event for call in range(4) for event in unary(call)[2:]], recorder)
    assert recorder.live == 0


def test_the_schema_is_the_one_of_the_time_or_the_first_that_came_after() -> None:
    known: dict[str, str] = {}
    recorder = Recorder(Ring(), schema_of=known.get)
    first, *rest = unary(1)
    recorder(first)
    known["/a.S/M"] = "one"
    played(rest, recorder)
    first, *rest = unary(2)
    recorder(first)
    known["/a.S/M"] = "two"
    played(rest, recorder)
    assert [record.schema for record in recorder.ring.newest_first()] == ["one", "one"]


def test_identical_calls_in_flight_together_are_a_herd_with_its_cost() -> None:
    seen: list[str] = []
    recorder = Recorder(Ring(), duplicates=(duplicates := Duplicates(seen.append)))
    asked = [event for call in range(3) for event in unary(call)[:3]]
    played([*asked, *unary(9, b"other")[:3], *unary(10, method="/a.S/Other")[:3]], recorder)
    herds = {record.id.rpartition("-")[2]: record.herd for record in recorder.ring.newest_first()}
    herd = herds["0"]
    assert herd is herds["1"] is herds["2"]
    assert herd is not None
    assert [each.calls for each in (herd, herds["9"], herds["10"]) if each is not None] == [3, 1, 1]
    assert seen == ["/a.S/M", "/a.S/M"]
    played([ended(call) for call in (0, 1, 2, 9, 10)], recorder)
    assert (herd.in_flight, herd.seconds, len(duplicates)) == (0, 1.5, 0)
    played(unary(11), recorder)  # alone: those before it have ended
    last = recorder.ring.newest_first()[0].herd
    assert last is not None
    assert last.calls == 1


def test_a_herd_keeps_nothing_of_a_long_request_and_tells_them_apart_all_the_same() -> None:
    recorder = Recorder(Ring(), duplicates=Duplicates())
    for call, body in enumerate((b"a" * MAX_COMPARED_BYTES + b"b", b"a" * MAX_COMPARED_BYTES + b"b", b"a" * 9_000)):
        played(unary(call, body)[:3], recorder)
    herds = [record.herd for record in reversed(recorder.ring.newest_first())]
    assert [herd.calls for herd in herds if herd is not None] == [2, 2, 1]
    assert {len(herd.asked[1]) for herd in herds if herd is not None} == {32}


def test_what_cannot_be_compared_is_in_no_herd() -> None:
    recorder = Recorder(Ring(), duplicates=(duplicates := Duplicates()))
    for call in range(2):
        played([started(call), message(call, Direction.REQUEST, 0, b"be", more=5), HalfClosed(call, 0.1)], recorder)
    for call in range(2, 4):
        played([started(call), request(call, b"a"), request(call, b"b", 1), HalfClosed(call, 0.1)], recorder)
    assert {record.herd for record in recorder.ring.newest_first()} == {None}
    assert len(duplicates) == 0
