"""The frames of a connection that the intercept lane carries across itself: hyper-h2 would act on them alone."""

from __future__ import annotations

from struct import Struct
from typing import Final

from app.loom.proxy.framing import GOAWAY, HEAD_BYTES

PING: Final = 0x6
PING_BYTES: Final = 8
"""A PING of any other length breaks the protocol (RFC 9113, section 6.7)."""
_MAX_GOAWAY: Final = 16_384
_unpack_head = Struct(">HBBBL").unpack_from


class ControlFilter:
    """Takes GOAWAY, and PING where `takes_pings`, out of one direction of a connection, for who is to read the rest.

    hyper-h2 takes GOAWAY for the end, though what is under way may finish after it (RFC 9113, section 6.8), and answers
    a PING at once, though nobody knows yet whether the other side is there. What is malformed is left to it. `skip` is
    as in `FrameParser`.
    """

    __slots__ = ("_held", "_pass", "_takes_pings")

    def __init__(self, *, takes_pings: bool, skip: int = 0) -> None:
        self._held = b""
        self._pass = skip
        self._takes_pings = takes_pings

    def feed(self, data: bytes) -> tuple[bytes, list[bytes], bytes]:
        """The rest, the payloads of the GOAWAY frames that it completes, and the PING frames whole, as they came.

        Holds back less than a frame.
        """
        data = self._held + data
        self._held = b""
        kept: list[bytes] = []
        goaways: list[bytes] = []
        pings = b""
        position, end = 0, len(data)
        while position < end:
            if self._pass:
                piece = data[position : position + self._pass]
                self._pass -= len(piece)
                position += len(piece)
                kept.append(piece)
                continue
            if position + HEAD_BYTES > end:
                self._held = data[position:]
                break
            high, low, kind, _, stream = _unpack_head(data, position)
            whole = HEAD_BYTES + (high << 8 | low)
            is_ping = kind == PING and self._takes_pings and whole == HEAD_BYTES + PING_BYTES and stream == 0
            if not is_ping and (kind != GOAWAY or whole > _MAX_GOAWAY):
                self._pass = whole
                continue
            if position + whole > end:
                self._held = data[position:]
                break
            if is_ping:
                pings += data[position : position + whole]
            else:
                goaways.append(data[position + HEAD_BYTES : position + whole])
            position += whole
        return b"".join(kept), goaways, pings
