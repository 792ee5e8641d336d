from __future__ import annotations

import asyncio
import socket
import time

import pytest

from app import health as module
from app.concurrency.fair_timeout import LAG_S
from app.health import Health, Report, Status


async def _yes() -> bool:
    return True


async def _no() -> bool:
    return False


@pytest.mark.parametrize(
    ("cache", "database", "status"),
    [
        (True, True, Status.READY),
        (True, False, Status.READY),
        (False, True, Status.READY),
        (False, False, Status.UNAVAILABLE),
    ],
)
async def test_ready_while_any_dependency_answers(cache: bool, database: bool, status: Status) -> None:
    checks = {True: _yes, False: _no}
    health = Health({"cache": checks[cache], "database": checks[database]})
    assert await health.report() == Report(status, {"cache": cache, "database": database})


@pytest.mark.parametrize("check", [_yes, _no])
async def test_draining_whatever_the_dependencies_say(check: module.Check) -> None:
    health = Health({"database": check})
    health.draining = True
    assert (await health.report()).status is Status.DRAINING


async def test_all_dependencies_are_asked_at_once() -> None:
    met = asyncio.Barrier(2)

    async def meet() -> bool:
        async with asyncio.timeout(5):
            await met.wait()
        return True

    assert (await Health({"cache": meet, "database": meet}).report()).status is Status.READY


async def test_a_dependency_that_hangs_does_not_answer_and_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_TIMEOUT_S", 0.01)
    cancelled = asyncio.Event()

    async def hang() -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    report = await Health({"cache": _yes, "database": hang}).report()
    assert report == Report(Status.READY, {"cache": True, "database": False})
    assert cancelled.is_set()


async def test_a_bug_in_a_check_is_not_taken_for_an_answer() -> None:
    async def broken() -> bool:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        await Health({"cache": broken}).report()


async def test_an_answer_that_came_while_the_event_loop_was_held_up_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_TIMEOUT_S", 0.05)
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def hold_up() -> None:
        theirs.sendall(b"PONG")
        time.sleep(0.05 + 5 * LAG_S)

    async def ask() -> bool:
        loop.call_soon(hold_up)
        return await loop.sock_recv(ours, 100) == b"PONG"

    with ours, theirs:
        assert (await Health({"cache": ask}).report()).status is Status.READY
