"""The read path: the nearest tier that has a usable value, and where none has, one load that fills them all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.cache.coherence import Coherence
from app.cache.entry import Entry
from app.cache.events import CacheEvents, Source, StaleCause
from app.cache.floors import Floors
from app.cache.freshness import LONGEST_LEAD, Usability, distrusted_at, usability, wants_early_refresh
from app.cache.lease import LeasedFill, Terms
from app.cache.least import LeastLoads
from app.cache.memory import MemoryCache, Slot
from app.cache.origin import Origin
from app.cache.protection import Protection
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache
from app.concurrency.clock import Clock, wall
from app.concurrency.tasks import TaskSet
from app.concurrency.turnstile import Turnstile

MISSES_A_TURN, FAILURES_A_TURN = 4, 1
"""Reads past L1 that begin, and that fail, in one turn of the event loop. Those that begin are to meet in a flight."""


class Reading(NamedTuple):
    """One read's answer: the entry's bytes and version, its age, and where it came from."""

    payload: bytes | None
    version: int
    age_s: float
    source: Source


@dataclass(frozen=True, slots=True)
class Policy:
    """How old a value may be. All stretches are seconds; 0 switches one off.

    `grace_s` after its life a value is served at once while it is loaded anew, and up to `stale_if_error_s` after it
    where the load fails or takes longer than `soft_deadline_s`. `early_beta` is XFetch's β.
    """

    grace_s: float = 0.0
    stale_if_error_s: float = 0.0
    early_beta: float = 0.0
    soft_deadline_s: float = 1.0


class Loader:
    """Reads keys through the cache.

    The parts are optional, and so make the modes: `memory` is the L1 tier, `leased` the fleet-wide fill. `failures` are
    the errors of a load for which a stale value may be served instead; others, such as a bad key, are always raised.
    """

    def __init__(
        self,
        *,
        origin: Origin,
        remote: RemoteCache,
        protection: Protection,
        events: CacheEvents,
        least: LeastLoads,
        background: TaskSet,
        floors: Floors,
        coherence: Coherence,
        recovery: Recovery,
        policy: Policy,
        failures: tuple[type[Exception], ...],
        memory: MemoryCache | None = None,
        leased: LeasedFill | None = None,
        now: Clock = wall,
        pick: Callable[[], float] = random.random,
    ) -> None:
        self._origin = origin
        self._remote = remote
        self._protection = protection
        self._events = events
        self._least = least
        self._background = background
        self._floors = floors
        self._coherence = coherence
        self._recovery = recovery
        self._policy = policy
        self._longest_lead = LONGEST_LEAD * policy.early_beta
        self._failures = failures
        self._memory = memory
        self._leased = leased
        self._now = now
        self._pick = pick
        self._begins = Turnstile(per_turn=MISSES_A_TURN)
        self._ends = Turnstile(per_turn=FAILURES_A_TURN)
        self._refreshing: dict[str, asyncio.Task[tuple[Entry, Source] | None]] = {}
        self._early: set[str] = set()

    def fresh(self, key: str) -> Slot | None:
        """The value of `key` that L1 holds, if it may be served as it is: no network, no waiting.

        The read is counted where it is answered; where it is not, `read` is to be called, which counts it then.
        """
        slot = self._memory.get(key) if self._memory is not None else None
        return None if slot is None or slot.entry.payload is None else self._if_fresh(key, slot)

    def _if_fresh(self, key: str, slot: Slot) -> Slot | None:
        now = self._now()
        entry = slot.entry
        if now >= slot.expires_at or (not self._coherence.is_up and not self._is_trusted(entry, now)):
            return None
        # Far from the expiry nothing is drawn: this is the path of nearly all reads.
        if now > slot.expires_at - self._longest_lead * entry.load_cost_s and wants_early_refresh(
            now, slot.expires_at, entry.load_cost_s, self._policy.early_beta, 1.0 - self._pick()
        ):
            self._refresh_early(key, entry)
        if self._least.is_needed(key):
            self._events.least_load()
        self._events.hit("l1")
        self._events.answered("l1")
        return slot

    async def read(self, key: str) -> Reading:
        """The value of `key`. Raises what the load raises, and the errors of `app.concurrency` where waits are bounded.

        A caller that is cancelled or times out leaves the others and the load alone; the last to leave cancels it.
        """
        slot = self._memory.get(key) if self._memory is not None else None
        if slot is not None and self._if_fresh(key, slot) is not None:
            age_s = self._now() - slot.created_at
            return Reading(slot.entry.payload, slot.version, age_s if age_s > 0.0 else 0.0, "l1")
        if self._least.is_needed(key):
            self._events.least_load()
        # A crowd of misses, and of misses that fail together, leaves the hits their turns.
        await self._begins.passage()
        if (landed := self._held(key)) is not None:
            self._events.hit("l1")
            self._events.answered("l1")
            return self._reading(landed, "l1")
        try:
            entry, source = await self._read_past_memory(key)
        except Exception:
            await self._ends.passage()
            raise
        self._events.answered(source)
        return self._reading(entry, source)

    async def current(self, key: str) -> Reading:
        """The value of `key` as it is now, or one that is yet to be announced to be past. Raises as `read` does.

        Where the origin announces no changes, that is known of nothing that a tier holds: then it is loaded, and given
        to the tiers. Whoever asks is to see to it that a crowd asks once.
        """
        if self._coherence.is_expected:
            return await self.read(key)
        if self._least.is_needed(key):
            self._events.least_load()
        entry = await self._origin.load(key)
        if entry.ttl_s > 0:
            await self._remote.put(key, entry)
        self._keep(key, entry)
        self._events.answered("origin")
        return self._reading(entry, "origin")

    def holds(self, key: str) -> bool:
        """Whether L1 holds a value of `key` that may be served now. Nothing is counted."""
        slot = self._memory.get(key) if self._memory is not None else None
        if slot is None or (now := self._now()) >= slot.expires_at:
            return False
        return self._coherence.is_up or self._is_trusted(slot.entry, now)

    def _held(self, key: str) -> Entry | None:
        """What L1 holds of `key` now, if it may be served as it is. Nothing is counted."""
        slot = self._memory.get(key) if self._memory is not None else None
        now = self._now()
        if slot is None or now >= slot.expires_at or not self._is_trusted(slot.entry, now):
            return None
        return slot.entry

    async def written(self, key: str, version: int, payload: bytes | None) -> None:
        """A write of `key` was committed, and `payload` is its value now (`None`: it was deleted).

        Callers from now on share no load that began before it, and no older value is stored or served by this process.
        Never raises. Where Redis can't be told now it is told later; until then other processes rely on the origin's
        announcement.
        """
        self._pass_over([(key, version)])
        entry = self._origin.made(payload, version)
        self._keep(key, entry)
        if entry.ttl_s > 0:
            await self._remote.put(key, entry)  # first, so that no reader in between finds nothing and loads
        await self._recovery.invalidate(key, version)

    async def outdated(self, key: str, version: int) -> None:
        """As `written`, where the value of `key` is not known, only that it got as far as `version`."""
        self._pass_over([(key, version)])
        await self._recovery.invalidate(key, version)

    def changed(self, changes: Sequence[tuple[str, int]]) -> None:
        """The origin announced these keys' new versions: nothing below them is stored or served from now on."""
        self._pass_over(changes)
        for key, version in changes:
            self._recovery.invalidate_later(key, version)
        self._events.invalidated(len(changes))

    def everything_changed(self) -> None:
        """Any key may have changed: nothing loaded until now is served again."""
        self._floors.raise_all(self._now())
        if self._memory is not None:
            self._memory.clear()
        self._refreshing.clear()
        self._protection.forget_all()  # those in the air may bring what is past
        self._recovery.sweep_later()

    def flush(self) -> None:
        """Forget what this process holds, as if it had just begun. What is known to be past stays known.

        Loads under way end as ever, and what they bring is kept.
        """
        if self._memory is not None:
            self._memory.clear()
        self._protection.forget_all()
        self._least.clear()

    async def expire(self, key: str) -> bool:
        """End the life of what this process and Redis hold of `key`: the next read loads. Whether Redis took it."""
        taken = await self._remote.remove(key)  # first, so that no read in between takes it from there
        if self._memory is not None:
            self._memory.drop(key)
        self._protection.forget(key)
        self._least.forget(key)
        return taken

    async def aclose(self, timeout_s: float) -> None:
        """Take no new reads, give those in hand `timeout_s` seconds, and end what runs in the background."""
        await self._protection.aclose(timeout_s)
        await self._background.aclose(timeout_s)

    async def _read_past_memory(self, key: str) -> tuple[Entry, Source]:
        stale, use = self._fallback(key)
        if stale is None:
            return await self._fly(key, self._policy.grace_s)
        refresh = self._refresh(key)
        if use is Usability.GRACE:
            return self._served_stale(stale, "grace")
        if refresh is None:
            return self._served_stale(stale, "slow")
        await asyncio.wait({refresh}, timeout=self._policy.soft_deadline_s)
        # What was invalidated meanwhile is no answer any more, whatever became of the load.
        if not self._floors.allows(key, stale.version, stale.created_at):
            return await self._fly(key, self._policy.grace_s)
        if not refresh.done():
            return self._served_stale(stale, "slow")
        fresh = refresh.result()
        return self._served_stale(stale, "error") if fresh is None else fresh

    def _fallback(self, key: str) -> tuple[Entry | None, Usability]:
        """What L1 holds of `key` that will do if need be, and how good it is. It is not fresh, or not trusted."""
        slot = self._memory.get(key) if self._memory is not None else None
        if slot is None or slot.entry.payload is None:
            return None, Usability.NONE
        now, policy = self._now(), self._policy
        use = usability(now, slot.expires_at, grace_s=policy.grace_s, stale_if_error_s=policy.stale_if_error_s)
        if use > Usability.ON_ERROR and not self._is_trusted(slot.entry, now):
            use = Usability.ON_ERROR if policy.stale_if_error_s else Usability.NONE
        return (slot.entry, use) if use else (None, use)

    async def _fly(self, key: str, grace_s: float = 0.0) -> tuple[Entry, Source]:
        """By a flight, this one or one that is in the air already; `grace_s` is what this one's own would allow."""
        (entry, source), shared = await self._protection.read(
            key, lambda: self._look(key), lambda: self._fill(key, grace_s)
        )
        if shared:
            self._events.shared()
            return entry, source if source == "stale" else "shared"
        return entry, source

    async def _look(self, key: str) -> tuple[Entry, Source] | None:
        if self._leased is not None:
            return None  # the look and the try for the lease are one step
        entry = await self._remote.get(key)
        now = self._now()
        if entry is None or now >= entry.created_at + entry.ttl_s or not self._is_usable(key, entry, now):
            self._events.miss()
            return None
        self._events.hit("l2")
        self._keep(key, entry)
        return entry, "l2"

    async def _fill(self, key: str, grace_s: float) -> tuple[Entry, Source]:
        if self._leased is None:
            entry = await self._origin.load(key)
            if entry.ttl_s > 0:
                await self._remote.put(key, entry)
            self._keep(key, entry)
            return entry, "origin"
        entry, source = await self._leased.obtain(key, lambda: self._terms(key, grace_s))
        self._keep(key, entry)
        return entry, source

    def _terms(self, key: str, grace_s: float) -> Terms:
        past_until = self._floors.loaded_after
        trusted_for_s = self._coherence.trusted_for_s()
        return Terms(
            newer_than=past_until if trusted_for_s is None else max(past_until, self._now() - trusted_for_s),
            past_until=past_until,
            least_version=self._floors.least_version(key),
            grace_s=grace_s,
            stale_if_error_s=self._policy.stale_if_error_s,
        )

    def _refresh(self, key: str) -> asyncio.Task[tuple[Entry, Source] | None] | None:
        """A load of `key` in the background, the one that runs already if there is one; `None` where too many run."""
        running = self._refreshing.get(key)
        if running is not None:
            return running
        task = self._background.start(self._refreshed(key))
        if task is not None:
            self._refreshing[key] = task
            task.add_done_callback(lambda _: self._end_refresh(key, task))
        return task

    def _end_refresh(self, key: str, task: asyncio.Task[tuple[Entry, Source] | None]) -> None:
        if self._refreshing.get(key) is task:
            del self._refreshing[key]

    async def _refreshed(self, key: str) -> tuple[Entry, Source] | None:
        # Without grace: who asked holds a stale value already. Given it again, each read would ask Redis anew for as
        # long as another process loads; this one waits to be woken.
        try:
            return await self._fly(key)
        except self._failures:
            return None  # counted where it failed; who asked has something to fall back on

    def _refresh_early(self, key: str, seen: Entry) -> None:
        if key not in self._early and key not in self._refreshing:
            task = self._background.start(self._refreshed_early(key, seen))
            if task is not None:
                self._early.add(key)
                task.add_done_callback(lambda _: self._early.discard(key))

    async def _refreshed_early(self, key: str, seen: Entry) -> None:
        try:
            if self._leased is not None:
                entry = await self._leased.refresh(key, seen)
            else:
                # A flight, so that who finds the value expired meanwhile waits for this load and begins none.
                outcome = await self._protection.read(
                    key, lambda: self._newer(key, seen), lambda: self._fill(key, grace_s=0.0)
                )
                entry, _ = outcome.value
        except self._failures:
            return  # counted where it failed; the value lives on, and later reads try again
        if entry is not None:
            self._events.early_refresh()
            self._keep(key, entry)

    async def _newer(self, key: str, seen: Entry) -> tuple[Entry, Source] | None:
        """What another process has loaded since `seen` was."""
        entry = await self._remote.get(key)
        now = self._now()
        if entry is None or entry.created_at <= seen.created_at or not entry.is_fresh(now):
            return None
        return (entry, "l2") if self._is_usable(key, entry, now) else None

    def _keep(self, key: str, entry: Entry) -> None:
        if self._memory is not None and entry.ttl_s > 0 and self._floors.allows(key, entry.version, entry.created_at):
            self._memory.put(key, entry)

    def _pass_over(self, changes: Sequence[tuple[str, int]]) -> None:
        """In this order: what is past can't come back into L1, is not there, and is not waited for by new callers."""
        self._floors.raise_each(changes, self._now())
        for key, version in changes:
            if self._memory is not None:
                self._memory.drop_older(key, version)
            self._refreshing.pop(key, None)
            self._protection.forget(key)

    def _is_trusted(self, entry: Entry, now: float) -> bool:
        return now < distrusted_at(entry.created_at, self._coherence.trusted_for_s())

    def _is_usable(self, key: str, entry: Entry, now: float) -> bool:
        return self._is_trusted(entry, now) and self._floors.allows(key, entry.version, entry.created_at)

    def _served_stale(self, entry: Entry, cause: StaleCause) -> tuple[Entry, Source]:
        self._events.stale(cause)
        return entry, "stale"

    def _reading(self, entry: Entry, source: Source) -> Reading:
        return Reading(entry.payload, entry.version, entry.age_s(self._now()), source)
