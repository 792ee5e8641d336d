"""An hour of the read path in mode `full`, in virtual time: who waits, and how often what is hot is loaded."""

from __future__ import annotations

import asyncio
import math
import random
from array import array
from dataclasses import dataclass

import pytest

from app.cache.least import LeastLoads
from tests.cache.world import Times, World

HOUR_S = 3600.0
KEYS, REQUESTS_A_S = 50, 1000.0
TIMES = Times(
    ttl=30.0,
    jitter=0.1,
    grace=10.0,
    stale_if_error=300.0,
    load=0.2,
    load_deadline=5.0,
    skew=0.0,
    beta=1.0,
    concurrent=16,
)
EULER_GAMMA = 0.577_215_664_9


@dataclass
class Outcome:
    """`waited` are the times of the reads that had to wait for anything at all."""

    loads: int
    least: int
    waited: array[float]
    early: int


async def _an_hour(world: World) -> Outcome:
    """Poisson reads of equally hot keys, each by one of the processes, and the least loads counted with them."""
    loop, draws = world.loop, random.Random(1)
    least = LeastLoads(TIMES.ttl, clock=loop.time)
    outcome = Outcome(0, 0, array("d"), 0)
    tasks: set[asyncio.Task[None]] = set()

    async def read(number: int, key: str) -> None:
        began = loop.time()
        await world.replicas[number].loader.read(key)
        if loop.time() > began:
            outcome.waited.append(began)

    keys = [str(number) for number in range(KEYS)]
    for key in keys:
        world.origin.commit(key, delete=False, delays=[0.0])
    fresh = [replica.loader.fresh for replica in world.replicas]
    at = 0.0
    while (at := at + draws.expovariate(REQUESTS_A_S)) < HOUR_S:
        if not loop.passes_to(at):
            await asyncio.sleep(at - loop.time())
        drawn = int(draws.random() * KEYS * len(fresh))
        key, number = keys[drawn % KEYS], drawn // KEYS
        outcome.least += least.is_needed(key)
        if fresh[number](key) is None:
            task = asyncio.create_task(read(number, key))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    outcome.loads = len(world.origin.loads)
    outcome.early = sum(replica.events.counts["early refresh"] for replica in world.replicas)
    return outcome


@pytest.mark.parametrize("state", ["up", "down"])
@pytest.mark.parametrize("exists", [True, False])
def test_of_a_crowd_those_whose_turn_comes_after_the_load_landed_find_its_value(state: str, exists: bool) -> None:
    """However short the load is: here it ends before half of the crowd has had its turn."""
    world = World("full", (0.0,), Times(load=0.0, redis_latency=0.0))
    if exists:
        world.origin.commit("1", delete=False, delays=[0.0])
    world.advance(0.01)
    world.server.change(state)

    async def crowd() -> None:
        world.server.commands = 0
        readings = await asyncio.gather(*(world.replicas[0].loader.read("1") for _ in range(400)))
        assert {reading.version for reading in readings} == {int(exists)}

    world.loop.run_until_complete(crowd())
    assert (len(world.origin.loads), world.server.commands) == (1, 2 if state == "up" else 1)
    world.close()


def _mean_lead_s(beta: float) -> float:
    """How long before the end of a life its early refresh begins, in the mean.

    A read that comes x before the end begins it with probability e^(−x/βδ) (XFetch, VLDB 2015), so of Poisson reads at
    rate r none has by x with probability exp(−a·e^(−x/βδ)), where a = rβδ. The mean over x > 0 is βδ·Ein(a), which is
    βδ(ln a + γ) for a ≫ 1; by one read in e^a the life ends first, and the next read after it loads, 1/r later.
    """
    rate = REQUESTS_A_S / KEYS
    scale = beta * TIMES.load
    a = rate * scale
    ein: float = sum((-1) ** (n + 1) * a**n / (n * math.factorial(n)) for n in range(1, 80))
    return scale * ein - math.exp(-a) / rate


@pytest.mark.slow
def test_in_an_hour_nobody_waits_after_the_first_load_and_loads_are_what_theory_says() -> None:
    world = World("full", (0.0, 0.0), TIMES)
    outcome = world.loop.run_until_complete(_an_hour(world))
    world.close()

    assert len(outcome.waited) >= KEYS
    # A key's first read may come late, and others of the key come while it is loaded; after that, none waits.
    assert max(outcome.waited) < 30 * KEYS / REQUESTS_A_S

    rate = REQUESTS_A_S / KEYS
    mean_life_s = TIMES.ttl * (1 - TIMES.jitter / 2)
    early_costs = KEYS * HOUR_S * (1 / (TIMES.ttl - _mean_lead_s(TIMES.beta)) - 1 / (TIMES.ttl + 1 / rate))
    assert outcome.loads <= 1.1 * (outcome.least + early_costs)
    by_theory = KEYS * HOUR_S / (mean_life_s - _mean_lead_s(TIMES.beta))
    assert outcome.loads == pytest.approx(by_theory, rel=0.02)
    assert outcome.early > 0.95 * outcome.loads
    print(outcome.loads, outcome.least, by_theory, early_costs, len(outcome.waited), max(outcome.waited))
