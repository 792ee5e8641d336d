"""A stream's context whose client a test plays: it reads when it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.proto.template.v1.template_pb2 import SyncTemplatesRequest, SyncTemplatesResponse

PATIENCE_S = 10.0


class SlowClient:
    """It sends `requests`, as fast as they are taken, and holds up each write until it reads.

    `half_closes` says whether the stream of requests ends.
    """

    def __init__(self, requests: list[SyncTemplatesRequest], *, half_closes: bool = True) -> None:
        self._requests = requests
        self._half_closes = half_closes
        self.sent = 0
        """How many requests were taken from it."""
        self._answers: asyncio.Queue[SyncTemplatesResponse] = asyncio.Queue()
        self._reads = asyncio.Semaphore(0)

    async def requests(self) -> AsyncIterator[SyncTemplatesRequest]:
        for request in self._requests:
            self.sent += 1
            yield request
        if not self._half_closes:
            await asyncio.Event().wait()

    async def write(self, message: SyncTemplatesResponse) -> None:
        await self._reads.acquire()
        self._answers.put_nowait(message)

    async def read(self) -> SyncTemplatesResponse:
        self._reads.release()
        return await asyncio.wait_for(self._answers.get(), PATIENCE_S)
