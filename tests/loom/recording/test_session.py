"""The session file: what was recorded is read again, whatever happened to the file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loom.call import Direction, Status, StreamKind
from app.loom.recording import session as session_module
from app.loom.recording.lines import LineError, from_line, to_line
from app.loom.recording.record import Record
from app.loom.recording.recorder import Recorder
from app.loom.recording.ring import Ring
from app.loom.recording.session import MAX_FILES, SessionError, SessionFile, load, session_path
from tests.faults.polling import until
from tests.loom.recording.calls import message, request, started, unary

ORIGINALS: dict[str, Any] = {
    "id": "c0ffee",
    "timestamp": "2025-03-04T05:06:07.123456789+02:00",
    "method": "/user.UserService/GetUser",
    "streamKind": "unary",
    "request": [{"index": 0, "json": '{"userId":"abc"}', "raw": "AAAAAAUKA2FiYw=="}],
    "response": [{"index": 0, "json": "{}"}],
    "statusCode": "5",
    "statusName": "NOT_FOUND",
    "grpcMessage": "no such user",
    "durationMs": 12.5,
    "error": "no such user",
    "grpcurlCmd": "grpcurl",
}
"""A line as the original proxy writes it."""


async def written(path: Path, *calls: int, **options: Any) -> Recorder:
    file = SessionFile(path, **options)
    recorder = Recorder(Ring(), [file], schema_of=lambda _method: "hash")
    for call in calls:
        for event in unary(call, status=Status.ABORTED):
            recorder(event)
    await file.aclose()
    assert file.dropped == 0
    return recorder


def same(one: Record, other: Record) -> bool:
    return to_line(one, one.kind()) == to_line(other, other.kind())


def calls_of(records: list[Record]) -> list[int]:
    return [int(record.id.rpartition("-")[2]) for record in records]


async def test_what_was_recorded_is_read_again_after_a_restart(tmp_path: Path) -> None:
    path = session_path(tmp_path / "made" / "for it", "today")
    first = await written(path, 1, 2, schema_set=lambda _hash: b"set")
    second = await written(path, 3)
    found = load(path, 500)
    expected = [*reversed(first.ring.newest_first()), *second.ring.newest_first()]
    assert len(found.records) == 3
    assert all(map(same, found.records, expected))
    assert found.schemas == [b"set"]  # in the first line that needs it, not in each
    assert found.problems == []
    assert [record.status for record in found.records] == [Status.ABORTED] * 3
    assert b"s3cret" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [record.id for record in load(path, 2).records] == [record.id for record in expected[1:]]
    assert calls_of(load(path, 500, 2 * found.records[0].size_bytes).records) == [2, 3]
    assert load(path, 500, 1).records == []
    ring = Ring(max_records=2)
    ring.restore(found.records)
    assert [record.id for record in ring.held()] == [record.id for record in reversed(expected)]
    assert (len(ring), ring.older, ring.evicted) == (2, 1, 0)


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.touch(0o644)
    await written(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_torn_line_is_skipped_and_reported_and_nothing_else_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    await written(path, 1, 2)
    path.write_bytes(path.read_bytes()[:-30])
    await written(path, 3)
    with path.open("ab") as file:
        file.write(b'\xff\n[1]\n{"id": 3}\n\n')
    found = load(path, 500)
    assert calls_of(found.records) == [1, 3]
    assert [problem.partition(": ")[0] for problem in found.problems] == [f"{path}:{number}" for number in (2, 4, 5, 6)]
    path.write_bytes(path.read_bytes()[:-1] + b'{"id"')
    assert "torn off" in load(path, 500).problems[-1]


async def test_a_line_that_is_too_long_is_skipped_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    await written(path, 1, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"x" * 5_000 + b"\n" + lines[1])
    monkeypatch.setattr(session_module, "MAX_LINE_BYTES", 2_000)
    found = load(path, 500)
    assert calls_of(found.records) == [1, 2]
    assert len(found.problems) == 1


async def test_the_file_is_rotated_by_size_each_part_has_its_schema_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    for call in range(MAX_FILES + 3):
        await written(path, call, schema_set=lambda _hash: b"set", max_file_bytes=1)
    entries = list(tmp_path.iterdir())  # noqa: ASYNC240 - a test's own folder
    parts = sorted(entry.name for entry in entries)
    assert parts == [*(f"s.{number}.jsonl" for number in range(1, MAX_FILES)), "s.jsonl"]
    found = load(path, 500)
    assert calls_of(found.records) == list(range(3, MAX_FILES + 3))
    assert found.schemas == [b"set"] * MAX_FILES
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in entries} == {0o600}


def test_the_originals_sessions_load() -> None:
    record, kind, schema = from_line(json.dumps(ORIGINALS).encode())
    assert (record.id, record.started.method, kind, schema) == ("c0ffee", "/user.UserService/GetUser", "unary", None)
    assert [message.data for message in record.of(Direction.REQUEST)] == [b"\n\x03abc"]
    assert not record.of(Direction.RESPONSE)  # the original tells an empty one of calls that failed
    assert (record.status, record.duration_s) == (Status.NOT_FOUND, 0.0125)
    assert record.started.wall == 1741057567.123456
    for code, name in [("NotFound", "NotFound"), ("NOT_FOUND", ""), ("5", ""), ("Not Found", "Not Found")]:
        again = from_line(json.dumps(ORIGINALS | {"statusCode": code, "statusName": name}).encode())[0]
        assert again.status is Status.NOT_FOUND
    assert from_line(json.dumps(ORIGINALS | {"statusName": "OK", "statusCode": "0"}).encode())[0].status is Status.OK


def test_our_lines_have_every_field_that_the_original_reads() -> None:
    recorder = Recorder(Ring())
    for event in unary(1):
        recorder(event)
    fields = json.loads(to_line(recorder.ring.newest_first()[0], StreamKind.UNARY))
    wanted = {key: type(value) for key, value in ORIGINALS.items() if key != "grpcurlCmd"}
    assert {key: type(fields[key]) for key in wanted} == wanted
    assert fields["request"][0]["raw"] == "AAAAAANhc2s="


def test_a_cut_message_keeps_its_true_size() -> None:
    recorder = Recorder(Ring())
    recorder(started(1))
    recorder(message(1, Direction.REQUEST, 0, b"be", more=5))
    record = recorder.ring.newest_first()[0]
    [again] = from_line(to_line(record, StreamKind.UNARY))[0].messages
    assert (again.data, again.size) == (b"be", 7)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda each: st.lists(each, max_size=3)))
def test_whatever_a_field_holds_a_line_is_a_record_or_a_line_error(value: object) -> None:
    ours = ["metadata", "trailers", "schemaSet", "ending", "timeoutMs", "sameInFlight", "httpStatus", "resetCode"]
    for field in [*ORIGINALS, *ours, "messagesLeftOut", "schema", "peer", "mutations"]:
        try:
            record, *_ = from_line(json.dumps(ORIGINALS | {field: value}).encode("utf-8", "surrogatepass"))
        except LineError:
            continue
        from_line(to_line(record, record.kind()))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "soon", []])
@pytest.mark.parametrize("name", ["timeoutMs", "durationMs"])
def test_a_line_with_a_time_that_is_none_is_no_record(name: str, value: Any) -> None:
    with pytest.raises(LineError, match="not a record"):
        from_line(json.dumps({**ORIGINALS, name: value}).encode())


@pytest.mark.parametrize(
    "value", ["9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59.9999999Z", "never", 5]
)
def test_a_line_of_a_time_that_cannot_be_written_is_no_record(value: Any) -> None:
    with pytest.raises(LineError, match="not a record"):
        from_line(json.dumps({**ORIGINALS, "timestamp": value}).encode())


@pytest.mark.parametrize(
    "line", [b"[" * 200_000, json.dumps(ORIGINALS | {"response": [{"json": "[" * 9_999}]}).encode()]
)
def test_a_line_that_is_nested_too_deeply_is_no_record(line: bytes) -> None:
    with pytest.raises(LineError):
        from_line(line)


def test_what_no_utf8_can_tell_is_told_as_its_escape() -> None:
    half = dict.fromkeys(("id", "method", "peer", "authority", "grpcMessage", "schema"), "\ud800")
    record, _, _ = from_line(json.dumps(ORIGINALS | half).encode())
    line = to_line(record, record.kind())
    assert line.decode("utf-8").count(r"\\ud800") == len(half) + 1  # the error is the message again
    assert same(from_line(line)[0], record)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "a b"])
def test_a_session_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(SessionError, match="no session's name"):
        session_path(tmp_path, name)


async def test_a_file_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.mkdir()
    with pytest.raises(SessionError, match=r"s\.jsonl: Is a directory"):
        SessionFile(path)
    with pytest.raises(SessionError, match="Is a directory"):
        load(path, 1)
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SessionError):
        SessionFile(link)


async def test_records_that_the_disk_refuses_are_counted_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    file = SessionFile(path)
    recorder = Recorder(Ring(), [file])
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if descriptor != file._file:
            return real(descriptor, data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for event in unary(1):
        recorder(event)
    await until(lambda: file.dropped == 1, "the record is given up")
    monkeypatch.setattr(os, "write", real)
    for event in [*unary(2), started(3), request(3, b"live")]:
        recorder(event)
    await file.aclose()
    assert file.dropped == 1
    assert calls_of(load(path, 9).records) == [2]


async def test_a_line_that_the_disk_takes_in_part_is_no_part_of_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    file = SessionFile(path)
    recorder = Recorder(Ring(), [file])
    real, written = os.write, 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal written
        if descriptor != file._file:
            return real(descriptor, data)
        if written:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[:50])
        return written

    monkeypatch.setattr(os, "write", full)
    for event in unary(1, bytes(session_module.INLINE_BYTES)):
        recorder(event)
    await until(lambda: file.dropped == 1, "the record is given up")
    monkeypatch.setattr(os, "write", real)
    for event in unary(2):
        recorder(event)
    await file.aclose()
    found = load(path, 9)
    assert calls_of(found.records) == [2]
    assert [problem.partition(": ")[0] for problem in found.problems] == [f"{path}:1"]


async def test_a_file_that_somebody_removed_is_made_anew_when_it_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    file = SessionFile(path, max_file_bytes=1)
    recorder = Recorder(Ring(), [file])
    for call in range(3):
        for event in unary(call):
            recorder(event)
        await until(lambda: file._in_hand is None, "it is written")
        if call == 0:
            path.unlink()
    await file.aclose()
    assert file.dropped == 0
    assert calls_of(load(path, 9).records) == [1, 2]


async def test_a_rotation_that_fails_leaves_the_file_open_and_the_descriptors_are_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    file = SessionFile(path, schema_set=lambda _hash: b"set", max_file_bytes=1)
    recorder = Recorder(Ring(), [file], schema_of=lambda _method: "hash")
    real, refused = session_module._open, [OSError(30, "Read-only file system")]

    def opened(path: Path) -> int:
        if refused:
            raise refused.pop()
        return real(path)

    monkeypatch.setattr(session_module, "_open", opened)
    for call in range(3):
        for event in unary(call):
            recorder(event)
        await until(lambda: file._in_hand is None, "it is written, or given up")
        os.fstat(file._file)
    await file.aclose()
    assert file.dropped == 1
    found = load(path, 9)
    assert calls_of(found.records) == [0, 2]
    assert found.schemas == [b"set"] * 2


async def test_large_records_are_written_in_their_turn(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "s.jsonl", schema_set=lambda _hash: b"descriptors")
    recorder = Recorder(Ring(), [file], schema_of=lambda _method: "hash")
    sizes = [1, session_module.INLINE_BYTES, 2]
    for call, size in enumerate(sizes):
        for event in unary(call, bytes(size)):
            recorder(event)
    await file.aclose()
    loaded = load(tmp_path / "s.jsonl", 9)
    assert [record.messages[0].size for record in loaded.records] == sizes
    assert loaded.schemas == [b"descriptors"]


async def test_what_the_disk_cannot_keep_up_with_is_bounded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MAX_PENDING", 3)
    file = SessionFile(tmp_path / "s.jsonl")
    recorder = Recorder(Ring(), [file])
    for call in range(5):
        for event in unary(call):
            recorder(event)
    await file.aclose()
    assert file.dropped == 2
    assert len(load(tmp_path / "s.jsonl", 9).records) == 3
