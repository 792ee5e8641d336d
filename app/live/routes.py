"""The live page's routes."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from app.api.http import problems
from app.live.greeting import Greeting
from app.live.hub import Kind, TooManySubscribersError
from app.live.live import Live
from app.live.stream import EventStream

STATIC: Final = Path(__file__).parent / "static"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
EVENTS: Final = "/events"
STREAMS: Final = frozenset({EVENTS})


def page_routes() -> APIRouter:
    """The page and its files."""
    router = APIRouter(include_in_schema=False)
    files = StaticFiles(directory=STATIC)

    async def file(request: Request, path: str) -> Response:
        response = await files.get_response(path, request.scope)
        response.headers.update(HEADERS)
        return response

    @router.get("/")
    @router.head("/")
    async def page(request: Request) -> Response:
        return await file(request, "index.html")

    @router.get("/page/{path:path}")
    @router.head("/page/{path:path}")
    async def page_file(request: Request) -> Response:
        return await file(request, request.path_params["path"])

    return router


def event_routes(live: Live, greeting: Greeting) -> APIRouter:
    """What the page shows, as it comes."""
    router = APIRouter(include_in_schema=False)

    @router.get(EVENTS)
    async def events(request: Request) -> Response:
        kind = Kind.PEER if request.query_params.get("for") == "peer" else Kind.PAGE
        hello = await greeting.fields() if kind is Kind.PAGE else {}
        try:
            subscriber = live.subscribe(kind, hello)
        except TooManySubscribersError as error:
            return problems.problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "too_many_streams", str(error), headers={"Retry-After": "5"}
            )
        return EventStream(subscriber, live.hub.unsubscribe)

    return router
