"""What is made of the bytes of one connection: a transcript goes in, the account of its calls comes out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loom.call import Ended, Ending, Event, HalfClosed, Started, Status, StreamKind
from tests.loom.account import Account, Call, values
from tests.loom.transcript import BUDGET_BYTES, CANCEL, Transcript
from tests.loom.wire import OK_TRAILERS, REQUEST_HEADERS, RESPONSE_HEADERS, data, goaway, headers, message, reset


def test_a_unary_call_is_told_of_as_it_happens() -> None:
    seen: list[Event] = []

    class Watching(Account):
        def call(self, event: Event) -> None:
            seen.append(event)
            super().call(event)

    transcript = Transcript(account=Watching())
    transcript.ask(more=[("x-twice", "a"), ("x-twice", "b"), ("x-some-bin", "AAE"), ("grpc-timeout", "250m")])
    transcript.relay.client_bytes(data(1, message(b"ask"), end=True))
    transcript.now = 100.2
    transcript.answer()
    transcript.relay.backend_bytes(data(1, message(b"answer", compressed=True)))
    transcript.answer(fields=[("grpc-status", "5"), ("grpc-message", "no %e2%82%ac"), ("x-trailer", "t")], end=True)
    assert [type(event).__name__ for event in seen] == [
        "Started", "Message", "HalfClosed", "Answered", "Message", "Ended",
    ]  # fmt: skip
    started, ended = seen[0], seen[-1]
    assert isinstance(started, Started)
    assert isinstance(ended, Ended)
    assert (started.method, started.authority, started.timeout_s) == ("/test.Echo/Unary", "example.test", 0.25)
    assert (started.connection, started.peer, started.stream) == (7, "192.0.2.1:1234", 1)
    assert (started.at, started.wall, ended.at) == (100.0, 1_700_000_000.0, 100.2)
    assert [name for name, _ in started.headers] == [
        *(name.encode() for name, _ in REQUEST_HEADERS), b"x-twice", b"x-twice", b"x-some-bin", b"grpc-timeout",
    ]  # fmt: skip
    assert values(started.headers, "x-twice") == [b"a", b"b"]
    assert (ended.status, ended.message, ended.ending) == (Status.NOT_FOUND, "no €", Ending.TRAILERS)
    assert values(ended.trailers, "x-trailer") == [b"t"]
    (call,) = transcript.calls
    assert [(found.data, found.compressed, found.size) for found in call.messages] == [
        (b"ask", False, 3),
        (b"answer", True, 6),
    ]


@given(st.lists(st.integers(0, 2_000), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    def events(split: list[int]) -> list[Call]:
        transcript = Transcript()
        asked = b"".join(
            headers(transcript.client, stream, [*REQUEST_HEADERS, ("x-n", "v" * 300)], in_frames=3)
            + data(stream, message(b"a" * 100) + message(b"")[:2])
            + data(stream, message(b"")[2:] + message(b"b", compressed=True), end=True, padding=9)
            for stream in (1, 3)
        )
        answered = b"".join(
            headers(transcript.backend, stream, RESPONSE_HEADERS)
            + data(stream, message(b"c" * 50), padding=0)
            + headers(transcript.backend, stream, OK_TRAILERS, end=True)
            for stream in (3, 1)
        )
        for whole, feed in ((asked, transcript.relay.client_bytes), (answered, transcript.relay.backend_bytes)):
            bounds = [0, *sorted(cut % (len(whole) + 1) for cut in split), len(whole)]
            for start, end in itertools.pairwise(bounds):
                feed(whole[start:end])
        assert transcript.budget.left == BUDGET_BYTES
        return transcript.calls

    whole = events([])
    assert [call.end.status for call in whole] == [Status.OK, Status.OK]
    assert whole[0].requests == [b"a" * 100, b"", b"b"]
    assert events(cuts) == whole


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=120)), max_size=12))
def test_no_bytes_raise(pieces: list[tuple[bool, bytes]]) -> None:
    transcript = Transcript()
    transcript.ask()
    for from_client, piece in pieces:
        (transcript.relay.client_bytes if from_client else transcript.relay.backend_bytes)(piece)
    transcript.relay.end(Ending.CLIENT_LOST)
    assert all(call.ended for call in transcript.calls)
    assert transcript.budget.left == BUDGET_BYTES


@pytest.mark.parametrize("status", list(Status))
def test_trailers_only_is_recorded_with_its_status_and_all_its_metadata(status: Status) -> None:
    transcript = Transcript()
    transcript.ask(end=True)
    transcript.answer(fields=[*RESPONSE_HEADERS, ("grpc-status", str(status.value)), ("x-why", "so")], end=True)
    assert (transcript.end.status, transcript.end.ending) == (status, Ending.TRAILERS_ONLY)
    assert values(transcript.end.trailers, "x-why") == [b"so"]
    assert transcript.calls[0].answered is None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (0x0, Status.INTERNAL),
        (0x1, Status.INTERNAL),
        (0x2, Status.INTERNAL),
        (0x7, Status.UNAVAILABLE),
        (0x8, Status.CANCELLED),
        (0xB, Status.RESOURCE_EXHAUSTED),
        (0xC, Status.PERMISSION_DENIED),
        (0x7FFF, Status.INTERNAL),
    ],
)
def test_a_reset_of_the_backend_has_the_status_that_clients_make_of_its_code(code: int, status: Status) -> None:
    transcript = Transcript()
    transcript.ask()
    transcript.answer()
    transcript.relay.backend_bytes(reset(1, code))
    assert (transcript.end.status, transcript.end.reset_code) == (status, code)
    assert transcript.end.ending is Ending.RESET_BY_BACKEND


@pytest.mark.parametrize(
    ("elapsed_s", "status"),
    [
        (0.01, Status.CANCELLED),
        (0.9, Status.CANCELLED),
        (0.96, Status.DEADLINE_EXCEEDED),
        (1.3, Status.DEADLINE_EXCEEDED),
    ],
)
def test_a_reset_at_the_deadline_is_the_deadline_and_one_before_it_a_cancellation(
    elapsed_s: float, status: Status
) -> None:
    transcript = Transcript()
    transcript.ask(more=[("grpc-timeout", "1S")])
    transcript.now += elapsed_s
    transcript.relay.client_bytes(reset(1, CANCEL))
    assert (transcript.end.status, transcript.end.ending) == (status, Ending.RESET_BY_CLIENT)


@pytest.mark.parametrize("is_trailers_only", [False, True], ids=["trailers", "trailers only"])
@pytest.mark.parametrize(
    ("elapsed_s", "status", "message"),
    [(0.999, Status.OK, ""), (1.0, Status.DEADLINE_EXCEEDED, "the client's deadline was over")],
)
def test_an_answer_that_comes_past_the_deadline_is_none_to_the_client(
    elapsed_s: float, status: Status, message: str, is_trailers_only: bool
) -> None:
    transcript = Transcript()
    transcript.ask(more=[("grpc-timeout", "1S")], end=True)
    if not is_trailers_only:
        transcript.answer()
    transcript.now += elapsed_s
    transcript.answer(fields=[*RESPONSE_HEADERS, *OK_TRAILERS] if is_trailers_only else OK_TRAILERS, end=True)
    assert (transcript.end.status, transcript.end.message) == (status, message)
    assert values(transcript.end.trailers, "grpc-status") == [b"0"]
    assert transcript.end.ending is (Ending.TRAILERS_ONLY if is_trailers_only else Ending.TRAILERS)


@pytest.mark.parametrize("elapsed_s", [0.9, 1.0])
@pytest.mark.parametrize("ended_by", [reset(1, 0x2), data(1, b"", end=True)], ids=["reset", "no trailers"])
def test_a_backend_that_ends_a_call_past_the_deadline_ends_none_for_the_client(
    ended_by: bytes, elapsed_s: float
) -> None:
    transcript = Transcript()
    transcript.ask(more=[("grpc-timeout", "1S")], end=True)
    transcript.answer()
    transcript.now += elapsed_s
    transcript.relay.backend_bytes(ended_by)
    assert (transcript.end.status is Status.DEADLINE_EXCEEDED) == (elapsed_s >= 1)


@pytest.mark.parametrize(
    ("http_status", "status"),
    [
        ("400", Status.INTERNAL),
        ("401", Status.UNAUTHENTICATED),
        ("403", Status.PERMISSION_DENIED),
        ("404", Status.UNIMPLEMENTED),
        ("429", Status.UNAVAILABLE),
        ("502", Status.UNAVAILABLE),
        ("503", Status.UNAVAILABLE),
        ("504", Status.UNAVAILABLE),
        ("500", Status.UNKNOWN),
        ("418", Status.UNKNOWN),
    ],
)
def test_an_http_status_stands_in_for_grpcs_even_where_the_client_then_resets(http_status: str, status: Status) -> None:
    html = [(":status", http_status), ("content-type", "text/html")]
    transcript = Transcript()
    transcript.ask(end=True)
    transcript.answer(fields=html, end=True)
    assert (transcript.end.status, transcript.end.http_status) == (status, int(http_status))
    transcript = Transcript()
    transcript.ask(end=True)
    transcript.answer(fields=html)
    transcript.relay.backend_bytes(data(1, b"<html>"))
    transcript.relay.client_bytes(reset(1, CANCEL))
    assert (transcript.end.status, transcript.end.http_status, transcript.end.responses) == (
        status,
        int(http_status),
        0,
    )


def test_an_end_without_a_status_is_unknown() -> None:
    transcript = Transcript()
    transcript.ask(end=True)
    transcript.answer()
    transcript.relay.backend_bytes(data(1, message(b"answer"), end=True))
    assert (transcript.end.status, transcript.end.ending, transcript.end.responses) == (
        Status.UNKNOWN, Ending.NO_TRAILERS, 1,
    )  # fmt: skip
    transcript = Transcript()
    transcript.ask(end=True)
    transcript.answer()
    transcript.answer(fields=[("x-trailer", "t")], end=True)
    assert (transcript.end.status, transcript.end.ending) == (Status.UNKNOWN, Ending.TRAILERS)


def test_informational_headers_are_not_the_answer() -> None:
    transcript = Transcript()
    transcript.ask(end=True)
    transcript.answer(fields=[(":status", "103"), ("link", "x")])
    transcript.answer()
    transcript.answer(fields=OK_TRAILERS, end=True)
    assert (transcript.end.status, transcript.end.http_status, transcript.end.ending) == (
        Status.OK, 200, Ending.TRAILERS,
    )  # fmt: skip


def test_goaway_refuses_the_streams_above_its_last_one_and_those_that_come_later() -> None:
    transcript = Transcript()
    for stream in (1, 3, 5):
        transcript.ask(stream)
    transcript.relay.backend_bytes(goaway(0x7FFFFFFF))
    assert transcript.relay.live == 3
    transcript.relay.backend_bytes(goaway(3))
    assert transcript.relay.live == 2
    transcript.ask(7)
    for stream in (1, 3):
        transcript.answer(stream)
        transcript.answer(stream, OK_TRAILERS, end=True)
    assert [(call.started.stream, call.end.status, call.end.ending) for call in transcript.calls] == [
        (1, Status.OK, Ending.TRAILERS),
        (3, Status.OK, Ending.TRAILERS),
        (5, Status.UNAVAILABLE, Ending.REFUSED),
        (7, Status.UNAVAILABLE, Ending.REFUSED),
    ]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (Ending.BACKEND_LOST, Status.UNAVAILABLE),
        (Ending.CUT, Status.UNAVAILABLE),
        (Ending.CLIENT_LOST, Status.CANCELLED),
    ],
)
def test_a_lost_connection_ends_its_live_calls_and_gives_back_what_they_kept(ending: Ending, status: Status) -> None:
    transcript = Transcript()
    transcript.unary(1)
    transcript.ask(3)
    transcript.relay.client_bytes(data(3, message(b"half a message")[:-3]))
    assert transcript.budget.left < BUDGET_BYTES
    transcript.relay.end(ending)
    done, lost = transcript.calls
    assert (done.end.status, lost.end.status, lost.end.ending) == (Status.OK, status, ending)
    assert transcript.budget.left == BUDGET_BYTES


def test_what_comes_for_a_stream_that_is_over_is_no_new_call() -> None:
    transcript = Transcript()
    transcript.unary(1)
    transcript.relay.client_bytes(headers(transcript.client, 1, [("x-late", "trailers")], end=True))
    transcript.relay.client_bytes(data(1, message(b"late")) + reset(1, CANCEL))
    transcript.relay.backend_bytes(reset(1, 0))
    transcript.unary(3)  # the late block was decoded all the same: the tables are still in step
    assert [call.end.status for call in transcript.calls] == [Status.OK, Status.OK]
    assert transcript.calls[1].started.headers == transcript.calls[0].started.headers


def test_client_trailers_half_close() -> None:
    transcript = Transcript()
    transcript.ask()
    transcript.relay.client_bytes(headers(transcript.client, 1, [("x-client", "trailers")], end=True))
    (call,) = transcript.calls
    assert isinstance(call.half_closed, HalfClosed)


@pytest.mark.parametrize(
    ("requests", "responses", "kind"),
    [
        (1, 1, StreamKind.UNARY),
        (1, 2, StreamKind.SERVER_STREAMING),
        (1, 0, StreamKind.SERVER_STREAMING),
        (0, 1, StreamKind.CLIENT_STREAMING),
        (2, 1, StreamKind.CLIENT_STREAMING),
        (2, 0, StreamKind.BIDI_STREAMING),
    ],
)
def test_the_kind_is_what_traffic_shows(requests: int, responses: int, kind: StreamKind) -> None:
    transcript = Transcript()
    transcript.ask()
    transcript.relay.client_bytes(data(1, message(b"ask") * requests, end=True))
    transcript.answer()
    transcript.relay.backend_bytes(data(1, message(b"answer") * responses))
    transcript.answer(fields=OK_TRAILERS, end=True)
    assert transcript.end.kind is kind
