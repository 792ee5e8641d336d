from __future__ import annotations

import asyncio
import math
import random
from contextlib import aclosing

import grpc
import pytest

from app.client.canary import Canary
from app.client.endpoint import Endpoint
from app.client.errors import CallError
from app.proto.template.v1 import template_pb2 as pb
from tests.client.fake_service import (
    FakeService,
    details,
    details_asked_for,
    failing,
    giving,
    serving,
    state,
    telling,
    to,
)
from tests.faults.polling import until

ENDPOINT = Endpoint()


def within(hits: int, calls: int, percent: float) -> bool:
    """Whether so many are no surprise: within five standard deviations of the binomial distribution, 1 run in 10^6."""
    share = percent / 100
    return abs(hits - calls * share) <= 5 * math.sqrt(calls * share * (1 - share))


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan, math.inf])
def test_a_share_outside_0_to_100_percent_is_refused_and_the_old_one_stays(percent: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 100 percent"):
        Canary(ENDPOINT, percent)
    canary = Canary(ENDPOINT, 5)
    with pytest.raises(ValueError, match="from 0 to 100 percent"):
        canary.percent = percent
    assert canary.percent == 5


@pytest.mark.parametrize("by_template", [False, True])
@pytest.mark.parametrize("percent", [0, 0.5, 5, 50, 100])
def test_the_share_is_what_was_asked_for(percent: float, by_template: bool) -> None:
    canary = Canary(ENDPOINT, percent, by_template=by_template, draw=random.Random(1).random)
    assert within(sum(canary.takes(str(key)) for key in range(1, 20_001)), 20_000, percent)


def test_by_template_a_key_goes_one_way_and_a_higher_share_takes_none_back() -> None:
    canary = Canary(ENDPOINT, by_template=True)
    before: set[str] = set()
    for percent in range(0, 101, 5):
        canary.percent = percent
        taken = {key for key in map(str, range(1, 501)) if canary.takes(key)}
        assert taken == {key for key in map(str, range(1, 501)) if canary.takes(key)}
        assert before <= taken
        before = taken


async def test_two_versions_share_the_calls_as_the_percentage_says_and_a_rollback_is_exact() -> None:
    stable = FakeService("one", answers=[details_asked_for("version one")])
    second = FakeService("two", answers=[details_asked_for("version two")])
    async with serving(stable), serving(second):
        canary = Canary(Endpoint(f"127.0.0.1:{second.port}"), draw=random.Random(7).random)
        async with to(stable, timeout_s=60, canary=canary) as client:

            async def bodies(calls: int) -> list[str]:
                found = await asyncio.gather(*(client.get(n) for n in range(1, calls + 1)))
                return [each.template.body for each in found]

            assert set(await bodies(50)) == {"version one"}
            canary.percent = 20
            assert within((await bodies(500)).count("version two"), 500, 20)
            canary.percent = 100
            assert set(await bodies(50)) == {"version two"}
            canary.percent = 0
            before = second.calls
            assert set(await bodies(200)) == {"version one"}
            assert second.calls == before
            assert client.ended == {"stable": {"OK": stable.calls}, "canary": {"OK": second.calls}}


async def test_a_rollback_amid_calls_counts_for_every_call_that_begins_after_it() -> None:
    stable, second = (FakeService(answers=[giving(details())]) for _ in range(2))
    async with serving(stable), serving(second):
        canary = Canary(Endpoint(f"127.0.0.1:{second.port}"), 50)
        async with to(stable, canary=canary) as client:

            async def load() -> None:
                while True:
                    await client.get(1)

            callers = [asyncio.create_task(load()) for _ in range(8)]
            await until(lambda: second.calls > 50 and stable.calls > 50, "calls to both")
            canary.percent = 0
            known = sum(client.ended["canary"].values())
            reached = stable.calls
            await until(lambda: stable.calls > reached + 100, "calls after the rollback")
            # Those that were on their way, at most one a caller.
            assert sum(client.ended["canary"].values()) <= known + len(callers)
            settled = second.calls
            await until(lambda: stable.calls > reached + 300, "further calls")
            assert second.calls == settled
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)


async def test_a_canary_that_fails_is_seen_in_its_own_figures() -> None:
    stable = FakeService(answers=[giving(details())])
    second = FakeService(answers=[failing(grpc.StatusCode.INTERNAL, "internal error")])
    async with serving(stable), serving(second):
        canary = Canary(Endpoint(f"127.0.0.1:{second.port}"), 100)
        async with to(stable, canary=canary) as client:
            with pytest.raises(CallError, match="INTERNAL"):
                await client.get(1)
            canary.percent = 0
            await client.get(1)
            assert client.ended == {"stable": {"OK": 1}, "canary": {"INTERNAL": 1}}


async def test_writes_take_part_and_streams_stay_with_the_stable_version() -> None:
    created = giving(pb.CreateTemplateResponse(template=details().template))
    stable = FakeService(answers=[telling(state(1, 1))])
    second = FakeService(answers=[created])
    async with serving(stable), serving(second):
        canary = Canary(Endpoint(f"127.0.0.1:{second.port}"), 100)
        async with to(stable, canary=canary) as client:
            await client.create("n", "b")
            async with aclosing(client.watch([1])) as watch:
                await anext(watch)
    assert (stable.calls, second.calls) == (1, 1)
