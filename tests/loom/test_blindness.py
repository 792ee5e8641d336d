"""What the relay can't read, or is not to keep: it says so, keeps its bounds, and lets everything pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hpack import HPACKError

from app.loom.call import Ending, Event, Headers, Message
from app.loom.proxy import framing
from app.loom.proxy.headers import HeaderDecoder
from app.loom.proxy.limits import Limits
from tests.loom import wire
from tests.loom.account import Account, values
from tests.loom.transcript import Transcript
from tests.loom.wire import OK_TRAILERS, REQUEST_HEADERS, RESPONSE_HEADERS, data, message


def test_header_tables_follow_the_sizes_that_the_peers_agree_on() -> None:
    transcript = Transcript()
    transcript.relay.backend_bytes(wire.settings(header_table_size=8_192))
    transcript.client.header_table_size = 8_192
    transcript.ask(1, [("x-long", "v" * 6_000)])
    transcript.client.header_table_size = 0
    transcript.ask(3, [("x-long", "w" * 100)])
    transcript.relay.backend_bytes(wire.settings(header_table_size=0))
    transcript.client.header_table_size = 4_096
    transcript.ask(5, [("x-long", "w" * 100)])
    assert not transcript.relay.is_blinded
    assert [values(call.started.headers, "x-long") for call in transcript.calls] == [
        [b"v" * 6_000], [b"w" * 100], [b"w" * 100],
    ]  # fmt: skip


def test_a_table_larger_than_agreed_on_blinds_the_connection() -> None:
    transcript = Transcript()
    transcript.client.header_table_size = 8_192
    transcript.ask()
    assert transcript.account.counts == {"blinded hpack": 1}


def test_equal_blocks_mean_other_headers_once_the_table_has_changed() -> None:
    transcript = Transcript()
    transcript.ask(1)
    transcript.ask(3)
    transcript.ask(5)  # from here on the block is all indices
    moved = transcript.client.encode([*REQUEST_HEADERS])
    transcript.ask(7, [("x-new", "entry")])
    transcript.relay.client_bytes(wire.frame(framing.HEADERS, framing.END_HEADERS, 9, moved))
    first, *_, last = transcript.calls
    assert last.started.headers != first.started.headers
    assert values(last.started.headers, "x-new") == [b"entry"]


def test_blocks_are_remembered_until_the_table_changes_and_a_table_of_no_size_never_does() -> None:
    read = 0

    def count(_: Headers) -> int:
        nonlocal read
        read += 1
        return read

    decoder = HeaderDecoder(count, max_list_bytes=1_000, max_table_bytes=4_096)
    literal = b"\x40\x01x\x01a"  # x: a, to be added to the table
    assert [decoder.decode(literal)[1] for _ in range(3)] == [1, 2, 3]
    assert [decoder.decode(b"\xbe")[1] for _ in range(3)] == [4, 4, 4]
    decoder.decode(literal)
    assert decoder.decode(b"\xbe") == (((b"x", b"a"),), 6)
    decoder.decode(b"\x20" + literal)  # from here on the table has no size
    assert [decoder.decode(literal) for _ in range(3)] == [(((b"x", b"a"),), 8)] * 3
    with pytest.raises(HPACKError):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (wire.frame(framing.HEADERS, framing.END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"), "hpack"),
        (wire.frame(framing.HEADERS, framing.END_HEADERS, 3, b"\xfe"), "hpack"),
        (wire.frame(framing.HEADERS, framing.END_HEADERS | framing.PADDED, 3, b"\x09abc"), "header_size"),
        (wire.frame(framing.CONTINUATION, framing.END_HEADERS, 3, b""), "framing"),
        (wire.frame(framing.HEADERS, 0, 3, b"") + data(3, b""), "framing"),
        (wire.frame(framing.HEADERS, 0, 3, b"") + wire.frame(framing.CONTINUATION, 4, 5, b""), "framing"),
        (wire.frame(framing.HEADERS, framing.END_HEADERS, 3, bytes(600)), "header_size"),
        (wire.frame(framing.HEADERS, 0, 3) + wire.frame(framing.CONTINUATION, 0, 3, bytes(300)) * 2, "header_size"),
        (wire.frame(framing.HEADERS, 0, 3) + wire.frame(framing.CONTINUATION, 0, 3) * 2_000, "header_size"),
    ],
)
def test_nonsense_blinds_the_connection_once_and_boundaries_are_still_kept(broken: bytes, why: str) -> None:
    transcript = Transcript(Limits(header_block_bytes=512))
    transcript.ask()
    transcript.relay.client_bytes(broken)
    transcript.relay.client_bytes(broken)
    assert transcript.account.counts == {f"blinded {why}": 1}
    assert (transcript.end.status, transcript.end.ending) == (None, Ending.UNSEEN)
    assert not transcript.relay.saw_all
    transcript.relay.backend_bytes(data(1, b"whatever") + data(1, b"cut")[:3])
    assert transcript.relay.boundary == len(data(1, b"whatever"))
    assert not transcript.relay.at_boundary


def test_a_small_block_that_unfolds_without_end_blinds_the_connection() -> None:
    transcript = Transcript()
    transcript.ask(1, [("x", "v" * 3_900)])
    transcript.relay.client_bytes(wire.frame(framing.HEADERS, framing.END_HEADERS, 3, b"\xbe" * 10_000))
    assert transcript.account.counts == {"blinded header_size": 1}


def test_a_listener_that_raises_is_told_of_no_more_and_nothing_is_raised() -> None:
    class Broken(Account):
        def call(self, event: Event) -> None:
            super().call(event)
            if isinstance(event, Message):
                raise ZeroDivisionError

    transcript = Transcript(account=Broken())
    transcript.unary()
    assert transcript.account.counts == {"blinded tap": 1}
    assert transcript.end.ending is Ending.UNSEEN


def test_streams_past_the_limit_pass_untold_and_are_counted() -> None:
    transcript = Transcript(Limits(streams=2))
    for stream in (1, 3, 5):
        transcript.ask(stream)
    assert transcript.account.counts == {"untracked": 1}
    assert not transcript.relay.saw_all
    transcript.answer(5, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True)
    transcript.answer(1, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True)
    transcript.unary(7)
    assert [call.started.stream for call in transcript.calls if call.ended] == [1, 7]


def test_a_message_over_the_cap_is_cut_and_marked_and_counted_whole() -> None:
    transcript = Transcript(replace(Limits(), message_bytes=10))
    transcript.ask()
    whole = message(b"m" * 100_000)
    for start in range(0, len(whole), 16_384):
        transcript.relay.client_bytes(data(1, whole[start : start + 16_384]))
    (call,) = transcript.calls
    (found,) = call.messages
    assert (found.data, found.size, found.is_cut) == (b"m" * 10, 100_000, True)


def test_bytes_that_are_no_messages_are_not_taken_for_any() -> None:
    transcript = Transcript()
    transcript.ask()
    transcript.relay.client_bytes(data(1, b"\x09" + message(b"none")))
    assert transcript.account.counts == {"unreadable": 1}
    transcript.answer(fields=[(":status", "200"), ("content-type", "text/plain")])
    transcript.relay.backend_bytes(data(1, message(b"text that looks like one")))
    (call,) = transcript.calls
    assert call.messages == []
