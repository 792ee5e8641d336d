"""The reports that scenarios, the lab and the demo leave in a folder, self-contained pages of this project's own."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

MAX_REPORTS: Final = 50
MAX_BYTES: Final = 32 << 20
HEAD_BYTES: Final = 4_096
"""In which a title is looked for."""
HEADERS: Final = {
    # Style inline, pictures inline, no script, nothing fetched: what app/report writes.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_NAME: Final = re.compile(r"(scenario-[a-z0-9-]{1,64}|lab(-[a-z0-9-]{1,64})?|demo)\Z")
_TITLE: Final = re.compile(rb"<title>([^<]{1,200})</title>")


class Reports:
    """The reports in `folder`, as they come and go; none where it is `None`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def listed(self) -> list[dict[str, Any]]:
        """Name, title and address of each, the newest first. Reads files."""
        if self._folder is None:
            return []
        try:
            found = [(path.stat().st_mtime, path) for path in self._folder.iterdir() if _is_report(path)]
        except OSError:
            return []  # it does not exist yet, or a report has just been replaced
        newest = [path for _, path in sorted(found, reverse=True)[:MAX_REPORTS]]
        return [{"name": path.stem, "title": _title(path), "url": f"/reports/{path.name}"} for path in newest]

    def read(self, name: str) -> bytes | None:
        """A report's page; `None` where there is none of this name. Reads a file."""
        if self._folder is None or not _NAME.match(name):
            return None  # before a path is made of it
        path = self._folder / f"{name}.html"
        try:
            return path.read_bytes() if _is_report(path) and path.stat().st_size <= MAX_BYTES else None
        except OSError:
            return None


def report_routes(reports: Reports) -> APIRouter:
    """Each report at its address."""
    router = APIRouter(include_in_schema=False)

    @router.get("/reports/{name}.html")
    @router.head("/reports/{name}.html")
    async def report(request: Request) -> Response:
        page = await asyncio.to_thread(reports.read, request.path_params["name"])
        if page is None:
            raise HTTPException(404, "there is no such report")
        return Response(page, headers=HEADERS, media_type="text/html")

    return router


def _is_report(path: Path) -> bool:
    return path.suffix == ".html" and bool(_NAME.match(path.stem)) and path.is_file() and not path.is_symlink()


def _title(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = _TITLE.search(file.read(HEAD_BYTES))
    except OSError:
        found = None
    return path.stem if found is None else html.unescape(found[1].decode("utf-8", "replace"))
