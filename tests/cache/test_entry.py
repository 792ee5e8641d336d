from __future__ import annotations

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.cache.entry import CorruptEntryError, Entry, decode, encode

seconds = st.floats(min_value=0, max_value=4e9, allow_nan=False)
entries = st.builds(
    Entry,
    payload=st.none() | st.binary(max_size=300),
    version=st.integers(0, 2**63 - 1),
    created_at=seconds,
    ttl_s=seconds,
    load_cost_s=seconds,
)


def decoded_or_refused(data: bytes) -> Entry | None:
    """What any bytes may come to: an entry or `CorruptEntryError`, and no other exception."""
    try:
        return decode(data)
    except CorruptEntryError:
        return None


def sealed(fields: bytes, body: bytes = b"-") -> bytes:
    """Fields that `encode` would not write, under a checksum that is right."""
    return b"tc1 %s %08x\n%s" % (fields, zlib.crc32(body, zlib.crc32(fields)), body)


@given(entries)
@example(Entry(b"", 1, 0.0, 0.0, 0.0))
@example(Entry(b"-", 1, 0.0, 0.0, 0.0))
@example(Entry(b"tc1 1\n\n", 1, 0.0, 0.0, 0.0))
def test_what_is_written_is_read_back_with_its_times_to_the_microsecond(entry: Entry) -> None:
    found = decode(encode(entry))
    assert (found.payload, found.version) == (entry.payload, entry.version)
    for name in ("created_at", "ttl_s", "load_cost_s"):
        assert abs(getattr(found, name) - getattr(entry, name)) <= 1e-6


def test_no_value_and_an_empty_value_are_two_things() -> None:
    assert decode(encode(Entry(None, 1, 0.0, 1.0, 0.0))).payload is None
    assert decode(encode(Entry(b"", 1, 0.0, 1.0, 0.0))).payload == b""


@given(st.binary(max_size=200))
def test_bytes_of_any_other_origin_are_refused(data: bytes) -> None:
    assert decoded_or_refused(data) is None


@given(entries, st.data())
def test_an_entry_cut_short_anywhere_is_refused(entry: Entry, data: st.DataObject) -> None:
    written = encode(entry)
    cut = data.draw(st.integers(0, len(written) - 1))
    assert decoded_or_refused(written[:cut]) is None


@given(entries, st.binary(min_size=1, max_size=20))
def test_an_entry_with_something_after_it_is_refused(entry: Entry, more: bytes) -> None:
    assert decoded_or_refused(encode(entry) + more) is None


@given(entries, st.data())
def test_an_entry_with_one_bit_turned_is_refused_wherever_it_is(entry: Entry, data: st.DataObject) -> None:
    written = bytearray(encode(entry))
    bit = data.draw(st.integers(0, len(written) * 8 - 1))
    written[bit // 8] ^= 1 << bit % 8
    assert decoded_or_refused(bytes(written)) is None


@pytest.mark.parametrize(
    "fields",
    [
        b"x 1.0 1.0 1.0 -1",
        b"1.5 1.0 1.0 1.0 -1",
        b"1 nan 1.0 1.0 -1",
        b"1 1.0 inf 1.0 -1",
        b"1 1.0 1.0 -inf -1",
        b"1 1.0 1e999 1.0 -1",
        b"1 1.0 1.0 one -1",
        b"1 1.0 1.0 1.0 \xff",
        b"9" * 5000 + b" 1.0 1.0 1.0 -1",  # more digits than Python converts
        b"-1 1.0 1.0 1.0 -1",
        b"1_0 1.0 1.0 1.0 -1",
        b"+1 1.0 1.0 1.0 -1",
        b"1 1.0 1.0 1.0 2",  # the length is not the body's
        b"1 1.0 1.0 1.0 -2",
    ],
)
def test_fields_out_of_order_are_refused_even_under_a_right_checksum(fields: bytes) -> None:
    assert decoded_or_refused(sealed(fields)) is None


def test_the_version_stands_where_the_server_side_script_looks_for_it() -> None:
    assert encode(Entry(b"x", 42, 1.0, 2.0, 3.0)).startswith(b"tc1 42 ")


def test_it_is_fresh_until_its_life_is_over_and_not_at_that_moment() -> None:
    entry = Entry(b"x", 1, created_at=100.0, ttl_s=2.0, load_cost_s=0.0)
    assert entry.is_fresh(100.0)
    assert entry.is_fresh(101.999)
    assert not entry.is_fresh(102.0)


def test_an_entry_from_a_clock_ahead_of_ours_has_age_zero() -> None:
    assert Entry(b"x", 1, created_at=100.0, ttl_s=2.0, load_cost_s=0.0).age_s(99.0) == 0.0
