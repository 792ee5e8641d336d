"""Free ports of this machine."""

from __future__ import annotations

import contextlib
import random
import socket

from app.compose.errors import ComposeError

LOOPBACK = "127.0.0.1"
_LOWEST, _HIGHEST = 20_000, 32_000
"""Below what systems hand out to outgoing connections, which would take one between the look and the use."""
_ATTEMPTS = 50


def free_block(size: int) -> range:
    """So many free ports in a row. Another program may take one of them before they are used. Raises `ComposeError`."""
    for _ in range(_ATTEMPTS):
        first = random.randrange(_LOWEST, _HIGHEST - size)
        block = range(first, first + size)
        with contextlib.ExitStack() as held:
            if all(_hold(held, port) for port in block):
                return block
    raise ComposeError(f"no {size} ports in a row are free between {_LOWEST} and {_HIGHEST}")


def _hold(held: contextlib.ExitStack, port: int) -> bool:
    try:
        held.enter_context(socket.create_server((LOOPBACK, port)))
    except OSError:
        return False
    return True
