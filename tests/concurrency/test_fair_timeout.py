from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from app.concurrency.fair_timeout import LAG_S, TURNS, FairTimeout
from tests.ticks import Ticks


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_what_ends_in_time_is_left_alone_and_so_is_what_comes_after() -> None:
    async with FairTimeout(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)


async def test_past_its_time_the_wait_is_cancelled_and_a_timeout_raised() -> None:
    unwound = asyncio.Event()

    async def wait() -> None:
        async with FairTimeout(0.05):
            try:
                await asyncio.Event().wait()
            finally:
                unwound.set()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Ticks() as ticks:
            await wait()
    assert unwound.is_set()
    assert time.monotonic() - began > 0.045
    assert ticks.seconds < 0.05 + TURNS * 0.005 + 0.5


async def test_an_answer_that_came_while_the_loop_was_held_up_is_taken(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Interleaving: the wait begins; the answer arrives; the loop is held up past the deadline, and goes on."""
    ours, theirs = pair
    loop = asyncio.get_running_loop()

    def hold_up() -> None:
        theirs.sendall(b"answer")
        time.sleep(0.05 + 5 * LAG_S)

    loop.call_soon(hold_up)
    async with FairTimeout(0.05):
        assert await loop.sock_recv(ours, 100) == b"answer"


async def test_an_answer_in_two_parts_that_came_meanwhile_is_taken_too(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    loop = asyncio.get_running_loop()

    def hold_up() -> None:
        theirs.sendall(b"answer")
        time.sleep(0.05 + 5 * LAG_S)

    loop.call_soon(hold_up)
    async with FairTimeout(0.05):
        assert await loop.sock_recv(ours, 3) == b"ans"
        assert await loop.sock_recv(ours, 3) == b"wer"


async def test_a_loop_that_was_held_up_does_not_wait_for_ever_for_an_answer_that_does_not_come() -> None:
    asyncio.get_running_loop().call_soon(time.sleep, 0.05 + 5 * LAG_S)
    with pytest.raises(TimeoutError):
        async with Ticks() as ticks, FairTimeout(0.05):
            await asyncio.Event().wait()
    assert ticks.seconds < TURNS * 0.005 + 0.5


async def test_a_loop_that_is_held_up_all_the_time_does_not_put_the_end_off_for_ever() -> None:
    loop = asyncio.get_running_loop()
    held_up = 0
    holding = True

    def hold_up() -> None:
        nonlocal held_up
        held_up += 1
        time.sleep(2 * LAG_S)
        if holding and held_up < 100:
            loop.call_soon(hold_up)

    hold_up()
    with pytest.raises(TimeoutError):
        async with FairTimeout(0.05):
            await asyncio.Event().wait()
    holding = False
    assert held_up < 20


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def wait() -> None:
        async with FairTimeout(5.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_the_outer_one_of_two_ends_what_the_inner_one_does_not() -> None:
    ended: list[str] = []

    async def wait() -> None:
        async with FairTimeout(0.02):
            async with FairTimeout(5.0):
                await asyncio.Event().wait()
            ended.append("inner")

    with pytest.raises(TimeoutError):
        await wait()
    assert ended == []


async def test_an_error_of_the_body_passes() -> None:
    with pytest.raises(ValueError, match="of the body's"):
        async with FairTimeout(5.0):
            raise ValueError("of the body's")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_is_not_positive_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        FairTimeout(seconds)
