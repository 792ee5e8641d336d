"""The stream of an import, message by message."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from app.api.grpc.requests import DRAFTS_A_TURN, batches
from app.domain.errors import InvalidInputError
from app.domain.ports import ImportBatch
from app.proto.template.v1 import template_pb2 as pb


class Stream:
    """Reads give these one after the other, or raise them; then there are no more."""

    def __init__(self, *items: Any) -> None:
        self._items = list(items)

    async def read(self) -> Any:
        item = self._items.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item


EOF = grpc.aio.EOF


def message(*names: str, request_id: str = "") -> pb.ImportTemplatesRequest:
    return pb.ImportTemplatesRequest(templates=[pb.NewTemplate(name=name) for name in names], request_id=request_id)


async def taken(stream: Stream) -> list[ImportBatch]:
    return [batch async for batch in batches(stream)]


async def test_messages_become_batches_and_only_the_firsts_request_id_counts() -> None:
    found = await taken(
        Stream(message("a", "b", request_id="first"), message(request_id="\t"), message("c", request_id="x"), EOF, EOF)
    )
    assert [[draft.name for draft in batch.drafts] for batch in found] == [["a", "b"], [], ["c"]]
    assert [batch.request_id for batch in found] == ["first", None, None]


async def test_a_message_without_templates_brings_its_request_id_nevertheless() -> None:
    (batch,) = await taken(Stream(message(request_id="id"), EOF, EOF))
    assert (list(batch.drafts), batch.request_id) == ([], "id")


@pytest.mark.parametrize("place", [0, 1, DRAFTS_A_TURN - 1, DRAFTS_A_TURN, 2 * DRAFTS_A_TURN + 3])
async def test_an_offender_is_named_by_its_place_in_the_stream_over_messages_and_slices(place: int) -> None:
    names = ["good"] * place + ["", "good", ""]
    for cut in (0, 1, place):
        with pytest.raises(InvalidInputError) as caught:
            await taken(Stream(message(*names[:cut]), message(*names[cut:]), EOF, EOF))
        assert [violation.field for violation in caught.value.violations] == [f"templates[{place}].name"]


async def test_a_stream_that_was_broken_off_never_ends_well_though_its_end_is_told_first() -> None:
    """Interleaving: a read ends as at the end of the stream, and the cancellation comes while the next one is asked."""
    broken_off = batches(Stream(message("a"), EOF, asyncio.CancelledError()))
    assert len((await anext(broken_off)).drafts) == 1
    with pytest.raises(asyncio.CancelledError):
        await anext(broken_off)


async def test_a_message_of_very_many_templates_leaves_others_their_turns() -> None:
    """Counted in turns of the event loop, which no speed of the machine changes."""
    slices = 50
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(others())
    found = await taken(Stream(message(*["n"] * DRAFTS_A_TURN * slices), EOF, EOF))
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    assert len(found) == slices
    assert turns >= slices - 2
