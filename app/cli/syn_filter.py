"""A listening socket that begins no new connection, yet completes and hands over those that have begun."""

from __future__ import annotations

import ctypes
import socket
import struct

# From Linux' <asm-generic/socket.h> and <linux/filter.h>; Python's socket module does not name them.
_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_FLAGS_OFFSET, _SYN, _ACK = 13, 0x02, 0x10  # RFC 9293, 3.1
_DROP, _PASS = 0, 0xFFFFFFFF

# Classic BPF, run over each segment that comes for the socket, from its TCP header on: (code, if true, if false, k).
_INSTRUCTIONS = (
    (_LOAD_BYTE, 0, 0, _FLAGS_OFFSET),
    (_AND, 0, 0, _SYN | _ACK),
    (_JUMP_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, _DROP),
    (_RETURN, 0, 0, _PASS),
)


def attach(listener: socket.socket) -> bool:
    """Let the kernel pass over each SYN that comes for `listener` from now on; whether it can (Linux).

    To close a listening socket resets every connection that nobody has accepted: also one of the last microsecond,
    whose client may have sent a request. Closed some time after this, it resets none. Who is passed over tries again
    after a second, and is refused if the socket is closed by then.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _INSTRUCTIONS))
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_INSTRUCTIONS), ctypes.addressof(program))
        )
    except OSError:
        return False
    return True
