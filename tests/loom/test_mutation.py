"""Rules on real calls: what they change, what they leave, and how they come and go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.protobuf.message import Message

from app.loom.bootstrap import Config, HostPort, Loom, running
from app.loom.call import StreamKind
from app.loom.capture import CaptureConfig
from app.loom.recording.lines import from_line, to_line
from app.loom.recording.record import Record
from app.loom.rules.file import RulesError
from app.loom.schema.schema import Schema, new_message
from tests.loom.account import WAIT_S, eventually

LOCAL = HostPort("127.0.0.1", 0)


def schema() -> Schema:
    """`shop.Shop` with all four stream kinds from `shop.Order` to `shop.Order`."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    order = file.message_type.add(name="Order")
    field = descriptor_pb2.FieldDescriptorProto
    order.field.add(name="name", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    order.field.add(name="units", number=2, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    order.field.add(
        name="extra",
        number=3,
        type=field.TYPE_MESSAGE,
        type_name=".google.protobuf.Any",
        label=field.LABEL_OPTIONAL,
    )
    service = file.service.add(name="Shop")
    for name in METHODS:
        service.method.add(
            name=name,
            input_type=".shop.Order",
            output_type=".shop.Order",
            client_streaming=name in ("Client", "Bidi"),
            server_streaming=name in ("Server", "Bidi"),
        )
    return Schema([file])


METHODS = ("Unary", "Client", "Server", "Bidi")
SCHEMA_FILES = schema()
UNKNOWN = b"\x7a\x03abc"
"""A field, number 15, that the schema does not have."""


def order(**fields: Any) -> Any:
    descriptor = SCHEMA_FILES.type_named("shop.Order")
    assert descriptor is not None
    made = new_message(descriptor)
    for name, value in fields.items():
        if isinstance(value, Message):
            getattr(made, name).ParseFromString(value.SerializeToString())  # a class of another pool
        else:
            setattr(made, name, value)
    return made


def parsed(data: bytes) -> Any:
    made = order()
    made.ParseFromString(data)
    return made


class Shop(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers each request with itself, twice where it streams; remembers the bytes."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.metadata: list[list[tuple[str, Any]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        self.metadata.append([(key, value) for key, value in details.invocation_metadata])
        return {
            "/shop.Shop/Unary": grpc.unary_unary_rpc_method_handler(self._one),
            "/shop.Shop/Client": grpc.stream_unary_rpc_method_handler(self._last),
            "/shop.Shop/Server": grpc.unary_stream_rpc_method_handler(self._twice),
            "/shop.Shop/Bidi": grpc.stream_stream_rpc_method_handler(self._each),
        }.get(details.method)

    async def _one(self, request: bytes, _context: Any) -> bytes:
        self.seen.append(request)
        return request

    async def _last(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        async for request in requests:
            self.seen.append(request)
        return self.seen[-1]

    async def _twice(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        self.seen.append(request)
        for _ in range(2):
            yield request

    async def _each(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.seen.append(request)
            yield request


def write(path: Path, *rules: dict[str, Any]) -> None:
    path.write_text(json.dumps({"rules": rules}))


@asynccontextmanager
async def mutating(path: Path) -> AsyncIterator[tuple[Loom, Shop, grpc.aio.Channel]]:
    """Loom with the rules in `path`, between a channel and a backend without reflection."""
    shop = Shop()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((shop,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    config = Config(
        LOCAL,
        HostPort("127.0.0.1", port),
        LOCAL,
        rules=path,
        stop_s=WAIT_S,
        capture=CaptureConfig(schema=SCHEMA_FILES),
    )
    try:
        async with running(config) as loom, grpc.aio.insecure_channel(str(loom.listen)) as channel:
            yield loom, shop, channel
    finally:
        await server.stop(0)


async def metrics(loom: Loom) -> str:
    async with httpx.AsyncClient(timeout=WAIT_S) as http:
        return (await http.get(f"http://{loom.ui}/metrics")).text


async def call_all(channel: grpc.aio.Channel, request: bytes) -> list[bytes]:
    """One call of each kind, two requests where it streams; the answers."""

    async def two() -> AsyncIterator[bytes]:
        yield request
        yield request

    answers = [await channel.unary_unary("/shop.Shop/Unary")(request, timeout=WAIT_S)]
    answers.append(await channel.stream_unary("/shop.Shop/Client")(two(), timeout=WAIT_S))
    answers += [answer async for answer in channel.unary_stream("/shop.Shop/Server")(request, timeout=WAIT_S)]
    answers += [answer async for answer in channel.stream_stream("/shop.Shop/Bidi")(two(), timeout=WAIT_S)]
    return answers


async def test_every_message_of_every_kind_is_changed_both_ways_and_all_else_of_it_stays(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    write(
        rules,
        {"method": "shop.Shop/*", "direction": "request", "set": {"name": "asked"}},
        {"method": "shop.Shop/*", "direction": "response", "set": {"units": 7}, "headers": {"set": {"x-by": "loom"}}},
    )
    extra = any_pb2.Any()
    extra.Pack(duration_pb2.Duration(seconds=5))
    request = order(name="was", units=1, extra=extra).SerializeToString() + UNKNOWN
    async with mutating(rules) as (loom, shop, channel):
        answers = await call_all(channel, request)
        assert len(answers) == 6
        assert {(each.name, each.units) for each in map(parsed, shop.seen)} == {("asked", 1)}
        assert {(each.name, each.units) for each in map(parsed, answers)} == {("asked", 7)}
        assert all(parsed(each).extra.value == extra.value and UNKNOWN in each for each in [*shop.seen, *answers])
        call = channel.unary_unary("/shop.Shop/Unary")(request)
        await call
        assert dict(await call.initial_metadata())["x-by"] == "loom"
        await eventually(lambda: _counts(loom, 'loom_mutations_total{direction="request",method="/shop.Shop/Unary"}'))
        assert 'loom_mutations_failed_total{direction="request"} 0.0' in await metrics(loom)
        unary = await recorded(loom)
        assert unary.is_mutated
        assert [(each.direction.value, each.position, each.problem) for each in unary.altered] == [
            ("request", 0, ""),
            ("response", None, ""),
            ("response", 0, ""),
        ]
        loaded, *_ = from_line(to_line(unary, StreamKind.UNARY))
        assert [each[2:] for each in loaded.altered] == [each[2:] for each in unary.altered]
        assert json.loads(to_line(unary, StreamKind.UNARY))["mutated"]


async def recorded(loom: Loom) -> Record:
    """The newest call, once it has ended."""

    async def has_ended() -> bool:
        return not newest().is_live

    def newest() -> Record:
        return loom.capture.ring.newest_first()[0]

    await eventually(has_ended)
    return newest()


async def _counts(loom: Loom, sample: str) -> bool:
    return sample in await metrics(loom)


async def test_what_cannot_be_changed_passes_as_it_was_and_counts_as_that_alone(tmp_path: Path) -> None:
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
        with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
            await channel.unary_unary("/bogus.Service/Method")(b"", timeout=WAIT_S)
        assert "bogus" not in await metrics(loom)


async def test_rules_are_read_again_and_a_bad_file_leaves_the_old_ones_in_force(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    write(rules)
    async with mutating(rules) as (loom, _, channel):
        request = order(name="was").SerializeToString()
        unary = channel.unary_unary("/shop.Shop/Unary")

        async def name_is(wanted: str) -> bool:
            return bool(parsed(await unary(request, timeout=WAIT_S)).name == wanted)

        assert await name_is("was")
        write(rules, {"method": "shop.Shop/Unary", "direction": "request", "set": {"name": "changed"}})
        assert loom.mutations.reload() == ""
        await eventually(lambda: name_is("changed"))
        rules.write_text('[\n{"method": "x",\n"sett": {}}]')
        assert 'rules.json:3: rule 1: a rule has no "sett"; did you mean set?' in loom.mutations.reload()
        assert await name_is("changed")
        async with httpx.AsyncClient(timeout=WAIT_S) as http:
            state = (await http.get(f"http://{loom.ui}/api/state")).json()
        assert state["breaker"] == "closed"
        assert state["rules"]["problem"] == loom.mutations.problem
        assert [rule["method"] for rule in state["rules"]["rules"]] == ["shop.Shop/Unary"]
        write(rules)
        assert loom.mutations.reload() == ""
        await eventually(lambda: name_is("was"))


async def test_faults_come_to_a_share_of_the_calls_and_make_no_label_of_their_method(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    write(rules, {"method": "*", "abort": {"status": "ABORTED", "message": "by rule"}, "share": 0.5})
    async with mutating(rules) as (loom, shop, channel):
        aborted = 0
        for _ in range(60):
            call = channel.unary_unary("/shop.Shop/Unary")(b"", timeout=WAIT_S)
            aborted += await call.code() is grpc.StatusCode.ABORTED
        assert 0 < aborted < 60
        assert len(shop.seen) == 60 - aborted
        write(rules, {"method": "*", "abort": {"status": "NOT_FOUND"}, "delay": 1})
        loom.mutations.reload()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/bogus.Service/Method")(b"", timeout=WAIT_S)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert "bogus" not in await metrics(loom)


async def test_a_file_that_cannot_be_used_at_the_start_is_refused(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text("{")
    with pytest.raises(RulesError, match=r"rules\.json:1: not JSON"):
        async with mutating(rules):
            pass
