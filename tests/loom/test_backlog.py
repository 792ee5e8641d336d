"""What has passed is read a little later, in its order, and never more than so much waits."""

from __future__ import annotations

import asyncio

import pytest

from app.loom.proxy import backlog as backlog_module
from app.loom.proxy.backlog import MAX_BYTES, MAX_PIECES, Backlog
from tests.loom.account import WAIT_S

Piece = tuple[str, bytes, float]


class Reader:
    """Notes what it is given to read, and for whom."""

    def __init__(self) -> None:
        self.now = 5.0
        self.backlog = Backlog(clock=lambda: self.now)
        self.read: list[Piece] = []
        self.has_read = asyncio.Event()

    def passed(self, name: str, data: bytes) -> None:
        self.backlog.add(lambda piece, at: self._note((name, piece, at)), data)

    def _note(self, piece: Piece) -> None:
        self.read.append(piece)
        self.has_read.set()


async def test_pieces_of_all_connections_are_read_in_the_order_and_with_the_times_in_which_they_passed() -> None:
    reader = Reader()
    reader.passed("one", b"a")
    reader.now = 6.0
    reader.passed("two", b"b")
    reader.passed("one", b"c")
    reader.now = 9.0
    assert reader.read == []
    await asyncio.wait_for(reader.has_read.wait(), WAIT_S)
    assert reader.read == [("one", b"a", 5.0), ("two", b"b", 6.0), ("one", b"c", 6.0)]


async def test_who_asks_for_all_gets_it_at_once_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "DELAY_S", 3_600.0)
    reader = Reader()
    reader.passed("one", b"a")
    reader.backlog.read()
    reader.backlog.read()
    assert reader.read == [("one", b"a", 5.0)]


@pytest.mark.parametrize(("size", "most"), [(1, MAX_PIECES), (MAX_BYTES // 4, 5)])
async def test_no_more_waits_than_the_bounds_allow(monkeypatch: pytest.MonkeyPatch, size: int, most: int) -> None:
    monkeypatch.setattr(backlog_module, "DELAY_S", 3_600.0)
    reader = Reader()
    for number in range(1, 2 * most + 1):
        reader.passed("one", bytes(size))
        assert len(reader.read) == number // most * most


async def test_what_passes_while_the_rest_is_read_is_read_after_it() -> None:
    reader = Reader()
    reader.backlog.add(lambda _piece, _at: reader.passed("two", b"b"), b"a")
    reader.backlog.read()
    assert reader.read == []
    reader.backlog.read()
    assert reader.read == [("two", b"b", 5.0)]
