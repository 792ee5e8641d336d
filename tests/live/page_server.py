"""A server that tells the live page whatever a test wants, and keeps what the page asks of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

STATIC: Final = Path(__file__).parents[2] / "app" / "live" / "static"
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NOW: Final = 1_790_000_000.0
ACTIONS: Final = (
    "stampede",
    "expire",
    "change",
    "redis_away",
    "redis_back",
    "postgres_slow",
    "postgres_normal",
    "mode",
)
CONTROLS: Final = {
    "actions": list(ACTIONS),
    "modes": ["none", "mutex", "singleflight", "fleet", "full"],
    "max_callers": 1000,
    "state": {"redis": "there", "postgres": "normal"},
}


def app(mode: str = "full", **values: Any) -> dict[str, Any]:
    """What a sample says of one app, in a second of 100 requests that L1 answered."""
    return {
        "mode": mode,
        "up": True,
        "replicas": 1,
        "requests_s": 100.0,
        "loads_s": 1.0,
        "least_loads_s": 1.0,
        "hits_s": {"l1": 99.0, "l2": 0.0, "origin": 1.0, "stale": 0.0},
        "shared_s": 0.0,
        "in_flight": 2,
        "p50_ms": 0.21,
        "p95_ms": 1.1,
        "p99_ms": 3.0,
        "stampede_factor": 1.0,
        **values,
    }


def sample(second: float, **apps: dict[str, Any]) -> dict[str, Any]:
    """A sample, with `_` for `-` in the apps' names; by default of the protected app alone."""
    named = {name.replace("_", "-"): values for name, values in apps.items()}
    return {"at": NOW + second, "apps": named or {"app": app()}}


def stampede(name: str = "app", mode: str = "full", *, callers: int = 200, lanes: int | None = None) -> dict[str, Any]:
    """One that a single load serves; in mode `none` each caller loads, ten at a time."""
    shown = [_lane(n, mode) for n in range(1, (callers if lanes is None else lanes) + 1)]
    return {
        "app": name,
        "mode": mode,
        "key": "77",
        "at": NOW,
        "callers": callers,
        "loads": callers if mode == "none" else 1,
        "took_ms": max(lane["left_ms"] for lane in shown),
        "lanes": shown,
    }


def _lane(n: int, mode: str) -> dict[str, Any]:
    came = n * 0.05
    looked = {"on": "l2", "from_ms": came, "to_ms": came + 0.8}
    if mode == "none":
        left = 53.0 * (1 + n // 10)
        return _left(n, came, left, "loaded", looked, {"on": "load", "from_ms": came + 0.8, "to_ms": left})
    end, on = ("loaded", "load") if n == 1 else ("shared", "flight")
    waits = [{"on": "l1", "from_ms": came, "to_ms": came + 0.01}, {"on": on, "from_ms": came + 0.02, "to_ms": 53.0}]
    return _left(n, came, 53.1, end, *waits)


def _left(n: int, came_ms: float, left_ms: float, end: str, *waits: dict[str, Any]) -> dict[str, Any]:
    return {"n": n, "came_ms": came_ms, "left_ms": left_ms, "end": end, "waits": list(waits)}


class PageServer:
    """Sends events to every page that looks; a page that comes gets `hello` and `history` first."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] = {
            "version": "0.1.0",
            "app": "full",
            "interval_s": 1,
            "controls": None,
            "reports": [],
        }
        self.history: dict[str, Any] = {"samples": [], "marks": []}
        self.asked: list[tuple[str, Any]] = []
        self.answer: tuple[int, dict[str, Any]] = (200, {"done": "It is done."})
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.streams = 0
        self.refuses = False
        self.port = 0
        self._pages: set[asyncio.Queue[str | None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def send(self, event: str, data: Mapping[str, Any] | str) -> None:
        line = data if isinstance(data, str) else json.dumps(data)
        for page in self._pages:
            page.put_nowait(f"event: {event}\ndata: {line}\n\n")

    def hang_up(self) -> None:
        for page in self._pages:
            page.put_nowait(None)

    def application(self) -> Starlette:
        async def page(_: Request) -> Response:
            return FileResponse(STATIC / "index.html", headers={"content-security-policy": CSP})

        async def events(_: Request) -> Response:
            if self.refuses:
                return JSONResponse({"title": "draining"}, status_code=503)
            self.streams += 1
            return StreamingResponse(self._stream(), media_type="text/event-stream")

        async def act(request: Request) -> Response:
            assert request.headers["content-type"] == "application/json"
            self.asked.append((request.path_params["name"], await request.json()))
            await self.may_answer.wait()
            status, body = self.answer
            return JSONResponse(body, status_code=status)

        return Starlette(
            routes=[
                Route("/", page),
                Route("/events", events),
                Route("/actions/{name}", act, methods=["POST"]),
                Mount("/page", StaticFiles(directory=STATIC)),
            ]
        )

    async def _stream(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(10_000)
        self._pages.add(queue)
        try:
            yield "retry: 200\n\n"
            for event, data in [("hello", self.hello), ("history", self.history)]:
                yield f"event: {event}\ndata: {json.dumps(data)}\n\n"
            while (told := await queue.get()) is not None:
                yield told
        finally:
            self._pages.discard(queue)


@asynccontextmanager
async def serving(server: PageServer) -> AsyncIterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]
        config = uvicorn.Config(server.application(), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        runner = uvicorn.Server(config)
        running = asyncio.create_task(runner.serve([listener]))
        try:
            yield
        finally:
            runner.should_exit = True
            server.hang_up()
            await running
