"""A handful of reads over gRPC, so that Loom's page has something to show from the beginning."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import uvloop

from app.client.errors import ClientError
from app.client.templates import TemplateClient

HERD: Final = 12
"""Who read one template at the same moment."""
COLD_ID: Final = 1_000
"""The last of those that are there at first; the load test reads others."""
MISSING_ID: Final = 2_000_000_000
SECONDS: Final = 5.0
"""What they may take together."""


def first_calls(target: str) -> None:
    """A stampede on a cold key, a hit, a miss, and a watch that is left; how they end is for the page to say."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_calls(target))


async def _calls(target: str) -> None:
    with contextlib.suppress(ClientError, TimeoutError):
        async with asyncio.timeout(SECONDS), TemplateClient(target) as client:
            await asyncio.gather(*(client.get(COLD_ID) for _ in range(HERD)))
            await client.get(COLD_ID)
            with contextlib.suppress(ClientError):
                await client.get(MISSING_ID)
            async with contextlib.aclosing(client.watch([COLD_ID])) as news:
                await anext(news)
