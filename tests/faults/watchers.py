"""Callers of WatchTemplates and SyncTemplates, on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc

from app.proto.template.v1.template_pb2 import (
    SyncTemplatesRequest,
    SyncTemplatesResponse,
    WatchTemplatesRequest,
    WatchTemplatesResponse,
)
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub

PATIENCE_S = 20.0
"""How long a test waits for what is sure to come."""


class Told(NamedTuple):
    """One state, as a caller got it; `name` is `None` where there is no template."""

    id: int
    version: int
    name: str | None
    skipped: int


def told(response: WatchTemplatesResponse) -> Told:
    state = response.state
    name = None
    if state.HasField("template"):
        assert (state.template.id, state.template.version) == (state.id, state.version)
        name = state.template.name
    return Told(state.id, state.version, name, response.versions_skipped)


class Watcher:
    """One WatchTemplates call."""

    def __init__(self, channel: grpc.aio.Channel, ids: Sequence[int], timeout: float | None = None) -> None:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        self.call: Any = stub.WatchTemplates(WatchTemplatesRequest(ids=ids), timeout=timeout)

    async def next(self) -> Told:
        """What is told next; raises `AssertionError` where the call has ended."""
        response = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        assert response is not grpc.aio.EOF, "the watch has ended"
        return told(response)

    async def take(self, count: int) -> list[Told]:
        return [await self.next() for _ in range(count)]

    async def until(self, version: int, template_id: int | None = None) -> list[Told]:
        """All that is told up to the version of the id, or of the one watched."""
        found = [await self.next()]
        while found[-1].version < version or (template_id is not None and found[-1].id != template_id):
            found.append(await self.next())
        return found

    async def hears_nothing(self, seconds: float = 0.2) -> bool:
        """Whether nothing is told for so long. Then the watch is of no more use: the read cannot be taken back."""
        reading = asyncio.ensure_future(self.call.read())
        done, _ = await asyncio.wait({reading}, timeout=seconds)
        self.call.cancel()
        await asyncio.wait({reading})
        return not done

    async def ended(self) -> grpc.aio.AioRpcError:
        """How the call ends, whatever is told until then."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
                status = await self.call.code()
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError(f"the watch ended by {status}")


class Syncer:
    """One SyncTemplates call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        self.call: Any = stub.SyncTemplates()

    async def get(self, tag: int, template_id: int) -> None:
        await self.send(SyncTemplatesRequest(tag=tag, get=SyncTemplatesRequest.Get(id=template_id)))

    async def subscribe(self, tag: int, *ids: int) -> None:
        await self.send(SyncTemplatesRequest(tag=tag, subscribe=SyncTemplatesRequest.Subscribe(ids=ids)))

    async def unsubscribe(self, tag: int, *ids: int) -> None:
        await self.send(SyncTemplatesRequest(tag=tag, unsubscribe=SyncTemplatesRequest.Unsubscribe(ids=ids)))

    async def send(self, request: SyncTemplatesRequest) -> None:
        await asyncio.wait_for(self.call.write(request), PATIENCE_S)

    async def next(self) -> SyncTemplatesResponse | None:
        """The next answer; `None` at the stream's end."""
        response = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        return None if response is grpc.aio.EOF else response

    async def news(self) -> Told:
        """The next answer, which is news."""
        response = await self.next()
        assert response is not None
        assert (response.tag, response.WhichOneof("answer")) == (0, "state"), response
        return told(response.state)

    async def done(self, tag: int) -> None:
        """The next answer is that this request was carried out."""
        response = await self.next()
        assert response is not None
        assert (response.tag, response.WhichOneof("answer")) == (tag, "done"), response


@asynccontextmanager
async def channel_to(port: int) -> AsyncIterator[grpc.aio.Channel]:
    """One connection that no other channel shares."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel
