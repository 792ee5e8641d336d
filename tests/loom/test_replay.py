"""Recorded calls made again: the backend gets what it got, and what comes out otherwise is told, field by field."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import typer
from typer.testing import CliRunner

from app.cli.failure import CommandError
from app.cli.loom import loom as command
from app.loom import tunnel
from app.loom.bootstrap import Config, HostPort, running
from app.loom.call import Direction, Ended, Ending, HalfClosed, Started, Status
from app.loom.capture import CaptureConfig
from app.loom.comparison import ABSENT, Difference, compare
from app.loom.decoding import Decoder
from app.loom.demo.backend import SERVICE, Shop
from app.loom.demo.backend import serving as shop_serving
from app.loom.proxy.upstream import Upstream
from app.loom.recording.lines import from_line, to_line
from app.loom.recording.record import Record
from app.loom.recording.recorder import Recorder
from app.loom.recording.ring import Ring
from app.loom.recording.session import load
from app.loom.replay import ReplayError, replay, secrets_of
from app.loom.schema.schema import Schema
from tests.loom.account import WAIT_S
from tests.loom.backend import ECHO_INITIAL, ECHO_TRAILING, Backend
from tests.loom.conftest import serving
from tests.loom.recording.calls import message, request, response
from tests.loom.test_capture import interop_file, unary
from tests.loom.test_capture import loom as recording

START_S = 60.0
ROOT = Path(__file__).parents[2]
DECODER = Decoder(lambda _hash: None)


async def _many(*requests: bytes) -> AsyncIterator[bytes]:
    for each in requests:
        yield each


@pytest.fixture
async def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A call of each kind, some that failed, one that its client cancelled; recorded by Loom as they passed."""
    # Where headers are read late, on a busy machine, a reset at the deadline comes soon after them.
    monkeypatch.setattr("app.loom.proxy.status.SLACK_S", 1.5)
    path = tmp_path / "s.jsonl"
    backend = Backend()
    async with serving(backend) as (_, port):
        config = Config(
            HostPort("127.0.0.1", 0), HostPort("127.0.0.1", port), HostPort("127.0.0.1", 0), stop_s=WAIT_S,
            capture=CaptureConfig(session=path),
        )  # fmt: skip
        async with running(config) as loom, grpc.aio.insecure_channel(str(loom.listen)) as channel:
            metadata = ((ECHO_INITIAL, "first"), (ECHO_TRAILING, b"\x00\xff"), ("x-id", "1"), ("x-id", "2"))
            await channel.unary_unary("/test.Interop/Unary")(b"ask", metadata=metadata)
            await channel.unary_unary(
                "/test.Interop/Unary",
            )(b"ask", compression=grpc.Compression.Gzip)
            await channel.stream_unary("/test.Interop/ClientStream")(_many(b"a", b"bc"))
            assert [1 async for _ in channel.unary_stream("/test.Interop/ServerStream")(b"sizes 1 2 3")] == [1] * 3
            assert [1 async for _ in channel.stream_stream("/test.Interop/Bidi")(_many(b"sizes 1", b"sizes 2 3"))]
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.Interop/Unary")(b"ask", metadata=(("x-status", "5"),))
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.Interop/Sleep")(b"ask", timeout=1.5)
            backend.arrived.clear()
            cancelled = channel.unary_unary("/test.Interop/Sleep")(b"ask")
            await asyncio.wait_for(backend.arrived.wait(), WAIT_S)
            cancelled.cancel()
    return path


