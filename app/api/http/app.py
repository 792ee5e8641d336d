"""The HTTP application, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from opentelemetry.trace import Tracer
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from app.api.http import problems
from app.api.http.disconnect import ClientDisconnectedError
from app.api.http.edge import UNCOUNTED, Edge
from app.api.http.hits import Fresh, HitPath
from app.api.http.parameters import cache_control
from app.api.http.reads import Reads, on_disconnect, reader
from app.api.http.routes import docs_routes, probe_routes, template_routes
from app.api.http.schemas import Problem
from app.api.http.tracing import UNTRACED, TracedApp
from app.domain.errors import DomainError
from app.health import Health
from app.service import TemplateService
from app.telemetry.metrics import Metrics

STATIC = Path(__file__).parent / "static"


def create_app(
    service: TemplateService,
    *,
    health: Health,
    metrics: Metrics,
    version: str,
    max_body_bytes: int,
    max_age_s: int,
    receive_timeout_s: float,
    fresh: Fresh | None = None,
    tracer: Tracer | None = None,
    pages: Sequence[APIRouter] = (),
    streams: frozenset[str] = frozenset(),
) -> ASGIApp:
    """The ASGI application over `service`.

    `max_age_s` of 0 has clients revalidate each time; `receive_timeout_s` is how long a request's body may take.
    `fresh`, where given, tells what is held, which is answered at once. With a `tracer` each request is a span.
    `pages` are routes for people, beside the API. Those of the paths in `streams` last as long as their clients look:
    they are no requests to be counted, timed or waited for.
    """
    cacheable = cache_control(max_age_s)
    read = reader(service, cache_control=cacheable)
    title, description_path = "Template service", "/openapi.json"
    api = FastAPI(
        title=title,
        version=version,
        description="Templates, read through a cache that is protected against stampedes.",
        openapi_url=description_path,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # The framework's own spans would begin behind the edge, and so leave out all hits.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        exception_handlers={
            DomainError: problems.on_error,
            problems.RequestError: problems.on_error,
            ClientDisconnectedError: on_disconnect,
            Exception: _on_bug,
        },
    )
    routers = [
        template_routes(service, read, max_body_bytes=max_body_bytes, receive_timeout_s=receive_timeout_s),
        probe_routes(health, metrics),
        docs_routes(title),
        *pages,
    ]
    for router in routers:
        api.include_router(router)
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    api.mount("/docs/static", StaticFiles(directory=STATIC), name="static")

    async def on_http_exception(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            error.headers = {"Allow": ", ".join(_methods_for(routes, request))}
        return await problems.on_http_exception(request, error)

    api.add_exception_handler(HTTPException, on_http_exception)

    api.openapi = partial(_openapi, api)  # type: ignore[method-assign]
    uncounted = UNCOUNTED | streams
    for route in routes:
        for method in sorted(route.methods or ()):
            if route.path not in uncounted and "{" not in route.path:
                metrics.expect_route(route.path, method)
    hits = None if fresh is None else HitPath(fresh, cache_control=cacheable, metrics=metrics)
    paths = frozenset(route.path for route in routes) | {description_path}
    edge = Edge(api, routes=paths, metrics=metrics, health=health, hits=hits, reads=Reads(read), uncounted=uncounted)
    return edge if tracer is None else TracedApp(edge, tracer, paths, UNTRACED | streams)


def _openapi(api: FastAPI) -> dict[str, Any]:
    """The framework's description, and the schema of problem details that the routes refer to."""
    if api.openapi_schema is None:
        schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        _, definitions = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
        schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
        api.openapi_schema = schema
    return api.openapi_schema


def _methods_for(routes: Iterable[Route], request: Request) -> list[str]:
    """Every method that some route for this path takes (RFC 9110, 15.5.6); the framework names the first's only.

    What has no route here, the API's description and the static files, is there to be read.
    """
    methods: set[str] = set()
    for route in routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods or {"GET", "HEAD"})


async def _on_bug(_request: Request, _error: Exception) -> Response:
    return problems.internal()
