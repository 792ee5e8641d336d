"""The shop's clients, who never tire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from app.loom.demo.backend import Shop

ROUND_S: Final = 2.0
"""Between two rounds."""
TIMEOUT_S: Final = 10.0
HERD: Final = 12
"""Who ask for one item at the same moment."""
IMPATIENT_S: Final = 0.3

_log = logging.getLogger(__name__)


@asynccontextmanager
async def flowing(target: str, shop: Shop) -> AsyncIterator[None]:
    """Rounds of traffic to `target`, until left."""
    task = asyncio.create_task(_rounds(target, shop), name="demo-traffic")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def one_round(channel: grpc.aio.Channel, shop: Shop) -> None:
    """A call of each sort, one after the other. Raises `AioRpcError` where one fails that should not."""
    clients = _Clients(channel, shop)
    for visit in clients.visits():
        await visit()


async def _rounds(target: str, shop: Shop) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        clients = _Clients(channel, shop)
        while True:
            for visit in clients.visits():
                try:  # one that fails, as by a rule, keeps the others from nothing
                    await visit()
                except grpc.aio.AioRpcError as error:
                    _log.warning("the demo's clients: %s: %s", error.code().name, error.details())
                except asyncio.InvalidStateError as error:  # the call had ended before it was written to
                    _log.warning("the demo's clients: %s", error)
            await asyncio.sleep(ROUND_S)


class _Clients:
    def __init__(self, channel: grpc.aio.Channel, shop: Shop) -> None:
        self._channel = channel
        self._shop = shop
        self._new = shop.message

    def visits(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self._order,
            self._stampede,
            self._watch,
            self._take_stock,
            self._chat,
            self._ask_for_what_there_is_not,
            self._order_nothing,
            self._order_what_is_sold_out,
            self._watch_what_breaks,
            self._leave_early,
            self._lose_patience,
            self._wait_for_the_report,
        ]

    async def _order(self) -> None:
        metadata = (("authorization", "Bearer demo-secret"), ("x-tenant", "blue"))
        order = self._new("OrderRequest", sku="tea-1", count=2)
        await self._call("Order")(order, timeout=TIMEOUT_S, metadata=metadata)

    async def _stampede(self) -> None:
        ask = self._call("GetItem")
        await asyncio.gather(*(ask(self._new("GetItemRequest", sku="tea-1"), timeout=TIMEOUT_S) for _ in range(HERD)))

    async def _watch(self) -> None:
        await self._read("WatchPrice", self._new("WatchPriceRequest", sku="tea-1", most=4))

    async def _take_stock(self) -> None:
        counts = (self._new("Count", sku=f"tea-{number}", counted=3 * number) for number in range(1, 6))
        await self._call("TakeStock")(counts, timeout=TIMEOUT_S)

    async def _chat(self) -> None:
        call = self._call("Chat")(timeout=TIMEOUT_S)
        for text in ("Good morning", "Is there green tea?", "Thank you"):
            await call.write(self._new("Line", **{"from": "Ada", "text": text}))
            await call.read()
        await call.done_writing()
        await call.read()

    async def _ask_for_what_there_is_not(self) -> None:
        await self._fail("GetItem", self._new("GetItemRequest", sku="coffee"))

    async def _order_nothing(self) -> None:
        await self._fail("Order", self._new("OrderRequest", sku="tea-1", count=0))

    async def _order_what_is_sold_out(self) -> None:
        await self._fail("Order", self._new("OrderRequest", sku="tea-2", count=1))

    async def _watch_what_breaks(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._read("WatchPrice", self._new("WatchPriceRequest", sku="tea-broken", most=4))

    async def _leave_early(self) -> None:
        call = self._call("WatchPrice")(self._new("WatchPriceRequest", sku="tea-2", most=1_000), timeout=TIMEOUT_S)
        await call.read()
        await call.read()
        call.cancel()

    async def _lose_patience(self) -> None:
        await self._fail("MakeReport", self._new("MakeReportRequest", year=2025), timeout_s=IMPATIENT_S)

    async def _wait_for_the_report(self) -> None:
        report = self._new("MakeReportRequest", year=2025)
        await self._call("MakeReport")(report, timeout=TIMEOUT_S)

    def _call(self, name: str) -> Any:
        return self._shop.call(self._channel, name)

    async def _read(self, name: str, request: Any) -> None:
        async for _ in self._call(name)(request, timeout=TIMEOUT_S):
            pass

    async def _fail(self, name: str, request: Any, timeout_s: float = TIMEOUT_S) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._call(name)(request, timeout=timeout_s)
