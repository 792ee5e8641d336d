"""Metadata that no well-behaved client sends, over a raw HTTP/2 connection, because grpc's own refuse to send it."""

from __future__ import annotations

import asyncio

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from app.api.grpc.interceptors.metadata import MAX_ENTRIES, MAX_NAME_CHARS
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from tests.api.grpc.interceptors.rig import METHODS, Rig

MESSAGE = b"\0\0\0\0\x02\x08\x07"


async def raw_call(port: int, *metadata: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    """The trailers of a unary call with this metadata."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    config = h2.config.H2Configuration(header_encoding=False, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{METHODS['Unary']}".encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    connection.send_headers(1, [*headers, *metadata])
    connection.send_data(1, MESSAGE, end_stream=True)
    writer.write(connection.data_to_send())
    told: dict[bytes, bytes] = {}
    try:
        async with asyncio.timeout(10):
            while True:
                for event in connection.receive_data(await reader.read(65_536)):
                    if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                        told |= dict(event.headers)
                    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        return told
                writer.write(connection.data_to_send())
    finally:
        writer.close()
        await writer.wait_closed()


async def test_plain_metadata_passes(rig: Rig) -> None:
    told = await raw_call(rig.port, (b"anything", b"a b\x7e"), (b"any-bin", b"AP8"))
    assert told[b"grpc-status"] == b"0"


@pytest.mark.parametrize("value", [b"\xc3\xa9", b"\xff", b"a\tb", b"a\x1bb", b"a\x7fb", b"a\x01"])
async def test_a_value_with_a_character_that_none_may_have_is_refused(rig: Rig, value: bytes) -> None:
    told = await raw_call(rig.port, (b"x-forged", value))
    assert told[b"grpc-status"] == b"3", told
    assert value not in told[b"grpc-message"]
    assert not rig.servicer.begun.is_set()
    assert await rig.ask("Unary", Question(id=7)) == [7]


async def test_metadata_of_very_many_entries_is_refused(rig: Rig) -> None:
    many = tuple((f"k{number}", "v") for number in range(MAX_ENTRIES + 1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask("Unary", Question(id=7), metadata=many)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 64 entries" in (caught.value.details() or "")
    assert rig.value("grpc_refusals_total", why="invalid_metadata") == 1


async def test_a_name_that_is_very_long_is_refused_without_being_repeated(rig: Rig) -> None:
    name = "n" * (MAX_NAME_CHARS + 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask("Unary", Question(id=7), metadata=((name, "v"),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert name not in (caught.value.details() or "")
    assert await rig.ask("Unary", Question(id=7), metadata=(("n" * MAX_NAME_CHARS, "v"),)) == [7]


async def test_bytes_under_a_name_that_says_so_may_be_any(rig: Rig) -> None:
    assert await rig.ask("Unary", Question(id=7), metadata=(("any-bin", bytes(range(256))),)) == [7]
