"""Running one scenario."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import uvloop

from app.loadtest.runner import allow_files
from app.scenarios.catalogue import Scenario
from app.scenarios.compose_fleet import ComposeFleet
from app.scenarios.embedded_fleet import EmbeddedFleet
from app.scenarios.options import Options
from app.scenarios.promise import Verdict
from app.scenarios.stage import Stage
from app.scenarios.timeline import Mark, Second, Timeline

SPARE_FILES = 1_024


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario's run: the verdict, and all that it rests on. `began` is aware, `fleet` says what it ran on."""

    scenario: Scenario
    options: Options
    began: datetime
    fleet: str
    timeline: Timeline
    verdict: Verdict


def run(scenario: Scenario, options: Options, show: Callable[[Second | Mark], None]) -> Outcome:
    """Start what the scenario needs, play it, and stop all of it. `show` is told what happens, as it happens.

    Raises `ScenarioError`, `LoadtestError`, `EmbeddedError` and `ComposeError` where it can't be run; what was
    started is stopped then, as it is on `KeyboardInterrupt`.
    """
    allow_files(options.cold_keys + SPARE_FILES, "--cold-keys")
    began = datetime.now(UTC)
    kind = ComposeFleet if options.compose else EmbeddedFleet
    with kind(options.replicas, {**scenario.settings(options), **options.settings}) as fleet:

        async def play() -> Outcome:
            # What is here stays: no collection is to walk through it while answers are being timed.
            gc.collect()
            gc.freeze()
            timeline = Timeline(show)
            promises = await scenario.play(Stage(fleet, options, timeline))
            return Outcome(scenario, options, began, fleet.made_of, timeline, Verdict(scenario.name, promises))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(_cancelled_by_signals(play()))
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None
            finally:
                gc.unfreeze()


async def _cancelled_by_signals(play: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Cancelled by SIGTERM and SIGHUP, as `asyncio.Runner` does it for SIGINT.

    An exception that a handler raises would end up in whatever callback the loop is just in, and go no further.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - coroutines run in tasks
    if threading.current_thread() is not threading.main_thread():
        return await play

    def cancel(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, cancel) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return await play
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
