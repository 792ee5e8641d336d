"""What every error response must be."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

LEAKS = ("traceback", "select ", "insert ", "asyncpg", "redis", "postgres", ".py", "line 1, in", "0x")
"""No text of ours has these; driver texts, SQL and stack traces do."""


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body, once it is known to be RFC 9457 problem details of this status and code that tell no secrets."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    body: dict[str, Any] = response.json()
    assert body.keys() - {"errors"} == {"type", "title", "status", "detail", "code"}
    assert body["type"] == f"urn:problem:{code.replace('_', '-')}"
    assert body["title"] == HTTPStatus(status).phrase
    assert body["status"] == status
    assert body["code"] == code
    assert isinstance(body["detail"], str)
    assert body["detail"]
    for error in body.get("errors", []):
        assert error.keys() == {"field", "reason"}
        assert error["reason"]
    assert not [leak for leak in LEAKS if leak in response.text.lower()]
    return body
