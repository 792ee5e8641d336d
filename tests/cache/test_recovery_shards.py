"""What a lost shard of a cluster, whose invalidations nobody takes, does to those of the others."""

from __future__ import annotations

import asyncio

from app.cache.recovery import AT_ONCE, MOST_REFUSED, Recovery
from app.concurrency.breaker import CircuitBreaker
from tests.cache.test_recovery import ScriptedRemote


class OneShardLost(ScriptedRemote):
    """Takes nothing of keys that begin with `lost`."""

    lost = "lost"

    async def invalidate(self, key: str, version: int) -> bool:
        return await super().invalidate(key, version) and not (self.lost and key.startswith(self.lost))


async def test_those_of_a_lost_shard_stand_behind_the_others_and_are_told_when_it_is_back() -> None:
    remote = OneShardLost()
    recovery = Recovery(remote, CircuitBreaker(), max_pending=10_000, fresh_values=list)
    for number in range(3 * AT_ONCE):
        recovery.invalidate_later(f"lost{number}", 1)
    recovery.invalidate_later("other", 1)
    recovery.start()
    try:
        async with asyncio.timeout(5):
            while recovery.pending > 3 * AT_ONCE:  # noqa: ASYNC110 - the test must not change what it watches
                await asyncio.sleep(0.001)
            assert ("invalidate", "other", 1) in remote.said
            remote.lost = ""
            while recovery.pending:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.001)
    finally:
        await recovery.aclose()


async def test_a_lost_shard_with_very_many_of_them_is_not_asked_without_pause() -> None:
    remote = OneShardLost()
    recovery = Recovery(remote, CircuitBreaker(), max_pending=10_000, fresh_values=list)
    for number in range(5_000):
        recovery.invalidate_later(f"lost{number}", 1)
    assert not await recovery._deliver()
    assert len(remote.said) == MOST_REFUSED
    assert recovery.pending == 5_000
