"""What the settings make of the read path's parts, wherever they are wired: in the service, and in the lab."""

from __future__ import annotations

from app.cache.loader import Policy
from app.cache.origin import LoadDeadlineError
from app.cache.protection import Mutex, Protection, Singleflight, Unprotected
from app.concurrency.breaker import BreakerOpenError
from app.concurrency.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError
from app.concurrency.singleflight import TooManyWaitersError, WaitTimeoutError
from app.settings import Mode, Settings

CACHE_FAILURES = (
    LoadDeadlineError,
    BreakerOpenError,
    BulkheadFullError,
    BulkheadTimeoutError,
    TooManyWaitersError,
    WaitTimeoutError,
)
"""Why the cache's own parts may fail a load through no fault of the request."""
MAX_FLOORS, MAX_PENDING, MAX_BACKGROUND = 100_000, 10_000, 10_000


def protection(settings: Settings) -> Protection:
    """What the mode does with callers that miss at once."""
    max_waiters = settings.singleflight_max_waiters or None
    wait_timeout_s = settings.singleflight_wait_timeout_s
    match settings.mode:
        case Mode.NONE:
            return Unprotected()
        case Mode.MUTEX:
            return Mutex(max_waiters=max_waiters, wait_timeout_s=wait_timeout_s)
        case Mode.SINGLEFLIGHT | Mode.FLEET | Mode.FULL:
            return Singleflight(max_waiters=max_waiters, wait_timeout_s=wait_timeout_s)


def policy(settings: Settings) -> Policy:
    """What is done with values near their life's end or past it."""
    if settings.mode is not Mode.FULL:
        return Policy()
    return Policy(
        grace_s=settings.grace_s,
        stale_if_error_s=settings.stale_if_error_s,
        early_beta=settings.early_refresh_beta,
        soft_deadline_s=settings.soft_deadline_s,
    )


def bulkhead(settings: Settings) -> Bulkhead | None:
    """The bound on loads at a time, where there is one."""
    if settings.mode is not Mode.FULL or not settings.bulkhead_concurrent:
        return None
    return Bulkhead(
        concurrent=settings.bulkhead_concurrent,
        queued=settings.bulkhead_queued,
        wait_timeout_s=settings.bulkhead_timeout_s,
    )


def remote_floor_s(settings: Settings) -> float:
    """How long Redis keeps a floor: as long as a load from before it may put its value there."""
    return settings.cache_ttl_s + 2 * settings.load_deadline_s


def floor_life_s(settings: Settings) -> float:
    """How long a process keeps one: what is past its life may be served, too."""
    return remote_floor_s(settings) + max(settings.grace_s, settings.stale_if_error_s)


def kept_past_expiry_s(settings: Settings) -> float:
    """How long Redis keeps a value whose life is over."""
    return max(settings.grace_s, settings.stale_if_error_s) if settings.mode is Mode.FULL else 0.0
