"""Whether an answer is one of those that the API's own description lists for its request."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import httpx
from pydantic import BaseModel

from app.api.http import schemas
from app.api.http.app import create_app
from app.api.http.edge import Edge
from app.domain.ports import Cache, Repository
from app.health import Health
from app.service import TemplateService
from app.telemetry.metrics import Metrics

ANYWHERE = {405, 500}
"""What no path lists: a method that it does not take, and a bug."""
MODELS = {name: model for name, model in vars(schemas).items() if isinstance(model, type)}


@cache
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    edge = create_app(
        TemplateService(cast("Repository", None), cast("Cache", None)),
        health=Health({}),
        metrics=Metrics(mode="none", version="0", ttl_s=1),
        version="0",
        max_body_bytes=1,
        max_age_s=0,
        receive_timeout_s=1,
    )
    return cast("dict[str, Any]", cast("Edge", edge)._app.openapi())  # type: ignore[attr-defined]


async def conforms(response: httpx.Response) -> None:
    """Fails where status, content type, headers or body are others than described. For paths that are described."""
    await response.aread()
    operation = description()["paths"].get(response.request.url.path, {}).get(response.request.method.lower())
    if operation is None or response.status_code in ANYWHERE:
        return
    responses = operation["responses"]
    assert str(response.status_code) in responses, f"{response.status_code} is not described for {response.url}"
    described = responses[str(response.status_code)]
    missing = [name for name in described.get("headers", {}) if name not in response.headers and name != "Link"]
    assert not missing, f"{missing} of {response.url} are described and were not sent"
    content = described.get("content", {})
    if not response.content:
        return
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{media_type} is not described for {response.url}"
    schema = content[media_type].get("schema", {})
    if "$ref" in schema:
        _fits(response.json(), MODELS[schema["$ref"].rpartition("/")[2]])


def _fits(body: object, model: type[BaseModel]) -> None:
    assert isinstance(body, dict)
    assert set(body) <= set(model.model_fields), f"{set(body) - set(model.model_fields)} is not described"
    model.model_validate_json(httpx.Response(200, json=body).content, strict=True)
