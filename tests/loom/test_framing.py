"""Frames and messages out of bytes that come in any pieces, right or wrong."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loom.proxy import framing
from app.loom.proxy.framing import PREFACE, Budget, CutMessage, Frame, FrameParser, MessageParser
from tests.loom.wire import PING, data, frame, goaway, message, settings

MAX_PAYLOAD = 64
KINDS = st.sampled_from([framing.DATA, framing.HEADERS, framing.CONTINUATION, framing.GOAWAY, 0x2, PING, 0x8, 0x77])


@st.composite
def some_frames(draw: st.DrawFn) -> bytes:
    """Frames of all kinds, some with flags that their payload contradicts, some too long to keep."""
    written = b""
    for _ in range(draw(st.integers(1, 6))):
        payload = draw(st.binary(max_size=90))
        written += frame(draw(KINDS), draw(st.integers(0, 255)), draw(st.integers(0, 9)), payload)
    return written


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in pairwise(bounds) if end > start]


def joined(frames: list[Frame]) -> list[Frame]:
    """The pieces of each DATA frame put together."""
    whole: list[Frame] = []
    for piece in frames:
        if whole and not whole[-1].is_last:
            before = whole.pop()
            piece = piece._replace(payload=(before.payload or b"") + (piece.payload or b""))
        whole.append(piece)
    return whole


def parse(parts: list[bytes], *, skip: int = 0) -> tuple[list[Frame], bool, int | None]:
    """The frames, whether the end is a boundary, and the last boundary from the beginning."""
    parser = FrameParser(max_payload_bytes=MAX_PAYLOAD, skip=skip)
    frames: list[Frame] = []
    passed, boundary = 0, None
    for part in parts:
        frames += parser.feed(part)
        if parser.boundary is not None:
            boundary = passed + parser.boundary
        passed += len(part)
    return joined(frames), parser.at_boundary, boundary


@given(some_frames(), st.lists(st.integers(0, 1000), max_size=20))
def test_any_split_gives_the_same_frames_and_boundaries(whole: bytes, cuts: list[int]) -> None:
    assert parse(pieces(whole, cuts)) == parse([whole])


@given(some_frames())
def test_bytes_one_by_one_give_the_same_frames_and_boundaries(whole: bytes) -> None:
    assert parse([bytes([byte]) for byte in whole]) == parse([whole])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_no_bytes_raise_and_any_split_of_them_is_read_alike(whole: bytes, cuts: list[int]) -> None:
    assert parse(pieces(whole, cuts), skip=3) == parse([whole], skip=3)


@given(st.lists(st.integers(0, 60), max_size=6))
def test_the_preface_may_be_split_anywhere(cuts: list[int]) -> None:
    frames, at_boundary, _ = parse(pieces(PREFACE + settings(header_table_size=1), cuts), skip=len(PREFACE))
    assert [(found.kind, len(found.payload or b"")) for found in frames] == [(framing.SETTINGS, 6)]
    assert at_boundary


def test_padding_and_priority_are_taken_off() -> None:
    payload = bytes([3]) + bytes(5) + b"block" + bytes(3)
    flags = framing.PADDED | framing.PRIORITY | framing.END_HEADERS
    frames, _, _ = parse([frame(framing.HEADERS, flags, 1, payload) + data(1, b"body", padding=7)])
    assert [found.payload for found in frames] == [b"block", b"body"]


def test_a_padded_frame_of_data_is_over_only_with_its_padding() -> None:
    parser = FrameParser(max_payload_bytes=MAX_PAYLOAD)
    whole = data(1, b"body", end=True, padding=7)
    found = [
        ([(piece.payload, piece.is_last) for piece in parser.feed(part)], parser.at_boundary)
        for part in (whole[:-1], whole[-1:])
    ]
    assert found == [([(b"body", False)], False), ([(b"", True)], True)]


@pytest.mark.parametrize("padding", [4, 255])
def test_padding_longer_than_its_frame_leaves_no_header_block(padding: int) -> None:
    frames, _, _ = parse([frame(framing.HEADERS, framing.PADDED | framing.END_HEADERS, 1, bytes([padding]) + b"abc")])
    assert [found.payload for found in frames] == [None]


def test_a_frame_over_the_limit_is_told_of_without_its_payload_and_data_is_passed_on_at_any_length() -> None:
    long = bytes(MAX_PAYLOAD + 1)
    frames, _, _ = parse([frame(framing.HEADERS, framing.END_HEADERS, 1, long) + data(1, long) + settings()])
    assert [found.payload for found in frames] == [None, long, b""]


def test_nothing_may_be_put_in_between_headers_and_continuation() -> None:
    whole = frame(framing.HEADERS, 0, 1, b"a") + frame(framing.CONTINUATION, framing.END_HEADERS, 1, b"b")
    parser = FrameParser(max_payload_bytes=MAX_PAYLOAD)
    boundaries = []
    for part in (settings() + whole[:10], whole[10:-1], whole[-1:] + goaway(1)[:5]):
        parser.feed(part)
        boundaries.append((parser.boundary, parser.at_boundary))
    assert boundaries == [(len(settings()), False), (None, False), (1, False)]


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=6),
    st.lists(st.integers(0, 300), max_size=10),
    st.integers(0, 50),
)
def test_messages_are_the_same_for_any_split(
    bodies: list[tuple[bytes, bool]], cuts: list[int], keep_bytes: int
) -> None:
    whole = b"".join(message(body, compressed=compressed) for body, compressed in bodies)
    budget = Budget(1_000)
    parser = MessageParser(keep_bytes, budget)
    found = [cut for piece in pieces(whole, cuts) for cut in parser.feed(piece)]
    assert found == [CutMessage(compressed, len(body), body[:keep_bytes]) for body, compressed in bodies]
    assert not parser.is_partial
    assert budget.left == 1_000


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_no_bytes_make_the_message_parser_raise_or_keep_budget(whole: bytes, cuts: list[int]) -> None:
    budget = Budget(100)
    parser = MessageParser(50, budget)
    split = [found for piece in pieces(whole, cuts) for found in parser.feed(piece)]
    parser.close()
    assert budget.left == 100
    at_once = MessageParser(50, Budget(100)).feed(whole)
    assert [(found.size, found.data) for found in split] == [(found.size, found.data) for found in at_once]


def test_a_flag_that_is_none_ends_the_messages() -> None:
    parser = MessageParser(50, Budget(100))
    assert parser.feed(message(b"good") + b"\x02\0\0\0\0" + message(b"lost")) == [CutMessage(False, 4, b"good")]
    assert parser.is_broken
    assert parser.feed(message(b"lost")) == []


def test_messages_under_way_share_the_budget_and_what_does_not_fit_is_cut_and_not_lost() -> None:
    budget = Budget(6)
    first, second = MessageParser(50, budget), MessageParser(50, budget)
    assert first.feed(message(b"12345678")[:-1]) == []
    assert budget.left == 0
    assert second.feed(message(b"abc")[:-1]) == []
    assert first.feed(b"8") == [CutMessage(False, 8, b"123456")]
    assert budget.left == 6
    assert second.feed(b"c") == [CutMessage(False, 3, b"")]  # its beginning is gone, so its end is not kept alone
    assert budget.left == 6
