"""Rules on real calls: what they change, what they leave, and how they come and go."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from app.loom.bootstrap import Config, HostPort, Loom, running
from app.loom.call import Direction
from app.loom.capture import CaptureConfig
from app.loom.metrics import LoomMetrics
from app.loom.mutation import Mutations
from app.loom.recording.record import Record
from app.loom.rules.file import RulesError
from app.loom.schema.cache import SchemaCache
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
async def mutating(path: Path, compression: Any = None) -> AsyncIterator[tuple[Loom, Shop, grpc.aio.Channel]]:
    """Loom with the rules in `path`, between a channel and a backend without reflection."""
    shop = Shop()
    server = grpc.aio.server(compression=compression)
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
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("app.loom.mutation.SCHEMA_S", WAIT_S)
            async with running(config) as loom, grpc.aio.insecure_channel(str(loom.listen)) as channel:
                yield loom, shop, channel
    finally:
        await server.stop(0)


async def metrics(loom: Loom) -> str:
    async with httpx.AsyncClient(timeout=WAIT_S) as http:
        return (await http.get(f"http://{loom.ui}/metrics")).text


async def call_all(channel: grpc.aio.Channel, request: bytes, compression: Any = None) -> list[bytes]:
    """One call of each kind, two requests where it streams; the answers."""

    async def two() -> AsyncIterator[bytes]:
        yield request
        yield request

    how: dict[str, Any] = {"timeout": WAIT_S, "compression": compression}
    answers = [await channel.unary_unary("/shop.Shop/Unary")(request, **how)]
    answers.append(await channel.stream_unary("/shop.Shop/Client")(two(), **how))
    answers += [answer async for answer in channel.unary_stream("/shop.Shop/Server")(request, **how)]
    answers += [answer async for answer in channel.stream_stream("/shop.Shop/Bidi")(two(), **how)]
    return answers


async def recorded(loom: Loom) -> Record:
    """The newest call, once it has ended."""

    async def has_ended() -> bool:
        return not newest().is_live

    def newest() -> Record:
        return loom.capture.ring.newest_first()[0]

    await eventually(has_ended)
    return newest()


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


async def test_a_message_is_changed_though_this_process_could_not_run_while_the_schema_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.loom.mutation.SCHEMA_S", 0.1)
    loop = asyncio.get_running_loop()
    fetched = threading.Event()

    def hold_up() -> None:
        assert fetched.wait(WAIT_S)
        time.sleep(0.2)

    async def fetch() -> Schema:
        loop.call_soon(hold_up)
        await loop.run_in_executor(None, fetched.set)
        for _ in range(5):  # it is read in parts
            await asyncio.sleep(0)
        return SCHEMA_FILES

    rules = tmp_path / "rules.json"
    write(rules, {"method": "*", "direction": "request", "set": {"name": "changed"}})
    mutations = Mutations(rules, LoomMetrics())
    mutations.schemas = SchemaCache(fetch)
    call = mutations.for_call(1, "/shop.Shop/Unary")
    assert call is not None
    assert call.hold is not None
    await call.hold()
    changed = call.message(Direction.REQUEST, order(name="was").SerializeToString())
    assert changed is not None
    assert parsed(changed).name == "changed"
    await mutations.schemas.aclose()


async def test_a_file_that_cannot_be_used_at_the_start_is_refused(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text("{")
    with pytest.raises(RulesError, match=r"rules\.json:1: not JSON"):
        async with mutating(rules):
            pass
