"""The simulated world's parts, and the formulas that the fleet is held to."""

from __future__ import annotations

import asyncio
import math
from random import Random

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.cache import scripts
from app.lab.scale.least import FleetLeast
from app.lab.scale.network import Link, Network
from app.lab.scale.origin import SimulatedOrigin
from app.lab.scale.outcome import Outcome, Sample
from app.lab.scale.plan import whole
from app.lab.scale.real import Comparison, Measured
from app.lab.scale.redis import SimulatedClient, SimulatedRedis
from app.lab.scale.theory import least_rate, loads_a_life, mean_lead_s, most_rate
from app.lab.scale.workload import zipf_shares
from app.lab.simulation.virtual_time import VirtualTimeLoop, run_virtually

NAMES = ("t:{1}", "t:{1}:lease", "t:{1}:floor")


def _connected() -> tuple[VirtualTimeLoop, SimulatedRedis, SimulatedClient]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    server = SimulatedRedis(loop)
    return loop, server, SimulatedClient(loop, server, Link(Network(Random(1)), Random(2)))


def test_a_load_covers_a_ttl_of_reads_a_change_past_the_service_ends_it_and_one_through_it_begins_another() -> None:
    least = FleetLeast(10.0)
    assert least.is_needed("a", 0.0)
    assert not least.is_needed("a", 9.9)
    assert least.is_needed("b", 9.9)
    assert least.is_needed("a", 10.0)
    least.changed("a")
    assert least.is_needed("a", 11.0)
    least.written("a", 20.0)
    assert not least.is_needed("a", 29.0)
    assert least.is_needed("a", 30.0)


def test_a_command_takes_its_way_there_and_back() -> None:
    async def main() -> None:
        loop, server, client = _connected()
        began = loop.time()
        assert await client.ping() is True
        assert 2 * 0.000_1 < loop.time() - began < 0.01
        assert server.commands == {"ping": 1}

    run_virtually(main())


def test_a_redis_that_is_down_refuses_and_answers_on_their_way_are_lost() -> None:
    async def main() -> None:
        _, server, client = _connected()
        asked = client.register_script(scripts.NOTE)(keys=["word"], args=["heard"])
        while not server.commands:  # noqa: ASYNC110 - it must be caught between command and answer
            await asyncio.sleep(0.000_01)
        server.go_down()
        with pytest.raises(RedisConnectionError):
            await asked
        with pytest.raises(RedisConnectionError):
            await client.get("word")
        server.come_up(server.snapshot())
        assert await client.get("word") == b"heard"

    run_virtually(main())


def test_a_new_primary_lacks_what_was_written_after_its_copy_was_made() -> None:
    async def main() -> None:
        _, server, client = _connected()
        take = client.register_script(scripts.TAKE)
        kept = server.snapshot()
        assert (await take(keys=NAMES, args=["mine", 1000, 0.0, 0.0, 0]))[0] == "won"
        assert (await take(keys=NAMES, args=["other", 1000, 0.0, 0.0, 0]))[0] == "lost"
        server.go_down()
        server.come_up(kept)
        assert (await take(keys=NAMES, args=["other", 1000, 0.0, 0.0, 0]))[0] == "won"

    run_virtually(main())


def test_a_process_that_is_dead_is_not_heard() -> None:
    async def main() -> None:
        _, server, client = _connected()
        client.is_cut = True
        with pytest.raises(RedisConnectionError):
            await client.ping()
        assert not server.commands

    run_virtually(main())


def test_messages_come_in_order_and_a_lost_connection_is_told_after_them() -> None:
    async def main() -> None:
        loop, server, client = _connected()
        async with client.pubsub() as subscription:
            await subscription.subscribe("channel")
            first = await subscription.get_message(timeout=1.0)
            assert first is not None
            assert first["type"] == "subscribe"
            for number in range(50):
                server.data._published("channel", str(number))
            heard = [await subscription.get_message(timeout=1.0) for _ in range(50)]
            assert [message and message["data"] for message in heard] == [b"%d" % number for number in range(50)]
            began = loop.time()
            assert await subscription.get_message(timeout=0.25) is None
            assert loop.time() - began == pytest.approx(0.25)
            server.go_down()
            with pytest.raises(RedisConnectionError):
                await subscription.get_message(timeout=1.0)
        assert server.delivered == 50

    run_virtually(main())


def test_a_subscriber_that_pings_is_answered_by_a_message_and_not_at_all_while_the_server_is_away() -> None:
    async def main() -> None:
        loop, server, client = _connected()
        async with client.pubsub() as subscription:
            await subscription.subscribe("channel")
            await subscription.get_message(timeout=1.0)
            await subscription.ping()
            answer = await subscription.get_message(timeout=1.0)
            assert answer is not None
            assert answer["type"] == "pong"
            server.is_up = False
            asked_at = loop.time()
            await subscription.ping()
            assert await subscription.get_message(timeout=0.5) is None
            assert loop.time() - asked_at == pytest.approx(0.5)

    run_virtually(main())


