"""What was written to a connection and is not at its other end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios
from typing import Final

_SO_NWRITE: Final = 0x1024
"""macOS's, which Python has no name for."""


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Bytes in the transport's buffer, and those that the kernel keeps until the peer's has acknowledged them.

    The kernel's go down as the peer reads. The transport's stay as they are until a good part of the kernel's buffer,
    which has megabytes on loopback, is free.
    """
    return transport.get_write_buffer_size() + _kept_by_kernel(transport.get_extra_info("socket"))


def _kept_by_kernel(connection: socket.socket | None) -> int:
    if connection is None:
        return 0  # it is closed
    with contextlib.suppress(OSError):  # where it is gone already
        if sys.platform == "linux":
            return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        else:  # noqa: RET505 - so that type checkers know it for another platform's
            return connection.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    return 0
