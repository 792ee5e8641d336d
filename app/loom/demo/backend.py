"""A shop, served by gRPC, that tells by reflection what it speaks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha import reflection

from app.loom.schema.files import from_proto_dir
from app.loom.schema.schema import Method, Schema

SERVICE: Final = "shop.v1.Shop"
LOAD_S: Final = 0.25
"""What finding an item takes: long enough for a herd to gather."""
REPORT_S: Final = 1.5
PRICE_EVERY_S: Final = 0.2
STOP_S: Final = 1.0

_ITEMS: Final[Mapping[str, tuple[str, int]]] = {"tea-1": ("Green tea", 450), "tea-2": ("Earl Grey", 390)}
_SOLD_OUT: Final = "tea-2"
_BROKEN: Final = "tea-broken"


@dataclass(frozen=True, slots=True)
class Shop:
    """What the shop speaks."""

    schema: Schema

    @classmethod
    def load(cls) -> Shop:
        """Compiles its .proto file, which takes a moment. Raises `SchemaFileError` where that can't be done."""
        return cls(from_proto_dir(Path(__file__).parent))

    def message(self, name: str, /, **fields: Any) -> Message:
        """One of its messages."""
        return self._class(name)(**fields)

    def method(self, name: str) -> Method:
        found = self.schema.method(f"/{SERVICE}/{name}")
        if found is None:
            raise KeyError(name)
        return found

    def call(self, channel: grpc.aio.Channel, name: str) -> Any:
        """A method of it, for clients."""
        method = self.method(name)
        make = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }[method.client_streams, method.server_streams]
        parse = message_factory.GetMessageClass(method.output).FromString
        return make(method.path, request_serializer=_serialized, response_deserializer=parse)

    def handler(self, name: str, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
        """A method of it, for servers."""
        method = self.method(name)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streams, method.server_streams]
        parse = message_factory.GetMessageClass(method.input).FromString
        return make(behaviour, request_deserializer=parse, response_serializer=_serialized)

    def _class(self, name: str) -> type[Message]:
        found = self.schema.type_named(f"shop.v1.{name}")
        if found is None:
            raise KeyError(name)
        return message_factory.GetMessageClass(found)


@asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[int]:
    """The backend, on a free port of loopback."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, _Backend(shop).handlers()),))
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=shop.schema.pool)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(STOP_S)


class _Backend:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._new = shop.message
        self._orders = itertools.count(1)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        behaviours: dict[str, Callable[..., Any]] = {
            "GetItem": self._get_item,
            "Order": self._order,
            "MakeReport": self._make_report,
            "WatchPrice": self._watch_price,
            "TakeStock": self._take_stock,
            "Chat": self._chat,
        }
        return {name: self._shop.handler(name, behaviour) for name, behaviour in behaviours.items()}

    async def _get_item(self, request: Any, context: Any) -> Message:
        name, cents = await self._find(request.sku, context)
        await asyncio.sleep(LOAD_S)
        price = self._new("Money", currency="EUR", cents=cents)
        return self._new(
            "Item",
            sku=request.sku,
            name=name,
            price=price,
            in_stock=0 if request.sku == _SOLD_OUT else 12,
            tags=["tea", "loose"],
            names={"de": "Grüner Tee", "ja": "緑茶"},
            changed_at=_now(),
        )

    async def _order(self, request: Any, context: Any) -> Message:
        if request.count < 1:
            violation = BadRequest.FieldViolation(field="count", description="1 at least")
            problem = BadRequest(field_violations=[violation])
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "count: 1 at least", problem)
        _, cents = await self._find(request.sku, context)
        if request.sku == _SOLD_OUT:
            again = RetryInfo(retry_delay=Duration(seconds=30))
            why = ErrorInfo(reason="SOLD_OUT", domain="shop.example", metadata={"sku": request.sku})
            await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{request.sku} is sold out", why, again)
        total = self._new("Money", currency="EUR", cents=cents * request.count)
        context.set_trailing_metadata((("x-shop-till", "7"),))
        return self._new("Receipt", number=f"R{next(self._orders):05}", total=total)

    async def _make_report(self, request: Any, _context: Any) -> Message:
        await asyncio.sleep(REPORT_S)
        turnover = self._new("Money", currency="EUR", cents=123_456_789)
        return self._new("Report", year=request.year, turnover=turnover, chart=bytes(range(256)) * 8)

    async def _watch_price(self, request: Any, context: Any) -> AsyncIterator[Message]:
        for number in range(request.most):
            if request.sku == _BROKEN and number == 2:
                await _refuse(context, grpc.StatusCode.UNAVAILABLE, "the exchange has hung up")
            price = self._new("Money", currency="EUR", cents=450 + number)
            yield self._new("Price", sku=request.sku, price=price, at=_now())
            await asyncio.sleep(PRICE_EVERY_S)

    async def _take_stock(self, counts: AsyncIterator[Any], _context: Any) -> Message:
        counted = [count.counted async for count in counts]
        return self._new("Stock", items=len(counted), total=sum(counted))

    async def _chat(self, lines: AsyncIterator[Any], _context: Any) -> AsyncIterator[Message]:
        async for line in lines:
            yield self._new("Line", **{"from": "shop", "text": f"You said: {line.text}"})

    async def _find(self, sku: str, context: Any) -> tuple[str, int]:
        found = _ITEMS.get(sku)
        if found is None:
            why = ErrorInfo(reason="NO_SUCH_ITEM", domain="shop.example", metadata={"sku": sku})
            await _refuse(context, grpc.StatusCode.NOT_FOUND, f"no item {sku!r}", why)
        return found


async def _refuse(context: Any, code: grpc.StatusCode, message: str, *details: Message) -> NoReturn:
    status = Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort raises")


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _now() -> datetime:
    return datetime.now(UTC)  # which a Timestamp of whatever pool is made from
