"""Cache hits, answered ahead of the framework's routing: ready bytes and headers, and nothing else.

What is not plainly a hit is left to the reader, which answers every request that this module does in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import Message, Scope

from app.api.http.parameters import entity_tag
from app.concurrency.clock import Clock, wall
from app.telemetry.metrics import Metrics
from app.telemetry.request_id import KEY, is_valid

PATH = "/template-details"
REQUEST_ID_HEADER = KEY.encode("ascii")
_LONGEST = 18
"""Digits of an id that is surely in range; longer ones are the reader's to judge."""


class Held(Protocol):
    """A fresh value that this process holds, and room for what is made ready of it."""

    wire: object

    @property
    def payload(self) -> bytes: ...

    @property
    def version(self) -> int: ...

    @property
    def created_at(self) -> float: ...


Fresh = Callable[[str], Held | None]
"""A key's fresh value, if this process holds one. It counts the read that it answers."""


class _Wire:
    """A response but for its age."""

    __slots__ = ("body", "tag", "tail")

    def __init__(self, held: Held, key: str, cache_control: str) -> None:
        payload = held.payload
        self.tag = (b"etag", entity_tag(int(key), held.version).encode())
        self.tail = (
            (b"cache-control", cache_control.encode()),
            (b"x-cache", b"l1"),
            (b"content-length", b"%d" % len(payload)),
            (b"content-type", b"application/json"),
        )
        self.body: Message = {"type": "http.response.body", "body": payload}


class HitPath:
    """Finds the response to a GET that L1 answers."""

    def __init__(self, fresh: Fresh, *, cache_control: str, metrics: Metrics, now: Clock = wall) -> None:
        self._fresh = fresh
        self._cache_control = cache_control
        self._now = now
        self._ended, self._seconds = metrics.route(PATH, "GET", 200)

    def response(self, scope: Scope) -> tuple[Message, Message] | None:
        """The two messages of the response; `None` where the reader is to answer."""
        query: bytes = scope["query_string"]
        if scope["method"] != "GET" or query[:3] != b"id=":
            return None
        digits = query[3:]
        if not digits.isdigit() or len(digits) > _LONGEST or digits[0] == 48:
            return None
        returned = None
        for header in scope["headers"]:
            name = header[0]
            if name == b"if-none-match":
                return None
            if name == REQUEST_ID_HEADER:
                if returned is not None or not is_valid(header[1].decode("latin-1")):
                    return None
                returned = header
        key = digits.decode()
        held = self._fresh(key)
        if held is None:
            return None
        wire = held.wire
        if not isinstance(wire, _Wire):
            wire = held.wire = _Wire(held, key, self._cache_control)
        age_s = int(self._now() - held.created_at)
        age = (b"age", b"%d" % (age_s if age_s > 0 else 0))
        headers = [wire.tag, age, *wire.tail] if returned is None else [wire.tag, age, *wire.tail, returned]
        return {"type": "http.response.start", "status": 200, "headers": headers}, wire.body

    def answered(self, began: float) -> None:
        """Count a response that has been sent; `began` by the performance counter."""
        self._ended.value += 1
        self._seconds.observe(time.perf_counter() - began)
