"""What Loom told of its calls, put together call by call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from app.loom.call import Answered, Direction, Ended, Event, HalfClosed, Headers, Message, Started
from app.loom.proxy.events import Blindness, Culprit, Refusal

WAIT_S = 10.0


@dataclass
class Call:
    """One call's account."""

    started: Started
    answered: Answered | None = None
    half_closed: HalfClosed | None = None
    ended: Ended | None = None
    messages: list[Message] = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.started.method

    @property
    def requests(self) -> list[bytes]:
        return [message.data for message in self.messages if message.direction is Direction.REQUEST]

    @property
    def responses(self) -> list[bytes]:
        return [message.data for message in self.messages if message.direction is Direction.RESPONSE]

    @property
    def end(self) -> Ended:
        assert self.ended is not None
        return self.ended


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Until it holds; for what nobody tells of."""
    async with asyncio.timeout(WAIT_S):
        while not await holds():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


async def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        (await asyncio.open_connection("127.0.0.1", port))[1].close()
    except OSError:
        return True
    return False


def values(headers: Headers, name: str) -> list[bytes]:
    return [value for key, value in headers if key == name.encode()]


class Account:
    """Listens to a proxy on the same event loop. Fails where the order of events is not what it promises."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.counts: Counter[str] = Counter()
        self.lost: list[tuple[int, bool]] = []
        self.faults: list[str] = []
        self._changed = asyncio.Event()

    def call(self, event: Event) -> None:
        try:
            self._add(event)
        except (AssertionError, KeyError) as error:
            self.faults.append(f"{event}: {error!r}")
        self._changed.set()

    def connected(self) -> None:
        self._count("connected")

    def disconnected(self, live: int, *, backend_lost: bool) -> None:
        self.lost.append((live, backend_lost))
        self._count("disconnected")

    def refused(self, why: Refusal) -> None:
        self._count(f"refused {why}")

    def dialled(self, seconds: float) -> None:
        assert seconds >= 0
        self._count("dialled")

    def dial_failed(self) -> None:
        self._count("dial failed")

    def blinded(self, why: Blindness) -> None:
        self._count(f"blinded {why}")

    def broken(self, who: Culprit) -> None:
        self._count(f"broken {who}")

    def untracked(self) -> None:
        self._count("untracked")

    def unreadable(self) -> None:
        self._count("unreadable")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until it holds, asked whenever something is told."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S} s; told of {self.counts} and {self.calls}") from None
        assert not self.faults

    async def ended(self, count: int = 1) -> list[Call]:
        """All calls, once so many have been started and all that were have ended."""
        await self.until(lambda: len(self.calls) >= count and all(call.ended for call in self.calls.values()))
        return list(self.calls.values())

    async def one(self) -> Call:
        """The only call, once it has ended."""
        (call,) = await self.ended()
        return call

    def _add(self, event: Event) -> None:
        if isinstance(event, Started):
            assert event.call not in self.calls
            self.calls[event.call] = Call(event)
            return
        call = self.calls[event.call]
        assert call.ended is None
        if isinstance(event, Answered):
            assert call.answered is None
            assert not call.responses
            call.answered = event
        elif isinstance(event, Message):
            same = call.requests if event.direction is Direction.REQUEST else call.responses
            assert event.position == len(same)
            call.messages.append(event)
        elif isinstance(event, HalfClosed):
            assert call.half_closed is None
            call.half_closed = event
        else:
            assert (event.requests, event.responses) == (len(call.requests), len(call.responses))
            call.ended = event

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self._changed.set()
