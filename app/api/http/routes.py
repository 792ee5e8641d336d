"""The HTTP endpoints."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from app.api.http import parameters
from app.api.http.disconnect import while_connected
from app.api.http.reads import Reader
from app.api.http.schemas import Live, Ready, TemplateBody, TemplateOut, TemplatePage
from app.domain.template import MAX_ID, Template
from app.health import Health, Status
from app.service import MAX_PAGE, TemplateService, to_payload
from app.telemetry.exposition import OPENMETRICS
from app.telemetry.metrics import Metrics

_JSON = "application/json"


def _query(name: str, least: int, most: int, *, required: bool, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "format": "int64", "minimum": least, "maximum": most}
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _header(name: str, description: str, **schema: str) -> dict[str, Any]:
    described = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": described}


_NAMES: dict[str, Any] = {
    "name": "name[]",
    "in": "query",
    "required": False,
    "description": "Only samples of this name; of all that are given where there are several.",
    "schema": {"type": "array", "items": {"type": "string"}},
    "style": "form",
    "explode": True,
}


def _sent(**headers: str) -> dict[str, dict[str, Any]]:
    """Response headers, by name with underscores, and what they say."""
    return {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
    }


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses
    }
    if 503 in responses:
        responses[503]["headers"] = _sent(Retry_After="Seconds after which to try again.")
    return responses


_ID = _query("id", 1, MAX_ID, required=True, description="The template's id.")
_IF_MATCH = _header(
    "If-Match",
    "Only if the template is still at this entity tag; otherwise 412.",
    pattern=r'^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$',
)
_IF_NONE_MATCH = _header("If-None-Match", "Answer 304 if the template is still at this entity tag.")
_IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "Best a UUID. For 24 hours the same request with the same key is not done again, and gets the first answer.",
    pattern='^("[ -~]{1,128}"|[!-~]{1,128})$',
)
_TAGGED = _sent(ETag="The template's id and version.")
_READ = _TAGGED | _sent(
    Age="Whole seconds since the load from the database.",
    Cache_Control="How long an answer may be kept.",
    X_Cache="Where the answer came from: `l1`, `l2`, `origin`, `shared` or `stale`.",
)
_BODY = {"required": True, "content": {_JSON: {"schema": TemplateBody.model_json_schema()}}}


def template_routes(
    service: TemplateService, read: Reader, *, max_body_bytes: int, receive_timeout_s: float
) -> APIRouter:
    """Reading and writing templates."""
    router = APIRouter(tags=["templates"])

    def written(template: Template, status: int) -> Response:
        headers = {"ETag": parameters.entity_tag(template.id, template.version), "Cache-Control": "no-store"}
        if status == 201:
            headers["Location"] = f"/template-details?id={template.id}"
        return Response(to_payload(template), status, headers, _JSON)

    for method in ("GET", "HEAD"):
        router.add_api_route(
            "/template-details",
            read,
            methods=[method],
            summary="Read a template",
            operation_id=f"{method.lower()}_template",
            response_class=Response,
            responses={
                200: {"model": TemplateOut, "description": "The template.", "headers": _READ},
                304: {"description": "It is still at the entity tag given.", "headers": _READ},
                **_problems(400, 404, 503, 504),
            },
            openapi_extra={"parameters": [_ID, _IF_NONE_MATCH]},
        )

    @router.put(
        "/template-details",
        summary="Replace a template",
        response_class=Response,
        responses={
            200: {"model": TemplateOut, "headers": _TAGGED},
            **_problems(400, 404, 408, 409, 412, 413, 415, 422, 503),
        },
        openapi_extra={"parameters": [_ID, _IF_MATCH, _IDEMPOTENCY_KEY], "requestBody": _BODY},
    )
    async def replace_template(request: Request) -> Response:
        template_id = parameters.template_id(request)
        expected = parameters.expected_versions(request, template_id)
        request_id = parameters.request_id(request)
        draft = await parameters.draft(request, max_bytes=max_body_bytes, timeout_s=receive_timeout_s)
        return written(await service.update(template_id, draft, expected, request_id), 200)

    @router.post(
        "/template-details",
        status_code=201,
        summary="Create a template",
        response_class=Response,
        responses={
            201: {"model": TemplateOut, "headers": _TAGGED | _sent(Location="Where the template is read.")},
            **_problems(400, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra={"parameters": [_IDEMPOTENCY_KEY], "requestBody": _BODY},
    )
    async def create_template(request: Request) -> Response:
        request_id = parameters.request_id(request)
        draft = await parameters.draft(request, max_bytes=max_body_bytes, timeout_s=receive_timeout_s)
        return written(await service.create(draft, request_id), 201)

    @router.delete(
        "/template-details",
        status_code=204,
        summary="Delete a template",
        response_class=Response,
        responses={204: {"description": "It is gone."}, **_problems(400, 404, 409, 412, 503)},
        openapi_extra={"parameters": [_ID, _IF_MATCH, _IDEMPOTENCY_KEY]},
    )
    async def delete_template(request: Request) -> Response:
        template_id = parameters.template_id(request)
        expected = parameters.expected_versions(request, template_id)
        await service.delete(template_id, expected, parameters.request_id(request))
        return Response(status_code=204)

    async def list_templates(request: Request) -> Response:
        after, limit = parameters.page_bounds(request, MAX_PAGE)
        # One more than asked for tells whether there is a next page.
        found = await while_connected(request.receive, service.page(after, limit + 1))
        items = found[:limit]
        following = None
        if len(found) > limit:
            following = "/templates?" + urlencode({"after": items[-1].id, "limit": limit})
        listed = b",".join(to_payload(item) for item in items)
        page = b'{"items":[%s],"next":%s}' % (listed, json.dumps(following).encode())
        headers = {"Cache-Control": "no-cache"}
        if following is not None:
            headers["Link"] = f'<{following}>; rel="next"'
        return Response(page, headers=headers, media_type=_JSON)

    for method in ("GET", "HEAD"):
        router.add_api_route(
            "/templates",
            list_templates,
            methods=[method],
            summary="List templates by id",
            operation_id=f"{method.lower()}_templates",
            response_class=Response,
            responses={
                200: {"model": TemplatePage, "headers": _sent(Link="The next page, where there is one.")},
                **_problems(400, 503),
            },
            openapi_extra={
                "parameters": [
                    _query("after", 0, MAX_ID, required=False, description="Only ids above this; 0 by default."),
                    _query("limit", 1, MAX_PAGE, required=False, description="At most so many; 20 by default."),
                ]
            },
        )
    return router


def probe_routes(health: Health, metrics: Metrics) -> APIRouter:
    """What the platform asks: alive, ready, metrics."""
    router = APIRouter(tags=["probes"])
    no_store = {"Cache-Control": "no-store"}

    @router.get("/live", summary="Whether the process answers", responses={200: {"model": Live}})
    @router.head("/live", include_in_schema=False)
    async def live() -> JSONResponse:
        return JSONResponse({"status": "alive"}, headers=no_store)

    @router.get(
        "/ready",
        summary="Whether the process should get traffic",
        responses={200: {"model": Ready}, 503: {"model": Ready}},
    )
    @router.head("/ready", include_in_schema=False)
    async def ready() -> JSONResponse:
        report = await health.report()
        checks = {name: "ok" if answered else "failed" for name, answered in report.answered.items()}
        status = 200 if report.status is Status.READY else 503
        return JSONResponse({"status": report.status, "checks": checks}, status, no_store)

    formats = {media_type: {"schema": {"type": "string"}} for media_type in ("text/plain", OPENMETRICS)}

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"description": "OpenMetrics where `Accept` lists it.", "content": formats}},
        openapi_extra={"parameters": [_NAMES]},
    )
    @router.head("/metrics", include_in_schema=False)
    async def show_metrics(request: Request) -> Response:
        names = [name for name in request.query_params.getlist("name[]") if name]
        pieces, content_type = metrics.exposition(request.headers.get("accept", ""), names)
        text = []
        for piece in pieces:
            text.append(piece)
            await asyncio.sleep(0)  # hits have their turns in between
        return Response(b"".join(text), headers={**no_store, "Content-Type": content_type})

    return router


def docs_routes(title: str) -> APIRouter:
    """The API's documentation as a page that loads nothing from elsewhere."""
    router = APIRouter(include_in_schema=False)
    policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/docs/static/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="/docs/static/swagger-ui/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="/docs/static/swagger-ui/swagger-ui-bundle.js"></script>
<script src="/docs/static/docs.js"></script>
</body>
</html>
"""

    @router.get("/docs")
    @router.head("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})

    return router
