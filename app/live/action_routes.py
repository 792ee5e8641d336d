"""The routes of the live page's actions: those for its visitors, and those for the controller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.http import parameters, problems
from app.domain.errors import DomainError
from app.live.actions import ACTIONS, HERE, ActionError, Arguments
from app.live.controls import Controls
from app.live.guard import check_token, check_visitor
from app.live.here import Here
from app.telemetry.live_page import LivePageMetrics

MAX_BODY_BYTES: Final = 4_096

Do = Callable[[str, Arguments], Awaitable[str]]
Check = Callable[[Request], None]


def action_routes(
    controls: Controls | None, here: Here, token: str, metrics: LivePageMetrics, receive_timeout_s: float
) -> APIRouter:
    """`POST /actions/NAME`, refused where there are no `controls`; `POST /actions/NAME/here` for who knows `token`,
    which does not exist where that is empty."""
    router = APIRouter(include_in_schema=False)

    def add(path: str, name: str, check: Check, do: Do) -> None:
        async def answer(request: Request) -> Response:
            try:
                check(request)
                arguments = await parameters.json_body(
                    request, ACTIONS[name], max_bytes=MAX_BODY_BYTES, timeout_s=receive_timeout_s
                )
                done = await do(name, arguments)
            except ActionError as error:
                return problems.problem(error.status, error.code, str(error))
            except (problems.RequestError, DomainError) as error:
                return problems.for_error(error)
            return JSONResponse({"done": done}, headers={"Cache-Control": "no-store"})

        async def act(request: Request) -> Response:
            answered = await answer(request)
            if path == f"/actions/{name}":
                metrics.action_ended(name, _end(answered.status_code))
            return answered

        router.add_api_route(path, act, methods=["POST"])

    def refuse(_request: Request) -> None:
        raise ActionError(
            403,
            "no_controls",
            "nothing can be done on this application's page; `make demo` and `make up` start one where it can",
        )

    for name in ACTIONS:
        if controls is None:
            add(f"/actions/{name}", name, refuse, here.do)
        else:
            add(f"/actions/{name}", name, check_visitor, controls.do)
    for name in HERE if token else ():
        add(f"/actions/{name}/here", name, lambda request: check_token(request, token), here.do)
    return router


def _end(status: int) -> str:
    return "done" if status < 400 else "refused" if status < 500 else "failed"
