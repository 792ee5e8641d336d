"""How much is kept, and how long is waited, for one connection and for all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the data path. What goes past a bound of the inspection still passes, unseen or cut."""

    connections: int = 1_000
    """Clients at a time; one more is closed at once."""
    streams: int = 10_000
    """Live calls that are followed on one connection."""
    header_block_bytes: int = 256 * 1024
    """A header block as sent, and its headers decoded (names, values and 32 bytes each, as RFC 7541 counts)."""
    header_table_bytes: int = 1024 * 1024
    """The HPACK table that one side may keep; 4 KiB unless the peers agree on more."""
    message_bytes: int = 1024 * 1024
    """What is kept of a message."""
    messages_bytes: int = 64 * 1024 * 1024
    """What is kept of all messages that are under way, in this process."""
    intercepted_bytes: int = 16 * 1024 * 1024
    """What one side of a connection may have sent that waits for the other, in the intercept lane; a call, 64 KiB."""
    rewritten_bytes: int = 4 * 1024 * 1024
    """A message that may be changed; larger ones pass as they are."""
    holds: int = 10_000
    """Calls that are held by a rule; more go on at once."""
    write_buffer_bytes: int = 256 * 1024
    """Bytes that wait for one side to read before the other is made to wait."""
    preface_s: float = 10.0
    """For a client to say that it speaks HTTP/2, TLS handshake not counted."""
    handshake_s: float = 5.0
    """For TLS, on either leg."""
    dial_s: float = 5.0
    """For the backend's name, connection and TLS together, all its addresses."""
    linger_s: float = 30.0
    """For what is left after one side has ended, until the other has too."""
