"""Giving up work for a client that has gone. ASGI servers do not cancel a handler when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientDisconnectedError(Exception):
    """The client closed its connection before it had its answer; nobody is left to answer."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The value of `work`, which is cancelled when the client goes. For requests whose body is read or not wanted.

    Raises `ClientDisconnectedError` where the client went first.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - coroutines run in tasks
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        # Somebody else may have cancelled too, and then the cancellation is theirs.
        if gone and task.uncancel() == 0:
            raise ClientDisconnectedError from None
        raise
    finally:
        watcher.cancel()
