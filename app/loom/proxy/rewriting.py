"""The messages of one direction of a call, changed as they pass, compressed ones too."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from app.loom.compression import CompressionError, compress, decompress
from app.loom.proxy.framing import PREFIX_BYTES, Budget

_PREFIX: Final = Struct(">BL")


class MessageRewriter:
    """Pieces of a direction's DATA in, what is to be sent on out.

    `rewrite` is shown each whole message, uncompressed, and returns it changed, or `None`. A message that it can't be
    shown passes as it was, and `on_left` is told why.
    """

    def __init__(
        self,
        rewrite: Callable[[bytes], bytes | None],
        on_left: Callable[[str], None],
        *,
        encoding: bytes,
        max_bytes: int,
        budget: Budget,
    ) -> None:
        self._rewrite = rewrite
        self._on_left = on_left
        self._encoding = encoding
        self._max = max_bytes
        self._budget = budget
        self._held = bytearray()
        self._taken = 0
        self._passing = 0
        self._is_broken = False

    def feed(self, data: bytes) -> bytes:
        """What is to be sent on now."""
        out = bytearray()
        self._held += data
        while self._held:
            if self._is_broken:
                out += self._held
                self._held.clear()
            elif self._passing:
                piece = self._held[: self._passing]
                self._passing -= len(piece)
                del self._held[: len(piece)]
                out += piece
            elif len(self._held) < PREFIX_BYTES or not self._next(out):
                break
        return bytes(out)

    def close(self) -> bytes:
        """What is held of a message that will not be whole."""
        self._budget.give_back(self._taken)
        self._taken = 0
        rest, self._held = bytes(self._held), bytearray()
        return rest

    def _next(self, out: bytearray) -> bool:
        """Whether there is more to be done with what is held."""
        flag, size = _PREFIX.unpack_from(self._held)
        whole = PREFIX_BYTES + size
        if flag > 1:
            self._is_broken = True
            self._on_left("its bytes are no gRPC message")
            return True
        if size > self._max:
            self._on_left(f"it has {size} bytes; {self._max} are the most that are changed")
            self._passing = whole
            return True
        if not self._taken and size:
            self._taken = self._budget.take(size)
            if self._taken < size:
                self._budget.give_back(self._taken)
                self._taken = 0
                self._on_left("too many bytes are held already")
                self._passing = whole
                return True
        if len(self._held) < whole:
            return False
        body = bytes(self._held[PREFIX_BYTES:whole])
        changed = self._changed(flag == 1, body)
        out += self._held[:whole] if changed is None else _PREFIX.pack(flag, len(changed)) + changed
        del self._held[:whole]
        self._budget.give_back(self._taken)
        self._taken = 0
        return True

    def _changed(self, is_compressed: bool, body: bytes) -> bytes | None:
        """The new body, compressed as the old one was."""
        if not is_compressed:
            return self._rewrite(body)
        try:
            plain = decompress(body, self._encoding, self._max)
        except CompressionError as error:
            self._on_left(f"it is {error}")
            return None
        changed = self._rewrite(plain)
        return None if changed is None else compress(changed, self._encoding)
