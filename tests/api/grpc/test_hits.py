"""What L1 holds, answered as bytes that stand ready; compared with what the real encoder makes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.grpc import convert
from app.api.grpc.hits import READY_OVERHEAD_BYTES, Hits
from app.api.grpc.server import GrpcServer
from app.domain.template import MAX_ID, Template
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest, GetTemplateDetailsResponse
from app.service import to_payload
from tests.api.grpc.fake_cache import FakeCache, FakeReading, service_over


@dataclass(eq=False)
class Held:
    payload: bytes
    created_at: float = 1_000.0


class Memory:
    """What L1 holds, by key; its clock stands at `now`."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.now = 1_000.0

    def put(self, template_id: int, body: str = "Dear {{name}}", version: int = 3) -> Held:
        template = Template(template_id, "welcome", body, version, datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC))
        self.held[str(template_id)] = held = Held(to_payload(template))
        return held

    def hits(self, **options: int) -> Hits:
        return Hits(self.held.get, now=lambda: self.now, **options)


@given(
    template_id=st.integers(1, MAX_ID),
    body=st.text(max_size=300),
    age_us=st.one_of(st.just(0), st.integers(0, 10**6 * 3_600)),
)
def test_the_bytes_decode_to_what_the_real_encoder_makes(template_id: int, body: str, age_us: int) -> None:
    memory = Memory()
    held = memory.put(template_id, body)
    held.created_at = 0.0
    memory.now = age_us / 1e6
    answer = memory.hits().answer(template_id)
    assert answer is not None
    decoded = GetTemplateDetailsResponse.FromString(answer)
    expected = convert.details(FakeReading(held.payload, source="l1", age_s=0))
    assert abs(decoded.age.ToMicroseconds() - age_us) <= 1
    decoded.age.Clear()
    expected.age.Clear()
    assert decoded == expected


def test_a_clock_that_stepped_back_makes_no_negative_age() -> None:
    memory = Memory()
    memory.put(1)
    memory.now = 900.0
    answer = memory.hits().answer(1)
    assert answer is not None
    assert GetTemplateDetailsResponse.FromString(answer).age.ToMicroseconds() == 0


def test_what_is_not_held_is_left_to_the_service() -> None:
    assert Memory().hits().answer(1) is None


def test_a_value_that_was_replaced_is_encoded_anew() -> None:
    memory = Memory()
    hits = memory.hits()
    for version in (3, 4):
        memory.put(1, version=version)
        answer = hits.answer(1)
        assert answer is not None
        assert GetTemplateDetailsResponse.FromString(answer).template.version == version


def test_a_value_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    memory.put(1)
    hits = memory.hits()
    first = hits.answer(1)
    monkeypatch.setattr(convert, "template", None)
    assert hits.answer(1) == first


def test_messages_that_stand_ready_are_bounded_by_their_size_and_none_is_lost_by_it() -> None:
    memory = Memory()
    size = READY_OVERHEAD_BYTES + 2 * 1_100
    hits = memory.hits(max_ready_bytes=3 * size)
    for template_id in range(1, 21):
        memory.put(template_id, body="x" * 1_000)
        assert hits.answer(template_id) is not None
        assert len(hits._ready) <= 3
        assert hits._ready_bytes <= 3 * size
    memory.put(99, body="x" * 60_000)
    assert hits.answer(99) is not None
    assert (hits._ready, hits._ready_bytes) == ({}, 0)


@pytest.mark.parametrize("template_id", [0, -1, -(2**63)])
async def test_over_the_wire_what_is_held_is_answered_and_all_else_is_the_services(template_id: int) -> None:
    memory, cache = Memory(), FakeCache()
    memory.put(7)
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, fresh=memory.held.get)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            get = channel.unary_unary("/template.v1.TemplateService/GetTemplateDetails")
            answer = await get(GetTemplateDetailsRequest(id=7).SerializeToString(), timeout=10)
            assert GetTemplateDetailsResponse.FromString(answer).template.name == "welcome"
            assert cache.asked == []
            refused = get(GetTemplateDetailsRequest(id=template_id).SerializeToString(), timeout=10)
            assert await refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        await server.drain(1)
