"""What was made of header lists, so that it is not made again for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from app.loom.call import Headers
from app.loom.recording.record import headers_bytes

T = TypeVar("T")

MAX_LISTS: Final = 256
MAX_LIST_BYTES: Final = 4096
"""By estimate; larger ones are hardly ever the same twice."""


class Memo(Generic[T]):
    """`make`, which must be pure, remembered by the identity of what it was made of.

    Most calls on a connection differ in nothing, and have one and the same list: see `HeaderDecoder`.
    """

    __slots__ = ("_known", "_make")

    def __init__(self, make: Callable[[Headers], T]) -> None:
        self._make = make
        self._known: dict[int, tuple[Headers, T]] = {}

    def __call__(self, headers: Headers) -> T:
        known = self._known.get(id(headers))
        if known is not None and known[0] is headers:
            return known[1]
        made = self._make(headers)
        if headers_bytes(headers) <= MAX_LIST_BYTES:
            if len(self._known) >= MAX_LISTS:
                self._known.clear()
            self._known[id(headers)] = headers, made  # which keeps the list, so that its id stays its own
        return made