async def test_calls_of_all_kinds_come_out_the_same_and_the_backend_gets_what_it_got(session: Path) -> None:
    records = load(session, 100).records
    assert len(records) == 8
    backend = Backend()
    async with serving(backend) as (_, port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for record in records:
                again = await replay(channel, record)
                found = compare(record, again, DECODER)
                assert found.is_same, (record.started.method, found.differences)
                assert not [each for each in found.differences if each.where.startswith("trailers")]
    first = backend.seen[0].metadata
    assert [value for name, value in first if name == "x-id"] == ["1", "2"]
    assert (ECHO_TRAILING, b"\x00\xff") in first
    assert backend.seen[1].requests == [b"ask"]
    assert backend.seen[2].requests == [b"a", b"bc"]
    assert backend.seen[6].time_remaining is not None
    assert backend.seen[6].time_remaining < 2


def recorded(*events: Any) -> Record:
    recorder = Recorder(Ring())
    for event in events:
        recorder(event)
    return recorder.ring.newest_first()[0]


def begun(*headers: tuple[bytes, bytes], method: str = "/test.Interop/Unary", timeout_s: float | None = 5.0) -> Started:
    return Started(1, 0.0, 1_700_000_000.0, 1, 1, "127.0.0.1:5", method, "host:1", headers, timeout_s)


def over(status: Status = Status.OK, *trailers: tuple[bytes, bytes], text: str = "", responses: int = 1) -> Ended:
    return Ended(1, 0.5, Ending.TRAILERS, status, text, trailers, 200, None, 1, responses)


async def test_redacted_metadata_is_never_guessed_and_goes_when_given() -> None:
    record = recorded(begun((b"authorization", b"Bearer s"), (b"te", b"trailers")), request(1, b"ask"), over())
    assert secrets_of(record) == {"authorization"}
    backend = Backend()
    async with serving(backend) as (_, port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(ReplayError, match="authorization was redacted"):
                await replay(channel, record)
            with pytest.raises(ReplayError, match="metadata 'x y' can't be sent: that is no name"):
                await replay(channel, record, {"authorization": "", "x y": "1"})
            assert not backend.seen
            await replay(channel, record, {"authorization": "Bearer new", "x-more-bin": "AP8"})
            await replay(channel, record, {"authorization": ""})
    names = [dict(seen.metadata) for seen in backend.seen]
    assert (names[0]["authorization"], names[0]["x-more-bin"]) == ("Bearer new", b"\x00\xff")
    assert "authorization" not in names[1]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([message(1, Direction.REQUEST, 0, b"ask", more=1)], "its request 0 was cut, at 3 of 4 bytes"),
        ([request(1, b"b", 1)], "not all of its requests were kept"),
        ([request(1, b"a")._replace(compressed=True)], "compressed by nothing that was named"),
    ],
)
async def test_what_was_not_kept_whole_is_not_sent(events: list[Any], why: str) -> None:
    record = recorded(begun(), *events, over())
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(ReplayError, match=why):
        await replay(channel, record)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (b"X-Up", b"a", "'X-Up' can't be sent: that is no name"),
        (b"", b"a", "'' can't be sent: that is no name"),
        (b"x", b"a\nb", "x can't be sent: not printable ASCII"),
        (b"x", b"\xe9", "x can't be sent: not printable ASCII"),
        (b"x-bin", b"*", "x-bin can't be sent: not base64"),
    ],
)
async def test_metadata_that_no_client_can_send_is_told_and_nothing_is_sent(
    name: bytes, value: bytes, why: str
) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(ReplayError, match=why):
        await replay(channel, recorded(begun((name, value)), request(1, b"ask"), over()))


async def test_a_deadline_that_grpc_can_not_tell_is_not_over_at_once() -> None:
    record = recorded(begun(timeout_s=1e300), request(1, b"ask"), response(1, b"ask"), over())
    async with serving(Backend()) as (_, port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await replay(channel, record)).status is Status.OK


