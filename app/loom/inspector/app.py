"""The inspector's routes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from app.loom.capture import Capture
from app.loom.decoding import Decoder, exported
from app.loom.inspector.rows import SharedRows
from app.loom.inspector.search import BATCH, Search, Wanted, changed_since
from app.loom.inspector.stats import Stats
from app.loom.inspector.views import Views
from app.loom.recording.feed import Subscriber, TooManySubscribersError
from app.loom.recording.record import Record
from app.loom.schema.schema import Schema

HEARTBEAT_S: Final = 10.0
"""A stream that has nothing to tell says so that often, so that both ends notice when the other is gone."""
MAX_PAGE: Final = 500
MAX_EDIT_BYTES: Final = 16 << 20
STATIC: Final = Path(__file__).parent / "static"
_UTF8: Final = ("utf-8", "backslashreplace")

Replay = Callable[[Record, Any], Awaitable[Mapping[str, Any]]]
"""Makes a recorded call again, edited as the second argument (the request's JSON body, or `None`) says; returns what
the page shows. Raises `ValueError` for an edit that does not fit, or a call that can't be made."""
Reload = Callable[[], str]
"""Reads the rules again; returns why they were refused, or nothing."""
State = Callable[[], Mapping[str, Any]]
"""What else there is to know: the breaker's state, the rules."""


def inspector(
    capture: Capture,
    views: Views,
    stats: Stats,
    routes: list[Route],
    thread: Executor,
    *,
    replay: Replay | None = None,
    state: State = dict,
    reload: Reload | None = None,
) -> Starlette:
    """The application, without its guard. `routes` are those of the probes. `thread` does what takes
    long; with one worker, whoever asks for much waits for himself. Replaying is there where `replay` is."""
    ring, feed = capture.ring, capture.feed
    shared = SharedRows(views.row_text)

    async def aside(work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)

    def record(request: Request) -> Record:
        found = ring.get(request.path_params["id"])
        if found is None:
            raise HTTPException(404, "no such call is kept: the oldest go first, and clearing forgets all")
        return found

    async def page(_: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def calls(request: Request) -> Response:
        limit = _limit(request)
        found = ring.newest_first()
        before = request.query_params.get("before")
        if before is not None:
            ids = [each.id for each in found]
            if before not in ids:
                raise HTTPException(404, "the call that 'before' names is not kept any more; begin anew")
            found = found[ids.index(before) + 1 :]
        rows = [views.row(each) for each in found[:limit]]
        following = rows[-1]["id"] if len(found) > limit else None
        return JSONResponse({"calls": rows, "next": following, "kept": len(ring), "evicted": ring.evicted})

    async def call(request: Request) -> Response:
        found = record(request)
        schema = views.schema(found)
        body: bytes = await aside(lambda: json.dumps(views.detail(found, schema), ensure_ascii=False).encode(*_UTF8))
        return Response(body, media_type="application/json")

    async def find(request: Request) -> Response:
        asked = request.query_params
        try:
            wanted = Wanted.of(asked.get("body", ""), asked.get("metadata", ""))
            since = _seconds(asked.get("since", "0"))
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        at, held = time.time(), list(ring.held())
        records = changed_since(held, since)
        search, searched, is_whole = Search(wanted), 0, True
        while is_whole and searched < len(records) and not await request.is_disconnected():
            batch = [(each, views.schema(each)) for each in records[searched : searched + BATCH]]
            is_whole = await aside(search.look_through, batch)
            searched += len(batch)
        oldest = search.last if not is_whole else held[-1] if held else None
        return JSONResponse(
            {
                "ids": search.ids,
                "at": at,
                "oldest": None if oldest is None else views.row(oldest)["timestamp"],
                "isWhole": is_whole,
            }
        )

    async def stream(_: Request) -> Response:
        try:
            subscriber = feed.subscribe()
        except TooManySubscribersError as error:
            raise HTTPException(503, str(error)) from error
        events = _events(subscriber, lambda: shared.text if len(feed) > 1 else views.row_text)
        return StreamingResponse(events, media_type="text/event-stream")

    async def clear(_: Request) -> Response:
        ring.clear()
        return JSONResponse({"kept": len(ring)})

    async def export(_: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            for each in reversed(ring.newest_first()):
                yield await aside(_line, each, views.schema(each))

        disposition = {"content-disposition": 'attachment; filename="loom.ndjson"'}
        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=disposition)

    async def methods(_: Request) -> Response:
        return JSONResponse(stats.document())

    async def whole(_: Request) -> Response:
        return JSONResponse(
            {
                "kept": len(ring),
                "keptBytes": ring.size_bytes,
                "evicted": ring.evicted,
                "olderHeld": ring.older,
                "live": capture.recorder.live,
                "watching": len(feed),
                "dropped": {
                    "recorder": capture.recorder.dropped,
                    "feed": feed.left_out,
                    "session": None if capture.session is None else capture.session.dropped,
                },
                "schemaProblem": capture.schemas.problem,
                "canReplay": replay is not None,
                **state(),
            }
        )

    async def again(request: Request) -> Response:
        found = record(request)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_EDIT_BYTES:
                raise HTTPException(413, f"an edited call has {MAX_EDIT_BYTES >> 20} MiB at most")
        try:
            edited = json.loads(body) if body else None
            shown = dict(await replay(found, edited)) if replay else {}
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        except RecursionError as error:
            raise HTTPException(400, "nested too deeply") from error
        return JSONResponse(shown)

    async def reread(_: Request) -> Response:
        problem = reload() if reload else ""
        if problem:
            raise HTTPException(409, f"the rules stay as they were: {problem}")
        return JSONResponse(state())

    own = [
        Route("/", page),
        Route("/api/calls", calls),
        Route("/api/calls/{id}", call),
        Route("/api/search", find),
        Route("/api/stream", stream),
        Route("/api/clear", clear, methods=["POST"]),
        Route("/api/export", export),
        Route("/api/methods", methods),
        Route("/api/state", whole),
        *([Route("/api/replay/{id}", again, methods=["POST"])] if replay else []),
        *([Route("/api/rules/reload", reread, methods=["POST"])] if reload else []),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=[*routes, *own], exception_handlers={HTTPException: _failed})


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"since: {text[:40]!r} is no number of seconds since the epoch") from None


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(MAX_PAGE))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise HTTPException(400, f"limit: {text[:40]!r} is no number from 1 to {MAX_PAGE}")
    return min(int(text), MAX_PAGE)


async def _events(subscriber: Subscriber, to_text: Callable[[], Callable[[Record], str]]) -> AsyncIterator[bytes]:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): `calls`, with rows that are
    new or have changed, and how many more there were; comments while there is nothing. `to_text` gives, for each batch,
    what makes its rows."""
    async with subscriber:
        yield b": watching\n\n"
        while True:
            try:
                batch = await asyncio.wait_for(anext(subscriber), HEARTBEAT_S)
            except TimeoutError:
                yield b": nothing new\n\n"
                continue
            except StopAsyncIteration:
                return
            rows = ",".join(map(to_text(), batch.records))
            yield f'event: calls\ndata: {{"calls":[{rows}],"leftOut":{batch.left_out}}}\n\n'.encode(*_UTF8)


def _line(record: Record, schema: Schema | None) -> bytes:
    fields = exported(record, Decoder(lambda _hash: schema, schema))
    return json.dumps(fields, ensure_ascii=False).encode(*_UTF8) + b"\n"


async def _failed(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, status_code=error.status_code)
    return JSONResponse({"error": "the inspector failed; its log says why"}, status_code=500)
