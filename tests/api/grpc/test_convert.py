from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest

from app.api.grpc import convert
from app.domain.template import Template
from app.proto.template.v1.template_pb2 import Source
from tests.api.grpc.fake_cache import UPDATED_AT, FakeReading, payload_of


def test_a_template_keeps_every_field_to_the_microsecond() -> None:
    message = convert.details(FakeReading(payload_of(2**63 - 1))).template
    assert (message.id, message.name, message.version) == (2**63 - 1, "welcome", 3)
    assert message.body == "Dear {{name}}, — 你好 😀"
    assert message.updated_at.ToDatetime(tzinfo=UTC) == UPDATED_AT


def test_the_time_of_another_zone_is_the_same_instant() -> None:
    stored = Template(1, "welcome", "", 1, UPDATED_AT.astimezone(timezone(timedelta(hours=2))))
    assert convert.template(stored).updated_at.ToJsonString() == "2026-11-21T03:04:05.678901Z"


@pytest.mark.parametrize("source", ["l1", "l2", "origin", "shared", "stale"])
def test_every_source_has_its_value(source: str) -> None:
    message = convert.details(FakeReading(payload_of(1), source=source))
    assert message.source == Source.Value(f"SOURCE_{source.upper()}")


def test_every_value_but_unspecified_is_used() -> None:
    assert {*convert.SOURCES.values(), Source.SOURCE_UNSPECIFIED} == set(Source.values())


def test_the_age_keeps_its_fraction_and_is_never_negative() -> None:
    assert convert.details(FakeReading(payload_of(1), age_s=1.25)).age.ToJsonString() == "1.250s"
    assert convert.details(FakeReading(payload_of(1), age_s=-0.001)).age.ToJsonString() == "0s"
