"""5 to 8: what passes, passes whole and as it was, but for what a rule changes; and no call waits for a schema."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2

from app.loom.call import Ending, Status, StreamKind
from app.loom.proxy.interception import Interception
from app.loom.recording.lines import from_line, to_line
from tests.loom.account import WAIT_S, eventually
from tests.loom.backend import Backend
from tests.loom.conftest import serving
from tests.loom.defects.front import fronted
from tests.loom.test_conformance import ODD, assert_same, exchange
from tests.loom.test_mutation import UNKNOWN, call_all, metrics, mutating, order, parsed, recorded, write

LARGE = 40_000_000
"""Over 32 MiB."""
V1, V1ALPHA = (f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
COMPRESSIONS = [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]


async def test_05_a_streamed_message_over_32_mib_passes_and_is_recorded(rules: Path | None) -> None:
    backend = Backend()
    async with serving(backend) as (_, port), fronted(port, rules) as front:
        call = front.channel.stream_stream("/test.Interop/Bidi")()
        await call.write(f"sizes {LARGE} 3".encode().ljust(LARGE))
        assert [len(await call.read()), await call.read()] == [LARGE, b"rrr"]
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert [len(request) for request in backend.seen[0].requests] == [LARGE]
        told = await front.one()
        assert told["statusName"] == "OK"
        assert [(each["direction"], each["size"], each.get("cut", False)) for each in told["messages"]] == [
            ("request", LARGE, True),
            ("response", LARGE, True),
            ("response", 3, False),
        ]


async def test_06_with_no_schema_both_sides_of_a_stream_are_heard_as_they_speak(rules: Path | None) -> None:
    async with serving(Backend()) as (_, port), fronted(port, rules) as front:
        call = front.channel.stream_stream("/test.Interop/Bidi")(timeout=WAIT_S)
        for size in (5, 6, 7):
            await call.write(b"sizes %d" % size)
            assert await call.read() == b"r" * size
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        told = await front.one()
        assert (told["streamKind"], told["statusName"]) == ("bidi_streaming", "OK")
        assert [each["direction"] for each in told["messages"]] == ["request", "response"] * 3
        assert not told["isDecodedBySchema"]


class Reflecting(Backend):
    """Counts who asks for its schema, which `answer` is to give."""

    def __init__(self, answer: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method not in (V1, V1ALPHA):
            return super().service(details)
        self.asked[details.method] += 1
        return None if self._answer is None else grpc.stream_stream_rpc_method_handler(self._reflect)

    async def _reflect(self, _requests: Any, _context: Any) -> None:
        assert self._answer is not None
        await self._answer()


async def test_06_a_backend_without_reflection_is_asked_once_in_a_while_and_not_at_each_call() -> None:
    backend = Reflecting()
    async with serving(backend) as (_, port), fronted(port) as front:
        unary = front.channel.unary_unary("/test.Interop/Unary")
        assert await unary(b"ask", timeout=WAIT_S) == b"ask"

        async def has_been_asked() -> bool:
            return backend.asked.keys() == {V1, V1ALPHA}

        await eventually(has_been_asked)
        for _ in range(100):
            assert await unary(b"ask", timeout=WAIT_S) == b"ask"
        await asyncio.gather(*(unary(b"ask", timeout=WAIT_S) for _ in range(100)))
        # Every 10 s at most, which a slow machine may need for so many calls.
        assert max(backend.asked.values()) < 10


async def test_06_reflection_that_hangs_keeps_no_call_waiting() -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        asked.set()
        await never.wait()

    backend = Reflecting(hang)
    async with serving(backend) as (_, port), fronted(port) as front:
        unary = front.channel.unary_unary("/test.Interop/Unary")
        assert await unary(b"ask", timeout=WAIT_S) == b"ask"
        await asyncio.wait_for(asked.wait(), WAIT_S)
        for _ in range(19):
            assert await unary(b"ask", timeout=WAIT_S) == b"ask"
        rows = await front.ended(20)
        assert {row["statusName"] for row in rows} == {"OK"}


async def test_07_metadata_is_not_lost_not_rewritten_and_not_added_to(interception: Interception | None) -> None:
    asking = [
        (":method", "POST"), (":scheme", "http"), (":path", "/a.S/M"), (":authority", "elsewhere.test:1"),
        ("content-type", "application/grpc+json"), ("te", "trailers"), ("user-agent", "mine/1"), *ODD,
    ]  # fmt: skip
    answer = [
        (":status", "200"), ("content-type", "application/grpc+json"), ("grpc-status", "5"),
        ("grpc-message", "no such thing"), ("x-trailing", "one"), ("x-trailing", "two"), ("x-more-bin", "AAEC"), *ODD,
    ]  # fmt: skip
    asked, got, told = await exchange(
        interception,
        lambda peer: peer.block(1, asking, end=True),
        lambda peer, stream: peer.block(stream, answer, end=True),
    )
    assert (asked.blocks, got.blocks) == ([asking], [answer])
    assert_same(told, asked, got)
    assert (told.end.status, told.end.ending, told.started.authority) == (
        Status.NOT_FOUND, Ending.TRAILERS_ONLY, "elsewhere.test:1",
    )  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_08_every_message_of_every_kind_is_changed_both_ways_and_all_else_of_it_stays(
    compression: grpc.Compression, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.json"
    write(
        rules,
        {"method": "shop.Shop/*", "direction": "request", "set": {"name": "asked"}},
        {"method": "shop.Shop/*", "direction": "response", "set": {"units": 7}, "headers": {"set": {"x-by": "loom"}}},
    )
    extra = any_pb2.Any()
    extra.Pack(duration_pb2.Duration(seconds=5))
    request = order(name="was", units=1, extra=extra).SerializeToString() + UNKNOWN * 100  # worth being compressed
    async with mutating(rules, compression) as (loom, shop, channel):
        answers = await call_all(channel, request, compression)
        assert (len(shop.seen), len(answers)) == (6, 6)
        assert {(each.name, each.units) for each in map(parsed, shop.seen)} == {("asked", 1)}
        assert {(each.name, each.units) for each in map(parsed, answers)} == {("asked", 7)}
        assert all(parsed(each).extra.value == extra.value and UNKNOWN in each for each in [*shop.seen, *answers])
        call = channel.unary_unary("/shop.Shop/Unary")(request, timeout=WAIT_S, compression=compression)
        await call
        assert dict(await call.initial_metadata())["x-by"] == "loom"

        async def is_counted() -> bool:
            counted = 'loom_mutations_total{direction="request",method="/shop.Shop/Unary"} 2.0'
            return counted in await metrics(loom)

        await eventually(is_counted)
        assert 'loom_mutations_failed_total{direction="request"} 0.0' in await metrics(loom)
        unary = await recorded(loom)
        assert unary.is_mutated
        is_compressed = compression is not grpc.Compression.NoCompression
        assert [kept.compressed for kept in unary.messages] == [is_compressed] * 2
        assert [(each.direction.value, each.position, each.problem) for each in unary.altered] == [
            ("request", 0, ""),
            ("response", None, ""),
            ("response", 0, ""),
        ]
        loaded, *_ = from_line(to_line(unary, StreamKind.UNARY))
        assert [each[2:] for each in loaded.altered] == [each[2:] for each in unary.altered]


async def test_08_fields_within_an_any_are_changed_too(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    write(rules, {"method": "*", "direction": "request", "set": {"extra.units": 9}, "delete": ["extra.name"]})
    inner = order(name="gone", units=5)
    extra = any_pb2.Any(type_url="type.googleapis.com/shop.Order", value=inner.SerializeToString() + UNKNOWN)
    async with mutating(rules) as (loom, shop, channel):
        await call_all(channel, order(name="was", extra=extra).SerializeToString())
        assert len(shop.seen) == 6
        for seen in map(parsed, shop.seen):
            held = parsed(seen.extra.value)
            assert (seen.name, seen.extra.type_url) == ("was", extra.type_url)
            assert (held.name, held.units, UNKNOWN in seen.extra.value) == ("", 9, True)
        unknown = any_pb2.Any(type_url="type.googleapis.com/far.Away", value=b"")
        request = order(extra=unknown).SerializeToString()
        assert await channel.unary_unary("/shop.Shop/Unary")(request, timeout=WAIT_S) == request
        assert 'loom_mutations_failed_total{direction="request"} 1.0' in await metrics(loom)
        assert [each.problem for each in (await recorded(loom)).altered] == [
            "rule 1: extra.name: the type that is in it, far.Away, is not known"
        ]


async def test_08_what_cannot_be_changed_passes_as_it_was_and_counts_as_that_alone(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    write(rules, {"method": "*", "direction": "request", "set": {"name": "new", "no_such_field": 1}})
    async with mutating(rules) as (loom, shop, channel):
        request = order(name="was").SerializeToString()
        assert await channel.unary_unary("/shop.Shop/Unary")(request, timeout=WAIT_S) == request
        assert shop.seen == [request]
        told = await metrics(loom)
        assert 'loom_mutations_failed_total{direction="request"} 1.0' in told
        assert "loom_mutations_total{" not in told
        record = await recorded(loom)
        assert not record.is_mutated
        assert [each.problem for each in record.altered] == ["rule 1: no_such_field: shop.Order has no no_such_field"]
