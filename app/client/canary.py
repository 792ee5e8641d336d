"""A share of calls for a second version of the service, changed and taken back while calls go on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from app.client.endpoint import Endpoint


class Canary:
    """Sends `percent` of unary calls to `endpoint` instead; 0 to 100, fractions too.

    Each call is drawn at random, or, where `by_template`, all calls for one template go the same way: which way depends
    on its id and the percentage only, and a higher percentage moves further templates and none back. A new template has
    no id yet, so its creation is drawn by its request id.

    Setting `percent` counts for every call that begins from then on, so 0 takes the canary back at once. Streams never
    go there: they could not be taken back.

    Raises `ValueError` for a percentage outside 0 to 100.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        percent: float = 0.0,
        *,
        by_template: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.endpoint = endpoint
        self.percent = percent
        self._by_template = by_template
        self._draw = draw

    @property
    def percent(self) -> float:
        return self._percent

    @percent.setter
    def percent(self, percent: float) -> None:
        if not 0 <= percent <= 100:
            raise ValueError(f"the canary's share must be from 0 to 100 percent, not {percent:g}")
        self._percent = percent

    def takes(self, key: str) -> bool:
        """Whether the call for this key goes to the canary."""
        place = _place(key) if self._by_template else self._draw()
        return place * 100 < self._percent


def _place(key: str) -> float:
    """The same number from 0 to 1 for the same key, in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
