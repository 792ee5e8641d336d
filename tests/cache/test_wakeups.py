"""The one subscription a process: it wakes for messages, for its own loss, and loses none in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cache.wakeups import Wakeups
from app.embedded.redis import EmbeddedRedis
from tests.held_up import hold_up
from tests.ticks import Ticks

CHANNEL = "t:1:wake"
PING_S = 0.1
OwnRedis = Callable[..., EmbeddedRedis]


class Rig:
    """Wake-ups over a server, and a client that publishes."""

    def __init__(self, url: str, ping_s: float, protocol: int) -> None:
        # As the service's: no tries of the client's own, and no timeout of the socket's.
        pool = BlockingConnectionPool.from_url(
            url,
            protocol=protocol,
            max_connections=2,
            socket_timeout=None,
            socket_connect_timeout=ping_s,
            retry=Retry(NoBackoff(), 0),
        )
        self.states: list[bool] = []
        self.subscriber = Redis.from_pool(pool)
        self.wakeups = Wakeups(self.subscriber, CHANNEL, ping_s=ping_s, on_state=self.states.append)
        self.client = Redis.from_url(url)

    async def until_up(self, up: bool = True) -> None:
        async with asyncio.timeout(30):
            while self.wakeups.is_up is not up:  # noqa: ASYNC110 - the state is in another process
                await asyncio.sleep(0.002)


Open = Callable[..., Rig]


@pytest.fixture
async def open_wakeups() -> AsyncIterator[Open]:
    async with AsyncExitStack() as closing:

        def open_(url: str, ping_s: float = PING_S, protocol: int = 3) -> Rig:
            rig = Rig(url, ping_s, protocol)
            rig.wakeups.start()
            for close in (rig.client.aclose, rig.subscriber.aclose, rig.wakeups.aclose):
                closing.push_async_callback(close)
            return rig

        yield open_


def writer_of(subscription: Any) -> asyncio.StreamWriter:
    writer: asyncio.StreamWriter = subscription.connection._writer
    return writer


async def woken(event: asyncio.Event, within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        await event.wait()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_message_wakes_all_who_wait_for_its_key_and_nobody_else(
    open_wakeups: Open, redis_url: str, protocol: int
) -> None:
    rig = open_wakeups(redis_url, ping_s=5.0, protocol=protocol)
    await rig.until_up()
    with rig.wakeups.expected("1") as first, rig.wakeups.expected("1") as second, rig.wakeups.expected("2") as other:
        assert await rig.client.publish(CHANNEL, "1") == 1
        await woken(first)
        await woken(second)
        assert not other.is_set()
    assert rig.states == [True]


async def test_a_message_is_heard_when_it_comes_and_not_at_the_next_look(open_wakeups: Open, redis_url: str) -> None:
    rig = open_wakeups(redis_url, ping_s=5.0)
    await rig.until_up()
    delays = []
    for _ in range(50):
        with rig.wakeups.expected("1") as event:
            began = time.perf_counter()
            await rig.client.publish(CHANNEL, "1")
            await woken(event)
            delays.append(time.perf_counter() - began)
    assert sorted(delays)[25] < 0.5, "a tenth of the time between two looks at the connection"


async def test_who_registers_before_trying_is_woken_by_a_put_that_lands_before_the_wait(
    open_wakeups: Open, redis_url: str
) -> None:
    """The put comes between the try and the wait, and has been heard before the wait begins."""
    rig = open_wakeups(redis_url, ping_s=5.0)
    await rig.until_up()
    for _ in range(20):
        with rig.wakeups.expected("1") as event, rig.wakeups.expected("2") as heard:
            await rig.client.publish(CHANNEL, "1")
            await rig.client.publish(CHANNEL, "2")
            await woken(heard)
            assert event.is_set()


async def test_a_wake_up_from_before_the_registration_is_not_taken_for_a_new_one(
    open_wakeups: Open, redis_url: str
) -> None:
    rig = open_wakeups(redis_url, ping_s=5.0)
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        await rig.client.publish(CHANNEL, "1")
        await woken(event)
    with rig.wakeups.expected("1") as event:
        assert not event.is_set()


async def test_who_no_longer_waits_leaves_nothing_behind(open_wakeups: Open, redis_url: str) -> None:
    rig = open_wakeups(redis_url)
    with rig.wakeups.expected("1"):
        with pytest.raises(LookupError), rig.wakeups.expected("1"):
            raise LookupError
        assert len(rig.wakeups._waiters["1"]) == 1
    assert not rig.wakeups._waiters


@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_idle_subscription_stays_up_over_either_protocol(
    open_wakeups: Open, redis_url: str, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    """It asks for a sign of life soon, and waits for it long: only one that is not understood would be a loss."""
    rig = open_wakeups(redis_url, ping_s=5.0, protocol=protocol)
    signs = 0
    ask, hear = PubSub.ping, rig.wakeups._heard

    async def ask_and_wait_long(subscription: PubSub) -> None:
        await ask(subscription)
        rig.wakeups._ping_s = 10.0

    def hear_and_ask_soon(message: dict[str, Any]) -> None:
        nonlocal signs
        signs += message["type"] == "pong"
        rig.wakeups._ping_s = 0.03
        hear(message)

    monkeypatch.setattr(PubSub, "ping", ask_and_wait_long)
    monkeypatch.setattr(rig.wakeups, "_heard", hear_and_ask_soon)
    async with asyncio.timeout(30):
        while signs < 12:  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.002)
    assert rig.states == [True]
    with rig.wakeups.expected("1") as event:
        await rig.client.publish(CHANNEL, "1")
        await woken(event)


async def test_a_sign_of_life_that_came_while_this_process_could_not_run_is_one(
    open_wakeups: Open, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interleaving: the server is asked and answers; the loop is held up past the time to answer, and goes on."""
    server = own_redis()
    asked = 0
    ask = PubSub.ping

    async def ask_and_be_held_up(subscription: PubSub) -> None:
        nonlocal asked
        asked += 1
        server.suspend()
        await ask(subscription)
        hold_up(writer_of(subscription), 2 * PING_S, let_answer=server.resume)

    monkeypatch.setattr(PubSub, "ping", ask_and_be_held_up)
    rig = open_wakeups(server.url())
    async with asyncio.timeout(30):
        while asked < 4:  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.002)
    assert rig.states == [True]


