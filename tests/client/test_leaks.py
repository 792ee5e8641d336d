"""What a client leaves in its event loop: nothing, however its calls ended."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import Any

import grpc

from app.client.errors import CallError
from tests.client.fake_service import FakeService, details, failing, giving, held, serving, state, telling, to
from tests.faults.polling import until


async def test_no_task_is_left_of_calls_that_ended_in_any_way() -> None:
    never = asyncio.Event()
    service = FakeService()
    async with serving(service):
        before = set(asyncio.all_tasks())
        for _ in range(2):
            async with to(service) as client:
                service.answers = [giving(details())]
                await client.get(1)
                service.answers = [failing(grpc.StatusCode.UNAVAILABLE)]
                with contextlib.suppress(CallError):
                    await client.get(1)
                service.answers = [held(never, giving(details()))]
                with contextlib.suppress(CallError):
                    await client.get(1, timeout_s=0.05)
                for waiting in (client.get(1), client.import_templates([("n", "b")]), client.create("n", "b")):
                    call = asyncio.ensure_future(waiting)
                    reached = service.calls
                    await until(lambda reached=reached: service.calls > reached, "the call arrives")  # type: ignore[misc]
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                service.answers = [telling(state(1, 1))]
                async with aclosing(client.watch([1])) as watch:
                    await anext(watch)
                async with client.sync() as sync:
                    asked = asyncio.ensure_future(sync.get(1))
                    await asyncio.sleep(0)
                await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: not left(before), "all tasks of the client have ended", 30)


def left(before: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Tasks begun since, but for those of gRPC's server, which listens by one for each method."""
    return [task for task in asyncio.all_tasks() - before if "AioServer" not in repr(task)]
