"""A Loom as its users have it, in front of a backend: called by gRPC, and asked by HTTP what it has seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from app.loom.bootstrap import Loom
from app.loom.capture import CaptureConfig
from tests.loom.account import WAIT_S, eventually
from tests.loom.conftest import UNLIMITED
from tests.loom.test_capture import loom

ALONE = [*UNLIMITED, ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
"""A channel's options that give it a connection of its own."""


@dataclass
class Front:
    """Loom, a channel to it, and its HTTP side."""

    loom: Loom
    channel: grpc.aio.Channel
    http: httpx.AsyncClient

    @property
    def target(self) -> str:
        return str(self.loom.listen)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def metrics(self) -> str:
        return (await self.http.get("/metrics")).text

    async def ended(self, count: int) -> list[Any]:
        """All rows, oldest first, once there are so many and none is under way."""
        rows: list[Any] = []

        async def are_over() -> bool:
            nonlocal rows
            rows = (await self.get("/api/calls"))["calls"]
            return len(rows) >= count and not any(row["live"] for row in rows)

        await eventually(are_over)
        return rows[::-1]

    async def one(self) -> Any:
        """All that is told of the only call."""
        (row,) = await self.ended(1)
        return await self.get(f"/api/calls/{row['id']}")


@asynccontextmanager
async def fronted(port: int, rules: Path | None = None, capture: CaptureConfig | None = None) -> AsyncIterator[Front]:
    async with (
        loom(port, capture, rules=rules) as made,
        grpc.aio.insecure_channel(str(made.listen), options=ALONE) as channel,
        httpx.AsyncClient(base_url=f"http://{made.ui}", timeout=WAIT_S) as http,
    ):
        yield Front(made, channel, http)