async def test_the_loss_of_the_subscription_wakes_everybody_and_it_comes_back(
    open_wakeups: Open, redis_url: str
) -> None:
    rig = open_wakeups(redis_url, ping_s=5.0)
    await rig.until_up()
    with rig.wakeups.expected("1") as first, rig.wakeups.expected("2") as second:
        assert await rig.client.client_kill_filter(_type="pubsub") >= 1  # others may use the server too
        await woken(first)
        await woken(second)
    await rig.until_up()
    assert rig.states == [True, False, True]
    with rig.wakeups.expected("1") as event:
        await rig.client.publish(CHANNEL, "1")
        await woken(event)


async def test_the_death_of_the_server_wakes_everybody_and_it_is_found_again(
    open_wakeups: Open, own_redis: OwnRedis
) -> None:
    server = own_redis()
    rig = open_wakeups(server.url())
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        server.kill()
        await woken(event)
    await rig.until_up(False)
    server.start()
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        await rig.client.publish(CHANNEL, "1")
        await woken(event)


async def test_a_server_that_hangs_is_noticed_within_three_times_the_ping(
    open_wakeups: Open, own_redis: OwnRedis
) -> None:
    server = own_redis()
    ping_s = 0.5
    rig = open_wakeups(server.url(), ping_s)
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        server.suspend()
        async with Ticks() as ticks:
            await woken(event)
        assert ticks.seconds < 3 * ping_s + 0.3
        assert not rig.wakeups.is_up
    server.resume()
    await rig.until_up()
    assert rig.states == [True, False] * (len(rig.states) // 2) + [True]
    assert False in rig.states


async def test_no_server_at_the_start_is_no_error_and_wakes_who_waits(open_wakeups: Open, own_redis: OwnRedis) -> None:
    server = own_redis()
    server.kill()
    rig = open_wakeups(server.url())
    with rig.wakeups.expected("1") as event:
        await woken(event)
    assert rig.states == []
    server.start()
    await rig.until_up()


async def test_a_server_that_hangs_at_the_start_is_tried_again(open_wakeups: Open, own_redis: OwnRedis) -> None:
    server = own_redis()
    server.suspend()
    rig = open_wakeups(server.url())
    with rig.wakeups.expected("1") as event:
        await woken(event)
    server.resume()
    await rig.until_up()


async def test_a_connection_that_the_client_renews_by_itself_wakes_everybody(
    open_wakeups: Open, redis_url: str
) -> None:
    """What was published between the two is lost, and nothing else tells."""
    rig = open_wakeups(redis_url, ping_s=5.0)
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        rig.wakeups._heard({"type": "subscribe", "channel": CHANNEL.encode(), "data": 1})
        assert event.is_set()
    assert rig.states == [True]


async def test_a_message_that_is_no_text_harms_nobody(open_wakeups: Open, redis_url: str) -> None:
    rig = open_wakeups(redis_url, ping_s=5.0)
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        await rig.client.publish(CHANNEL, b"\xff\xfe\x00")
        await rig.client.publish(CHANNEL, "1")
        await woken(event)
    assert rig.states == [True]


async def test_a_listener_that_fails_does_not_end_the_subscription(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 1

    def on_state(up: bool) -> None:
        nonlocal failures
        if up and failures:
            failures -= 1
            raise LookupError("the listener's own")

    async with Redis.from_url(redis_url) as client:
        wakeups = Wakeups(client, CHANNEL, ping_s=5.0, on_state=on_state)
        wakeups.start()
        async with asyncio.timeout(5):
            while failures or not wakeups.is_up:  # noqa: ASYNC110 - the state is in another process
                await asyncio.sleep(0.002)
        await wakeups.aclose()
    assert "begins again" in caplog.text


async def test_closing_wakes_who_still_waits_and_frees_the_connection(open_wakeups: Open, redis_url: str) -> None:
    rig = open_wakeups(redis_url)
    await rig.until_up()
    with rig.wakeups.expected("1") as event:
        await rig.wakeups.aclose()
        assert event.is_set()
    await rig.wakeups.aclose()
    async with asyncio.timeout(5):
        while await rig.client.pubsub_numsub(CHANNEL) != [(CHANNEL.encode(), 0)]:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("server_hangs", [False, True])
async def test_closing_is_quick_at_any_moment(open_wakeups: Open, own_redis: OwnRedis, server_hangs: bool) -> None:
    server = own_redis()
    for steps in range(0, 40, 3):
        rig = open_wakeups(server.url(), ping_s=60.0)
        if server_hangs:
            await rig.until_up()
            server.suspend()
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await rig.wakeups.aclose()
        server.resume()
