"""Events as the relay tells them, made by hand."""

from __future__ import annotations

from app.loom.call import Answered, Direction, Ended, Ending, Event, HalfClosed, Headers, Message, Started, Status

SECRET: Headers = ((b":path", b"/a.S/M"), (b"authorization", b"Bearer s3cret"), (b"x-id", b"1"), (b"x-id", b"2"))


def started(call: int, method: str = "/a.S/M", at: float = 0.0, headers: Headers = SECRET) -> Started:
    return Started(call, at, 1_700_000_000.25 + at, 1, 2 * call + 1, "127.0.0.1:5", method, "host:1", headers, 1.5)


def message(call: int, direction: Direction, position: int, data: bytes, at: float = 0.0, more: int = 0) -> Message:
    return Message(call, at, direction, position, compressed=False, data=data, size=len(data) + more)


def request(call: int, data: bytes, position: int = 0, at: float = 0.0) -> Message:
    return message(call, Direction.REQUEST, position, data, at)


def response(call: int, data: bytes, position: int = 0, at: float = 0.0) -> Message:
    return message(call, Direction.RESPONSE, position, data, at)


def ended(call: int, status: Status = Status.OK, at: float = 0.5, requests: int = 1, responses: int = 1) -> Ended:
    trailers = ((b"grpc-status", str(status.value).encode()), (b"set-cookie", b"s3cret"))
    text = "" if status is Status.OK else "it broke"
    return Ended(call, at, Ending.TRAILERS, status, text, trailers, 200, None, requests, responses)


def unary(call: int, data: bytes = b"ask", status: Status = Status.OK, method: str = "/a.S/M") -> list[Event]:
    return [
        started(call, method),
        request(call, data, at=0.1),
        HalfClosed(call, 0.1),
        Answered(call, 0.2, ((b":status", b"200"), (b"cookie", b"s3cret"))),
        response(call, b"answer", at=0.4),
        ended(call, status),
    ]
