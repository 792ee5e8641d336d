"""The actions that an application does by itself, when the controller tells it to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from app.domain.template import TemplatePatch
from app.live.actions import ActionError, Arguments, OneTemplate, Slowness
from app.service import TemplateService


class Delayed(Protocol):
    """Whose loads take this much longer, in seconds."""

    load_delay_s: float


class Here:
    """Does them on this process' own parts.

    `expire` ends the life of a key, and returns whether Redis took it. A delay of loads of `longest_delay_s` or more
    would make each of them fail.
    """

    def __init__(
        self,
        service: TemplateService,
        expire: Callable[[str], Awaitable[bool]],
        loads: Delayed,
        longest_delay_s: float,
    ) -> None:
        self._service = service
        self._expire = expire
        self._loads = loads
        self._usual_delay_s = loads.load_delay_s
        self._longest_delay_s = longest_delay_s

    async def do(self, name: str, arguments: Arguments) -> str:
        """What was done. Raises `ActionError`, and what the service raises."""
        match name, arguments:
            case "expire", OneTemplate(id=template_id):
                taken = await self._expire(str(template_id))
                return f"template {template_id} expired" + ("" if taken else ", though Redis can't be told")
            case "change", OneTemplate(id=template_id):
                now = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
                patch = TemplatePatch(None, f"Changed on the live page at {now}.")
                written = await self._service.update(template_id, patch)
                return f"template {template_id} changed, to version {written.version}"
            case "postgres_slow", Slowness(ms=ms):
                if ms >= self._longest_delay_s * 1e3:
                    longest = f"{self._longest_delay_s * 1e3:.0f}, the statement timeout"
                    raise ActionError(422, "invalid_input", f"ms: must be below {longest}, or every load fails")
                self._loads.load_delay_s = ms / 1e3
                return f"each load is delayed by {ms} ms"
            case _:
                self._loads.load_delay_s = self._usual_delay_s
                return "loads are as fast as before"
