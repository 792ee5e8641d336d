"""The W3C context as it comes and as it goes, without anything exported."""

from __future__ import annotations

import logging

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider

from app.telemetry.logs import _Unforgeable
from app.telemetry.tracing import MAX_TRACESTATE, incoming, is_traced, outgoing, span, trace_id

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def continued(*headers: tuple[str | bytes, str | bytes]) -> tuple[tuple[str, str], ...]:
    """What would go on from a request with these headers."""
    token = attach(incoming(headers))
    try:
        return outgoing()
    finally:
        detach(token)


def test_the_context_of_a_request_goes_on_as_it_came_as_text_and_as_bytes() -> None:
    assert continued(("traceparent", GOOD), ("tracestate", "a=1")) == (("traceparent", GOOD), ("tracestate", "a=1"))
    assert continued((b"traceparent", GOOD.encode())) == (("traceparent", GOOD),)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        GOOD[:-1],
        f"{GOOD}-",
        f"ff{GOOD[2:]}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}é-{SPAN}-01",
        "\xff" * 100_000,
    ],
    ids=repr,
)
def test_a_malformed_context_counts_as_absent(value: str) -> None:
    assert continued(("traceparent", value)) == ()
    assert continued(("traceparent", value.encode("utf-8"))) == ()


def test_two_parents_are_none_and_the_state_of_none_is_not_kept() -> None:
    assert continued(("traceparent", GOOD), ("traceparent", GOOD), ("tracestate", "a=1")) == ()
    assert continued(("tracestate", "a=1")) == ()


def test_states_are_joined_and_one_that_is_too_long_to_be_kept_is_left_out() -> None:
    parent = ("traceparent", GOOD)
    assert continued(parent, ("tracestate", "a=1"), ("tracestate", "b=2"))[1] == ("tracestate", "a=1,b=2")
    assert continued(parent, ("tracestate", f"a={'x' * MAX_TRACESTATE}")) == (parent,)


def test_nothing_goes_out_where_there_is_no_trace() -> None:
    assert (outgoing(), trace_id(), is_traced()) == ((), None, False)


def test_an_exception_is_an_error_by_its_class_and_its_text_stays_here() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with pytest.raises(ValueError, match="secret"), span(tracer, "work") as failing:
        raise ValueError("secret")
    with pytest.raises(KeyError), span(tracer, "work", answers=(LookupError,)) as answering:
        raise KeyError("secret")
    assert (failing.attributes, failing.events) == ({"error.type": "ValueError"}, ())  # type: ignore[attr-defined]
    assert failing.status.status_code is trace.StatusCode.ERROR  # type: ignore[attr-defined]
    assert answering.status.status_code is trace.StatusCode.UNSET  # type: ignore[attr-defined]


def test_a_log_line_within_a_trace_ends_with_its_id() -> None:
    def line() -> str:
        return _Unforgeable("%(message)s").format(logging.makeLogRecord({"msg": "hello"}))

    assert line() == "hello"
    token = attach(incoming([("traceparent", GOOD)]))
    try:
        assert line() == f"hello trace_id={TRACE}"
    finally:
        detach(token)
    assert line() == "hello"
