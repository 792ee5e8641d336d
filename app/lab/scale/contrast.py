"""The same fleet without lease and L1, in a process of its own, since two processors do more than one."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection

from app.lab.scale.outcome import Outcome
from app.lab.scale.plan import Phase, Plan
from app.lab.scale.theory import loads_a_life
from app.lab.scale.world import simulate
from app.settings import Mode

TOGETHER_S = 1.0


def singleflight(plan: Plan) -> Plan:
    """A cold start and one end of each life. Clocks agree: where they differ not all see the same end at once."""
    return replace(
        plan,
        mode=Mode.SINGLEFLIGHT,
        phases=(Phase("cold", plan.ttl_s / 2), Phase("calm", plan.ttl_s)),
        skew_s=0.0,
        writes_a_s=0.0,
        crashes=0,
        failover_at_s=None,
    )


class Aside:
    """A simulation that runs meanwhile."""

    def __init__(self, receiver: Connection) -> None:
        self._receiver = receiver

    def outcome(self) -> Outcome:
        """Once it has ended. Raises `EOFError` where it was ended before."""
        outcome: Outcome = self._receiver.recv()
        return outcome


@contextmanager
def aside(plan: Plan, seed: int) -> Iterator[Aside]:
    """Begun; it ends with the context at the latest."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, plan, seed), name="simulation", daemon=True)
    process.start()
    sender.close()
    try:
        yield Aside(receiver)
    finally:
        process.terminate()
        process.join()
        receiver.close()


def _run(sender: Connection, plan: Plan, seed: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    sender.send(simulate(plan, seed))


def counted_loads_a_life(outcome: Outcome, began: float = 0.0, end: float = math.inf) -> dict[str, float]:
    """By key, the mean number of loads that belong together: each begun within `TOGETHER_S` of the one before it."""
    times: dict[str, list[float]] = defaultdict(list)
    for at, key in outcome.loads:
        if began <= at < end:
            times[key].append(at)
    return {
        key: len(each) / (1 + sum(later - earlier > TOGETHER_S for earlier, later in itertools.pairwise(each)))
        for key, each in times.items()
    }


def derived_rate(plan: Plan, replicas: float) -> float:
    """Loads a second where each of so many processes loads for itself (infinite: each read)."""
    return sum(
        loads_a_life(plan, rank, replicas) / (plan.ttl_s * (1 - plan.settings.cache_ttl_jitter / 2) + plan.load_s)
        for rank in range(1, plan.keys + 1)
    )
