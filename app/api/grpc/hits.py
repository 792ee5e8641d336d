"""Cache hits over gRPC: the template is encoded once a value, and what differs from answer to answer is put behind it.

Protobuf messages that stand one after the other are merged by whoever decodes them
(https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from app.api.grpc import convert
from app.concurrency.clock import Clock, wall
from app.proto.template.v1.template_pb2 import SOURCE_L1, GetTemplateDetailsResponse
from app.service import from_payload

MAX_READY_BYTES = 8 << 20
"""Most that messages which stand ready take, the values included that they were made of."""
READY_OVERHEAD_BYTES = 300
"""What a ready message takes besides its bytes and its value's, by estimate."""


class Held(Protocol):
    """A fresh value that this process holds."""

    @property
    def payload(self) -> bytes: ...

    @property
    def created_at(self) -> float: ...


Fresh = Callable[[str], Held | None]
"""A key's fresh value, if this process holds one: the same object for as long as it is the same value. It counts the
read that it answers."""


class Hits:
    """Answers what L1 holds, as bytes."""

    def __init__(self, fresh: Fresh, *, now: Clock = wall, max_ready_bytes: int = MAX_READY_BYTES) -> None:
        self._fresh = fresh
        self._now = now
        self._max_ready_bytes = max_ready_bytes
        self._ready: dict[int, tuple[Held, bytes]] = {}
        self._ready_bytes = 0

    def answer(self, template_id: int) -> bytes | None:
        """A whole `GetTemplateDetailsResponse`; `None` where the service is to be asked."""
        held = self._fresh(str(template_id))
        if held is None:
            return None
        kept = self._ready.get(template_id)
        message = kept[1] if kept is not None and kept[0] is held else self._made_ready(template_id, held)
        age_s = max(0.0, self._now() - held.created_at)
        seconds = int(age_s)
        age = Duration(seconds=seconds, nanos=int((age_s - seconds) * 1e9))
        return message + GetTemplateDetailsResponse(age=age).SerializeToString()

    def _made_ready(self, template_id: int, held: Held) -> bytes:
        template = convert.template(from_payload(held.payload))
        message = GetTemplateDetailsResponse(template=template, source=SOURCE_L1).SerializeToString()
        self._drop(template_id)
        self._ready[template_id] = held, message
        self._ready_bytes += _size(held, message)
        while self._ready_bytes > self._max_ready_bytes:
            self._drop(next(iter(self._ready)))  # the one that was made ready first
        return message

    def _drop(self, template_id: int) -> None:
        kept = self._ready.pop(template_id, None)
        if kept is not None:
            self._ready_bytes -= _size(*kept)


def _size(held: Held, message: bytes) -> int:
    return READY_OVERHEAD_BYTES + len(held.payload) + len(message)
