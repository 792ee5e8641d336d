"""What a page is told first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from app.live.actions import ACTIONS
from app.live.controls import Controls
from app.live.reports import Reports


class Greeting:
    """Who this is, what can be done, and what else there is to see."""

    def __init__(
        self,
        version: str,
        mode: str,
        interval_s: float,
        controls: Controls | None,
        reports: Reports,
        links: Sequence[tuple[str, str]],
    ) -> None:
        self._version = version
        self._mode = mode
        self._interval_s = interval_s
        self._controls = controls
        self._reports = reports
        self._links = [{"title": title, "url": url} for title, url in links]

    async def fields(self) -> dict[str, Any]:
        """As the page gets it."""
        state = None if self._controls is None else await self._controls.state()
        controls = None
        if state is not None:
            controls = {
                "actions": list(ACTIONS),
                **{name: state.get(name) for name in ("modes", "max_callers", "state")},
            }
        return {
            "version": self._version,
            "app": self._mode,
            "interval_s": self._interval_s,
            "controls": controls,
            "reports": await asyncio.to_thread(self._reports.listed),
            "links": [*self._links, *([] if state is None else state.get("links", []))],
        }
