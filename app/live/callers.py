"""Callers of one template, all at once, as they come from outside: each on a connection of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from app.live.http import Place
from app.loadtest.errors import RequestError
from app.loadtest.http import Connection
from app.loadtest.runner import allow_files

TIMEOUT_S: Final = 20.0
SPARE_FILES: Final = 200
"""That this process has open besides."""
HEADERS: Final = 'If-None-Match: "0"\r\n'
"""No template's entity tag. With it the application's routes answer, which know who waited, and not what lies ready."""


async def call_at_once(place: Place, template_id: int, callers: int) -> Counter[str]:
    """How many were answered from where (`X-Cache`), or failed in which way.

    All are connected before the first asks. Raises `RequestError` or `TargetError` where they can't be.
    """
    allow_files(callers + SPARE_FILES, "the number of callers")
    connections = [Connection(place.host, place.port, TIMEOUT_S, HEADERS) for _ in range(callers)]
    try:
        for opened in await asyncio.gather(*(each.open() for each in connections), return_exceptions=True):
            if opened is not None:
                raise opened
        path = b"/template-details?id=%d" % template_id
        return Counter(await asyncio.gather(*(_answer(each, path) for each in connections)))
    finally:
        for each in connections:
            each.close()


async def _answer(connection: Connection, path: bytes) -> str:
    try:
        response = await connection.get(path)
    except RequestError as error:
        return error.kind
    return response.source if response.status == 200 else f"status {response.status}"
