"""Reads of a template, answered ahead of the framework's routing, which takes longer than all that is done here.

The framework's route is by the same reader, so that it knows and describes it, and answers in the same way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.http import parameters, problems
from app.api.http.disconnect import ClientDisconnectedError, while_connected
from app.domain.errors import DomainError
from app.service import TemplateService

METHODS = frozenset({"GET", "HEAD"})
CLIENT_CLOSED_REQUEST = 499
"""The status that is counted, though nobody gets it, where the client went before its answer came."""

Reader = Callable[[Request], Awaitable[Response]]


def reader(service: TemplateService, *, cache_control: str) -> Reader:
    """The response to a read; raises what is wrong with it, or with the template."""

    async def read_template(request: Request) -> Response:
        template_id = parameters.template_id(request)
        reading = await while_connected(request.receive, service.read(template_id))
        tag = parameters.entity_tag(template_id, reading.version)
        headers = {
            "ETag": tag,
            "Age": str(int(reading.age_s)),
            "Cache-Control": cache_control,
            "X-Cache": reading.source,
        }
        if parameters.is_known(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(reading.payload, headers=headers, media_type="application/json")

    return read_template


async def on_disconnect(_request: Request, _error: Exception) -> Response:
    """What is counted as the answer to who did not wait for it."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


class Reads:
    """The application for requests of `METHODS` on a template. A bug's error goes to whoever called."""

    def __init__(self, read: Reader) -> None:
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await self._read(request)
        except (DomainError, problems.RequestError) as error:
            response = await problems.on_error(request, error)
        except ClientDisconnectedError as error:
            response = await on_disconnect(request, error)
        await response(scope, receive, send)