def test_how_long_a_value_has_been_outdated_counts_from_the_change_that_replaced_it() -> None:
    async def main() -> None:
        loop, _, _ = _connected()
        origin = SimulatedOrigin(loop, Random(1), load_s=0.1, spread=0.0, payload_bytes=10)
        assert origin.outdated_for_s("1", 1, loop.time()) == 0.0
        for _ in range(2):
            await asyncio.sleep(1.0)
            origin.commit("1")
        await asyncio.sleep(1.0)
        now = loop.time()
        assert [origin.outdated_for_s("1", version, now) for version in (1, 2, 3)] == pytest.approx([2.0, 1.0, 0.0])
        assert origin.outdated_for_s("1", 1, 0.5) == 0.0

    run_virtually(main())


def test_a_load_brings_the_value_of_its_beginning() -> None:
    async def main() -> None:
        loop, _, _ = _connected()
        origin = SimulatedOrigin(loop, Random(1), load_s=0.1, spread=0.0, payload_bytes=10)
        loop.call_later(0.05, origin.commit, "1")
        assert (await origin.load("1")).version == 1
        assert loop.time() == pytest.approx(0.1)
        assert (await origin.load("1")).version == 2

    run_virtually(main())


def test_the_shares_of_keys_follow_zipf() -> None:
    shares = zipf_shares(1000, 1.0)
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] / shares[9] == pytest.approx(10.0)
    assert zipf_shares(4, 0.0) == [0.25] * 4


def test_the_mean_lead_of_early_refreshes_is_that_of_the_paper_and_nothing_for_a_key_that_is_hardly_read() -> None:
    # docs: β = 1, rδ = 100: 5.18 δ
    assert mean_lead_s(1000.0, 0.1, 1.0) == pytest.approx(0.518, abs=0.001)
    assert mean_lead_s(0.001, 0.1, 1.0) < 1e-4
    # the series and the formula meet where one takes over from the other
    assert mean_lead_s(20.01, 1.0, 1.0) == pytest.approx(mean_lead_s(19.99, 1.0, 1.0), rel=1e-3)
    draws = Random(1)
    leads = []
    for _ in range(4000):
        x, rate, load_s = 3.0, 50.0, 0.1
        while x > 0 and draws.random() > math.exp(-x / load_s):
            x -= draws.expovariate(rate)
        leads.append(max(0.0, x))
    assert mean_lead_s(50.0, 0.1, 1.0) == pytest.approx(sum(leads) / len(leads), rel=0.05)


def test_loads_a_life_lie_between_one_and_what_an_unprotected_key_costs() -> None:
    plan = whole(quick=False)
    hottest = plan.rate * zipf_shares(plan.keys, plan.zipf_s)[0]
    unprotected = loads_a_life(plan, 1, math.inf)
    assert unprotected == pytest.approx(1 + hottest * plan.load_s)
    assert loads_a_life(plan, 1, 1) == pytest.approx(2, abs=0.001)
    assert 1 < loads_a_life(plan, 1, plan.replicas) < unprotected
    assert loads_a_life(plan, 1, 1e9) == pytest.approx(unprotected, rel=1e-6)
    assert least_rate(plan) < most_rate(plan) < 1.11 * least_rate(plan)


def test_quantiles_count_reads_that_took_no_time() -> None:
    outcome = Outcome(whole(quick=True), 1)
    outcome.waited_s.extend([0.3, 0.1, 0.2])
    for at, reads, waited in ((0.0, 0, 0), (1.0, 1000, 3)):
        outcome.samples.append(Sample(at, reads, 997, waited, 0, 0, {}, 0, 0.0, {}, 0, 0.0, 0))
    latency_s = outcome.stretch("all", 0.0, 1.0).latency_s
    assert latency_s == {"p50": 0.0, "p99": 0.0, "p99.9": 0.2, "longest": 0.3}


@pytest.mark.parametrize(("loads", "agrees"), [(100, True), (104, True), (120, False), (80, False)])
def test_a_real_run_agrees_within_the_spread_over_seeds_and_what_timing_costs(loads: int, agrees: bool) -> None:
    measured = Measured(loads=loads, mean_load_s=0.05, reads=1000, failed=0, latest_s=0.0)
    comparison = Comparison(measured, [99, 100, 101, 100, 99, 101])
    assert comparison.mean == 100
    assert 4 < comparison.margin < 8
    assert comparison.agrees is agrees