async def test_a_stream_that_its_client_left_is_left_again_after_as_many_messages() -> None:
    async def endless(_: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield b"\x08\x01"

    class Endless(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_stream_rpc_method_handler(endless)

    left = Ended(1, 0.5, Ending.RESET_BY_CLIENT, Status.CANCELLED, "", (), 200, 8, 1, 2)
    record = recorded(
        begun(timeout_s=None), request(1, b"ask"), HalfClosed(1, 0.1),
        response(1, b"\x08\x01"), response(1, b"\x08\x01", 1), left,
    )  # fmt: skip
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Endless(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        again = await asyncio.wait_for(replay(channel, record), WAIT_S)
    await server.stop(0)
    assert again.responses == 2
    assert compare(record, again, DECODER).is_same


async def test_the_backend_is_told_another_authority_where_one_is_asked_for() -> None:
    record = recorded(begun(), request(1, b"ask"), response(1, b"ask"), over())
    async with serving(Backend()) as (_, port), recording(port) as made:
        upstream = Upstream("127.0.0.1", made.listen.port, timeout_s=WAIT_S, handshake_s=WAIT_S)
        for authority in (None, "shop.example:443"):
            async with tunnel.blocking_channel(upstream, authority) as channel:
                assert (await replay(channel, record)).status is Status.OK
        told = [each.started.authority for each in made.capture.ring.newest_first()]
    assert told == ["shop.example:443", str(made.listen)]


def test_differences_are_named_by_their_place() -> None:
    def with_json(data: Any, *trailers: tuple[bytes, bytes], status: Status = Status.OK) -> Record:
        return recorded(begun(), request(1, b"ask"), response(1, json.dumps(data).encode()), over(status, *trailers))

    class Json(Decoder):
        def json(self, record: Record, kept: Any) -> Any:
            return json.loads(kept.data)

    before = with_json({"a": [1, {"b": 2}], "gone": 0}, (b"x-t", b"1"))
    after = with_json({"a": [1, {"b": True}, 3]}, (b"x-t", b"2"), status=Status.NOT_FOUND)
    found = compare(before, after, Json(lambda _hash: None))
    assert (found.same_status, found.same_body) == (False, False)
    assert found.differences == [
        Difference("status", "OK", "NOT_FOUND"),
        Difference("response[0].a[1].b", 2, True),
        Difference("response[0].a[2]", ABSENT, 3),
        Difference("response[0].gone", 0, ABSENT),
        Difference("trailers.x-t", "1", "2"),
    ]
    only_trailers = compare(
        before, with_json({"a": [1, {"b": 2}], "gone": 0}, (b"x-t", b"2")), Json(lambda _hash: None)
    )
    assert only_trailers.is_same
    assert len(only_trailers.differences) == 1


def test_a_compressed_message_is_compared_by_what_it_says() -> None:
    headers = ((b"grpc-encoding", b"gzip"),)
    one = recorded(
        begun(), request(1, b"ask"), response(1, gzip.compress(b"\x08\x01"))._replace(compressed=True), over()
    )
    one.response_headers = headers
    other = recorded(begun(), request(1, b"ask"), response(1, b"\x08\x01"), over())
    assert compare(one, other, DECODER).is_same


def test_fewer_messages_are_another_body() -> None:
    one = recorded(
        begun(), request(1, b"ask"), response(1, b"\x08\x01"), response(1, b"\x08\x01", 1), over(responses=2)
    )
    other = recorded(begun(), request(1, b"ask"), response(1, b"\x08\x01"), over())
    assert compare(one, other, DECODER).differences == [Difference("responses", 2, 1)]


def loom(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "loom", *flags],
        capture_output=True, text=True, timeout=START_S, check=False, cwd=ROOT,
        env={**os.environ, **environment, "COLUMNS": "200"},
    )  # fmt: skip


async def test_the_command_ends_with_a_table_and_with_a_status_that_tells_whether_all_was_the_same(
    session: Path,
) -> None:
    async with serving(Backend()) as (_, port):
        backend = ("--backend", f"127.0.0.1:{port}", "--replay", str(session))
        same = await asyncio.to_thread(loom, *backend)
        assert (same.returncode, same.stderr) == (0, "")
        last = same.stdout.splitlines()[-1].split()
        assert last == ["all,", "at", f"127.0.0.1:{port}", "8", "8", "8", "0", "0"]
        with session.open("ab") as file:
            file.write(b'{"id": "torn')
        torn = await asyncio.to_thread(loom, *backend, "--json")
        assert (torn.returncode, json.loads(torn.stdout)["lines_skipped"]) == (0, 1)
        assert "skipped: " in torn.stderr
        assert "torn off" in torn.stderr
    down = await asyncio.to_thread(loom, *backend)
    assert (down.returncode, down.stdout) == (1, "")
    assert "the backend can't be reached: 127.0.0.1" in down.stderr


async def test_a_call_that_comes_out_otherwise_is_shown_and_the_command_ends_with_1(session: Path) -> None:
    class Other(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            async def other(_: bytes, context: Any) -> bytes:
                return b"\x1b[2Jother"

            kind = grpc.unary_unary_rpc_method_handler(other)
            return kind if details.method == "/test.Interop/Unary" else None

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Other(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = await asyncio.to_thread(loom, "--backend", f"127.0.0.1:{port}", "--replay", str(session))
    await server.stop(0)
    assert ended.returncode == 1
    calls, _, same, differing, failed = map(int, ended.stdout.splitlines()[-1].split()[3:])
    assert (calls, same + differing, failed) == (8, 8, 0)
    assert same <= 1  # the one that was cancelled, if it is cancelled before it is answered
    assert "status: NOT_FOUND → OK" in ended.stdout
    assert "\x1b[2J" not in ended.stdout


def test_a_session_is_exported_decoded_and_what_is_exported_is_a_session(session: Path) -> None:
    ended = loom("--export", str(session))
    assert ended.returncode == 0
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(lines) == 8
    kept = lines[3]["response"][0]
    assert json.loads(kept["json"]) == {"@undecoded": "cg=="}
    again = session.with_name("again.jsonl")
    again.write_text(ended.stdout, "utf-8")
    assert [each.id for each in load(again, 100).records] == [each["id"] for each in lines]


async def test_an_export_has_field_names_where_the_schema_was_recorded(tmp_path: Path) -> None:
    schema = Schema([interop_file()])
    path = tmp_path / "s.jsonl"
    async with serving(Backend()) as (_, port), recording(port, CaptureConfig(session=path, schema=schema)) as made:
        await made.capture.schemas.schema()
        await unary(made, b"\n\x02hi")
        async with httpx.AsyncClient() as http:
            live = (await http.get(f"http://{made.ui}/api/export")).json()
    ended = await asyncio.to_thread(loom, "--export", str(path))
    assert json.loads(ended.stdout) == live
    fields = json.loads(ended.stdout)
    assert json.loads(fields["request"][0]["json"]) == {"text": "hi"}


def refusal(*flags: str) -> CommandError:
    program = typer.Typer()
    program.command()(command)
    with pytest.raises(CommandError) as error:
        CliRunner().invoke(program, list(flags), catch_exceptions=False)
    return error.value


def test_the_command_refuses_before_the_first_call_what_it_can_not_send_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.loom.logs.configure", lambda _level: None)
    path = tmp_path / "s.jsonl"
    assert "is neither a file nor a session in" in str(refusal("--replay", "no-such-session"))
    path.write_bytes(b"")
    assert (str(refusal("--replay", str(path))), refusal("--replay", str(path)).status) == (f"{path}: no call in it", 1)
    record = recorded(begun((b"authorization", b"Bearer s")), request(1, b"ask"), over())
    path.write_bytes(to_line(record, record.kind()))
    unsaid = refusal("--replay", str(path), "--backend", "127.0.0.1:1")
    assert "give --metadata authorization=VALUE or $LOOM_AUTH" in str(unsaid)
    assert unsaid.status == 2
    monkeypatch.setenv("LOOM_AUTH", "Bearer x")
    assert "can't be reached" in str(refusal("--replay", str(path), "--backend", "127.0.0.1:1"))
    assert "s3cret" not in str(refusal("--replay", str(path), "--metadata", "s3cret"))
    assert "exclude each other" in str(refusal("--replay", "nowhere", "--export", "nowhere"))


JSON_ALONE = {
    "id": "c0ffee",
    "timestamp": "2026-03-04T01:06:07.123456789+00:00",
    "method": f"/{SERVICE}/TakeStock",
    "streamKind": "client_streaming",
    "request": [{"index": 0, "json": '{"sku":"tea-1","counted":3}'}, {"index": 1, "json": '{"counted":4}'}],
    "response": [{"index": 0, "json": '{"items":2,"total":7}'}],
    "statusCode": "0",
    "statusName": "OK",
    "durationMs": 12.5,
}


async def test_calls_recorded_as_json_alone_are_sent_by_the_backends_schema_and_compared_by_what_they_say(
    tmp_path: Path,
) -> None:
    path = tmp_path / "original.jsonl"
    missing = JSON_ALONE | {
        "method": f"/{SERVICE}/GetItem", "streamKind": "unary", "statusCode": "5", "statusName": "NOT_FOUND",
        "request": [{"index": 0, "json": '{"sku":"coffee"}'}], "response": [{"index": 0, "json": "{}"}],
    }  # fmt: skip
    path.write_text(f"{json.dumps(JSON_ALONE)}\n{json.dumps(missing)}\n", "utf-8")
    async with shop_serving(Shop.load()) as port:
        flags = ("--backend", f"127.0.0.1:{port}", "--replay", str(path), "--json")
        same = await asyncio.to_thread(loom, *flags)
        assert (same.returncode, same.stderr) == (0, "")
        assert json.loads(same.stdout)["same_body"] == 2
        other = [{"index": 0, "json": '{"items":2,"total":8}'}]
        path.write_text(json.dumps(JSON_ALONE | {"response": other}), "utf-8")
        shown = await asyncio.to_thread(loom, *flags[:-1])
        assert (shown.returncode, shown.stderr) == (1, "")
        assert "response[0].total: 8 → 7" in shown.stdout
    async with serving(Backend()) as (_, port):  # which has no reflection
        unknown = await asyncio.to_thread(loom, "--backend", f"127.0.0.1:{port}", "--replay", str(path))
        assert unknown.returncode == 1
        assert "its requests were recorded as JSON alone, and their types are not known" in unknown.stdout


def test_what_is_known_as_json_alone_is_exported_as_that_again() -> None:
    record, *_ = from_line(json.dumps(JSON_ALONE).encode())
    again, *_ = from_line(to_line(record, record.kind()))
    assert again.texts == record.texts
    assert DECODER.json(again, again.messages[2]) == {"items": 2, "total": 7}


async def test_redacted_metadata_is_asked_for_on_a_terminal_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    record = recorded(begun((b"authorization", b"Bearer s")), request(1, b"ask"), response(1, b"ask"), over())
    path.write_bytes(to_line(record, record.kind()))
    backend = Backend()
    async with serving(backend) as (_, port):
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "loom", "--replay", str(path), "--backend", f"127.0.0.1:{port}", "--json",
            stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            async with asyncio.timeout(START_S):
                while b"leaves it out" not in shown:
                    shown += await asyncio.to_thread(os.read, ours, 1000)
                os.write(ours, b"Bearer new\n")
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()  # which ends the reading, too
                await process.wait()
            os.close(ours)
    assert b"authorization" in shown
    assert b"new" not in shown
    assert (process.returncode, json.loads(said)["same_body"]) == (0, 1)
    assert dict(backend.seen[0].metadata)["authorization"] == "Bearer new"
