"""The id by which a request's log lines are found, and by which its client can ask about it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

KEY: Final = "x-request-id"
"""The header, and the metadata, in which it comes and goes."""
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that this code runs for; it stands in every line that is logged meanwhile."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def is_valid(text: str) -> bool:
    """Whether a client's own id may be taken: 1 to 64 letters, digits, dots, underscores and dashes."""
    return _VALID.fullmatch(text) is not None


def begin(sent: Sequence[str | bytes]) -> str:
    """The id that the client sent, where it sent one and that is valid, else one that is made.

    It is `REQUEST_ID` from now on in this task, and in those that it starts.
    """
    taken = sent[0] if len(sent) == 1 else None
    request_id = taken if isinstance(taken, str) and is_valid(taken) else f"{random.getrandbits(64):016x}"
    REQUEST_ID.set(request_id)
    return request_id
