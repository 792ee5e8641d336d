"""A line holds whatever a call may hold, and says the same to any reader of JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loom.call import Altered, Answered, Direction, Ended, Ending, Headers, Message, Started, Status, StreamKind
from app.loom.decoding import Decoder, exported
from app.loom.recording import memo as memo_module
from app.loom.recording.lines import from_line, to_fields, to_line, to_pieces, with_schema
from app.loom.recording.memo import Memo
from app.loom.recording.record import Record
from app.loom.recording.recorder import Recorder
from app.loom.recording.redaction import Redaction
from app.loom.recording.ring import Ring
from tests.loom.recording.calls import response, started, unary

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HEADERS = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=3).map(tuple)
SECONDS = st.floats(0, 1e6)


@given(
    texts=st.tuples(TEXT, TEXT, TEXT, TEXT),
    headers=st.tuples(HEADERS, HEADERS, HEADERS),
    bodies=st.lists(st.tuples(st.sampled_from(Direction), st.binary(max_size=20), st.integers(0, 5)), max_size=4),
    timeout_s=st.none() | SECONDS,
    took_s=SECONDS,
    wall=st.floats(0, 4e9),
    status=st.none() | st.sampled_from(Status),
    ending=st.sampled_from(Ending),
)
def test_any_call_is_a_line_of_json_that_reads_as_what_it_was(
    texts: tuple[str, str, str, str],
    headers: tuple[Headers, Headers, Headers],
    bodies: list[tuple[Direction, bytes, int]],
    timeout_s: float | None,
    took_s: float,
    wall: float,
    status: Status | None,
    ending: Ending,
) -> None:
    peer, method, authority, told = texts
    recorder = Recorder(Ring(), schema_of=lambda _method: "hash")
    recorder(Started(1, 7.0, wall, 1, 1, peer, method, authority, headers[0], timeout_s))
    recorder(Answered(1, 7.0, headers[1]))
    for number, (direction, body, missing) in enumerate(bodies):
        recorder(Message(1, 7.0 + number, direction, number, bool(missing), body, len(body) + missing))
    recorder(Ended(1, 7.0 + took_s, ending, status, told, headers[2], None, 8, 1, 1))
    [record] = recorder.ring.newest_first()
    line = to_line(record, StreamKind.UNARY)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"".join(to_pieces(record, StreamKind.UNARY)) == line
    fields = json.loads(line)
    assert fields == to_fields(record, StreamKind.UNARY)
    assert (fields["peer"], fields["method"], fields["authority"], fields["grpcMessage"]) == texts
    for name, sent in zip(("metadata", "responseMetadata", "trailers"), headers, strict=True):
        shown = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields[name])
        assert shown == Redaction()(sent)  # a name may be one that is kept secret, such as cookie
    assert fields["durationMs"] == pytest.approx(took_s * 1e3, abs=0.001)
    for direction in Direction:
        wanted = [
            (number, bytes([bool(missing)]) + (len(body) + missing).to_bytes(4) + body, number * 1e3, missing > 0)
            for number, (way, body, missing) in enumerate(bodies)
            if way is direction
        ]
        assert wanted == [
            (each["index"], base64.b64decode(each["raw"]), each["atMs"], "cut" in each)
            for each in fields[direction.value]
        ]
    again, kind, _ = from_line(line)
    assert kind == "unary"
    assert again.ended is not None
    assert again.ended[2:6] == (ending, Status.UNKNOWN if status is None else status, again.ended.message, headers[2])
    assert again.started.wall == pytest.approx(wall, abs=2e-6)


def test_a_line_in_pieces_is_the_same_line_whatever_its_texts_look_like() -> None:
    recorder = Recorder(Ring())
    for event in unary(1, method='/"request":[],"response":[]'):
        recorder(event)
    [record] = recorder.ring.newest_first()
    line = to_line(record, StreamKind.UNARY)
    pieces = list(to_pieces(record, StreamKind.UNARY))
    assert b"".join(pieces) == line
    assert len(pieces) == 5  # one message each, and what is around them
    assert [message.data for message in record.messages] == [b"ask", b"answer"]


def test_what_rules_have_done_and_the_descriptors_are_in_the_line() -> None:
    recorder = Recorder(Ring())
    first, *rest = unary(1)
    recorder(first)
    recorder.altered(Altered(1, 0.0, Direction.RESPONSE, 0, ""))
    for event in rest:
        recorder(event)
    line = to_line(recorder.ring.newest_first()[0], StreamKind.UNARY)
    fields = json.loads(line)
    assert fields["mutated"]
    assert fields["mutations"] == [{"direction": "response", "index": 0, "problem": ""}]
    assert json.loads(with_schema(line, b"descriptors")) == fields | {
        "schemaSet": base64.b64encode(b"descriptors").decode()
    }


def test_a_live_call_has_fields_without_its_end() -> None:
    recorder = Recorder(Ring())
    recorder(started(1))
    fields = to_fields(recorder.ring.newest_first()[0], StreamKind.UNARY)
    assert fields["timestamp"] == "2023-11-14T22:13:20.250000Z"
    assert "statusCode" not in fields


def test_a_live_call_is_exported_as_it_was_though_it_gets_more_meanwhile() -> None:
    recorder = Recorder(Ring())
    for event in unary(1)[:-1]:
        recorder(event)
    record = recorder.ring.newest_first()[0]

    class Meanwhile(Decoder):
        def json(self, record: Record, kept: Message) -> Any:
            recorder(response(1, b"more", record.responses))
            return super().json(record, kept)

    fields = exported(record, Meanwhile(lambda _hash: None))
    assert [len(fields["request"]), len(fields["response"])] == [1, 1]
    assert record.responses == 3


def listed(value: bytes) -> Headers:
    """A list of its own each time, equal or not."""
    return ((b"n", value),)


def test_a_memo_tells_lists_apart_that_are_equal_or_have_had_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo_module, "MAX_LISTS", 3)
    made: list[Headers] = []

    def make(headers: Headers) -> int:
        made.append(headers)
        return len(made)

    memo = Memo(make)
    one, other = listed(b"a"), listed(b"a")
    assert [memo(one), memo(one), memo(other)] == [1, 1, 2]
    for number in range(50):  # each is gone before the next is there, unless the memo holds it
        assert memo(listed(b"%d" % number)) == 3 + number
    long = listed(bytes(memo_module.MAX_LIST_BYTES))
    assert memo(long) != memo(long)
    assert len(memo._known) <= 3


def test_a_record_made_of_a_line_makes_the_same_line() -> None:
    recorder = Recorder(Ring())
    for event in unary(1):
        recorder(event)
    record: Record = recorder.ring.newest_first()[0]
    line = to_line(record, StreamKind.UNARY)
    assert to_line(from_line(line)[0], StreamKind.UNARY) == line
