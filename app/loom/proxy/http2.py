"""hyper-h2 as the intercept lane uses it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings

from app.loom.call import Headers
from app.loom.proxy.limits import Limits

GOAWAY: Final = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + (0x7FFFFFFF).to_bytes(4) + bytes(4)
"""Open no more streams, and finish those that are open: the last id is the highest possible, the code NO_ERROR."""


def make_connection(limits: Limits, *, client_side: bool) -> H2Connection:
    """One that leaves headers as they are."""
    made = H2Connection(
        H2Configuration(
            client_side=client_side,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    settings = {SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_block_bytes}
    if client_side:
        settings[SettingCodes.ENABLE_PUSH] = 0
    made.local_settings = Settings(client=client_side, initial_values=settings)
    made.decoder.max_header_list_size = limits.header_block_bytes
    return made


def headers_of(received: Iterable[Any] | None) -> Headers:
    """Of an event."""
    return tuple(received or ())


def reset(leg: H2Connection, stream: int, code: int) -> None:
    """Where it is closed already, nothing."""
    with contextlib.suppress(StreamClosedError):
        leg.reset_stream(stream, code)


def as_one_frame(settings: bytes) -> bytes:
    """Two SETTINGS frames as one, which is acknowledged once.

    Clients begin with the first frame that they get: one that heard of a lower bound in a second frame would have begun
    more streams than it may, and gRPC's fails them. hyper-h2 takes the first acknowledgement for all that it has sent.
    """
    first = int.from_bytes(settings[:3], "big")
    head, payload, rest = settings[3:9], settings[9 : 9 + first], settings[9 + first :]
    return (first + len(rest) - 9).to_bytes(3, "big") + head + payload + rest[9:]
