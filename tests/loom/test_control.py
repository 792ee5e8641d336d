"""What the intercept lane takes out of a connection before hyper-h2 reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loom.proxy import framing
from app.loom.proxy.control import ControlFilter
from app.loom.proxy.framing import PREFACE
from tests.loom.test_framing import pieces
from tests.loom.wire import PING, data, frame, goaway, settings

PINGS = frame(PING, 0, 0, b"12345678"), frame(PING, framing.ACK, 0, b"87654321")


@given(st.lists(st.integers(0, 300), max_size=20))
def test_goaway_and_ping_are_taken_out_whole_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    rest = [PREFACE, settings(), data(1, PINGS[0]), frame(framing.HEADERS, framing.END_HEADERS, 3, goaway(7))]
    whole = rest[0] + rest[1] + PINGS[0] + goaway(5, 2) + rest[2] + PINGS[1] + rest[3] + goaway(1)
    found = ControlFilter(takes_pings=True, skip=len(PREFACE))
    fed = [found.feed(piece) for piece in pieces(whole, cuts)]
    assert b"".join(kept for kept, _, _ in fed) == b"".join(rest)
    assert [payload for _, goaways, _ in fed for payload in goaways] == [goaway(5, 2)[9:], goaway(1)[9:]]
    assert b"".join(pings for _, _, pings in fed) == PINGS[0] + PINGS[1]


@pytest.mark.parametrize(
    "malformed", [frame(PING, 0, 0, b"1234567"), frame(PING, 0, 1, b"12345678"), frame(PING, 0, 0)]
)
def test_a_ping_that_breaks_the_protocol_is_left_to_who_says_so(malformed: bytes) -> None:
    assert ControlFilter(takes_pings=True).feed(malformed) == (malformed, [], b"")


def test_pings_stay_where_there_is_nobody_behind_to_answer_them() -> None:
    assert ControlFilter(takes_pings=False).feed(PINGS[0] + goaway(1)) == (PINGS[0], [goaway(1)[9:]], b"")


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_raise_and_none_but_goaway_and_ping_are_lost(written: list[bytes]) -> None:
    found = ControlFilter(takes_pings=False)
    passed = b"".join(found.feed(piece)[0] for piece in written)
    whole = b"".join(written)
    assert whole.startswith(passed) or framing.GOAWAY in whole
