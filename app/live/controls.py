"""The actions as the application knows them: asked of the controller, in the process that started the servers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from app.concurrency.clock import Clock, wall
from app.concurrency.resolver import Resolver
from app.live.actions import ActionError, Arguments
from app.live.http import HttpError, Place, asked

STATE_TIMEOUT_S: Final = 1.0
ACTION_TIMEOUT_S: Final = 120.0
"""Above what the longest action takes, a stampede whose every load runs into its deadline."""
MAX_ANSWER_BYTES: Final = 65_536

_log = logging.getLogger(__name__)

Mark = Callable[[str, str, float], None]
"""Told the action's name, what was done, and when it was begun."""


class Controls:
    """Asks the controller at `place`, which knows `token`."""

    def __init__(self, place: Place, token: str, mark: Mark, now: Clock = wall) -> None:
        self._place = place
        self._token = token
        self._mark = mark
        self._now = now
        self._resolver = Resolver()

    async def state(self) -> dict[str, Any] | None:
        """What can be done and how things are; `None` where the controller does not say."""
        try:
            status, fields = await self._ask("GET", "/state", b"", STATE_TIMEOUT_S)
        except HttpError:
            return None
        return fields if status == HTTPStatus.OK else None

    async def do(self, name: str, arguments: Arguments) -> str:
        """Have it done; returns what was done, which is marked. Raises `ActionError`."""
        body = arguments.model_dump_json().encode()
        began_at = self._now()
        try:
            status, fields = await self._ask("POST", f"/actions/{name}", body, ACTION_TIMEOUT_S)
        except HttpError as error:
            raise ActionError(502, "controller_away", f"who is to do it does not answer: {error}") from None
        if status != HTTPStatus.OK:
            raise ActionError(status, str(fields.get("code")), str(fields.get("detail")))
        done = str(fields.get("done"))
        # Nothing is awaited between the answer and the mark: with the mode, the controller ends this process next.
        self._mark(name, str(fields.get("mark", done)), began_at)
        _log.info("the live page had this done: %s", done)
        return done

    async def _ask(self, method: str, path: str, body: bytes, timeout_s: float) -> tuple[int, dict[str, Any]]:
        head = self._place.head(
            method,
            path,
            f"Authorization: Bearer {self._token}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        async with asked(self._place, head + b"\r\n" + body, self._resolver) as answer:
            raw = await answer.whole(timeout_s, MAX_ANSWER_BYTES)
            try:
                fields = json.loads(raw)
            except ValueError:
                fields = None
            if not isinstance(fields, dict):
                raise HttpError("its answer is no JSON object")
            return answer.status, fields
