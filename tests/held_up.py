"""A process that is kept from running, as on a busy machine, while what it waits for comes in."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable

ANSWERED_WITHIN_S = 30.0


def hold_up(
    writer: asyncio.StreamWriter | asyncio.BaseTransport,
    seconds: float,
    *,
    let_answer: Callable[[], None] = lambda: None,
) -> None:
    """Keeps the event loop from its next turn until the answer is there to be read, and for `seconds` at least.

    The other side must not have answered before: by `let_answer` it is told that now it may.
    """

    def hold() -> None:
        began = time.monotonic()
        let_answer()
        readable, _, _ = select.select([writer.get_extra_info("socket").fileno()], [], [], ANSWERED_WITHIN_S)
        assert readable
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    asyncio.get_running_loop().call_soon(hold)
