"""Where log lines go and what they look like."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

from app.telemetry.request_id import REQUEST_ID
from app.telemetry.tracing import trace_id

_ESCAPES: Final = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))
    if chr(code) != "\t"
} | {0x0A: "\\n", 0x0D: "\\r"}
"""Line breaks of all kinds, and what a terminal would take for a command."""
_CONTINUED: Final = "    "


def configure(level: str) -> None:
    """To standard error: UTC time, level, logger, message, and the ids of the request and the trace that it
    is about, if there are any.

    Every record begins a line, and only records do: line breaks in values are escaped, and what follows a message, such
    as a traceback, is indented.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Unforgeable("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for chatty in ("uvicorn", "uvicorn.access", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


class _Unforgeable(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        message = super().formatMessage(record)
        for name, value in (("request_id", REQUEST_ID.get()), ("trace_id", trace_id())):
            if value is not None:
                message = f"{message} {name}={value}"
        return message.translate(_ESCAPES)

    def format(self, record: logging.LogRecord) -> str:
        message, *more = super().format(record).split("\n")
        return "\n".join([message, *(_CONTINUED + line.translate(_ESCAPES) for line in more)])
