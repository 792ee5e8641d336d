"""WatchTemplates: the state of each template now, then every change, to a caller who reads at a pace of its own."""

from __future__ import annotations

import grpc

from app.api.grpc import convert
from app.proto.template.v1.template_pb2 import WatchTemplatesRequest, WatchTemplatesResponse
from app.watching.watch import News, Watch


async def watch_templates(
    watch: Watch,
    request: WatchTemplatesRequest,
    context: grpc.aio.ServicerContext[WatchTemplatesRequest, WatchTemplatesResponse],
) -> None:
    """Ends by an error only. While the caller doesn't read, the write waits, and the watch keeps ids, no messages."""
    with watch:
        watch.add(request.ids)
        while True:
            await context.write(encoded(await watch.next()))


def encoded(news: News) -> bytes:
    """The message that tells the news. Of those who have missed nothing all get the same bytes, made once."""
    state = news.state
    if state.wire is None:
        known = convert.state(state.id, state.version, state.payload)
        state.wire = WatchTemplatesResponse(state=known).SerializeToString()
    if not news.skipped:
        return state.wire
    # Messages that follow each other on the wire are one, with the fields of both.
    return state.wire + WatchTemplatesResponse(versions_skipped=news.skipped).SerializeToString()
