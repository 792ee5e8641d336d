"""The hazards of sharing one call among many callers; `test_NN` is case NN of docs/singleflight.md."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.concurrency.singleflight import (
    FlightCancelledError,
    FlightError,
    Group,
    GroupClosedError,
    ReentrantCallError,
    TooManyWaitersError,
    WaitTimeoutError,
    WrongLoopError,
)


class Work:
    """Work that lands only when the test says so, and tells how often it began and how it ended."""

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.calls = 0
        self.begun = asyncio.Event()
        self.land = asyncio.Event()
        self.cleaned_up = asyncio.Event()

    async def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        try:
            await self.land.wait()
        finally:
            self.cleaned_up.set()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


async def _callers(
    group: Group, count: int, fn: Callable[[], Awaitable[Any]], key: str = "key"
) -> list[asyncio.Task[Any]]:
    """`count` callers of `key`, all of them waiting by now."""
    tasks = [asyncio.create_task(group.do(key, fn)) for _ in range(count)]
    await _settle()
    return tasks


async def _settle() -> None:
    """Let everything run that can run without an event from outside."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def no_loop_complaints() -> AsyncIterator[None]:
    """No test may leave the event loop something to complain of, such as an exception never retrieved."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    yield
    await _settle()
    gc.collect()
    loop.set_exception_handler(None)
    assert complaints == []


async def test_01_concurrent_callers_share_one_call_and_a_later_one_starts_anew() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 100, work)
    work.land.set()
    assert await asyncio.gather(*tasks) == ["value"] * 100
    assert work.calls == 1

    work.value = "later"
    assert await group.do("key", work) == "later"
    assert work.calls == 2


async def test_01_the_outcome_says_who_shared_anothers_flight() -> None:
    group, work = Group(), Work()
    tasks = [asyncio.create_task(group.do_outcome("key", work)) for _ in range(3)]
    await _settle()
    work.land.set()
    assert [(await task).shared for task in tasks] == [False, True, True]


async def test_01_different_keys_do_not_wait_for_each_other() -> None:
    group, slow, quick = Group(), Work("slow"), Work("quick")
    quick.land.set()
    (waiting,) = await _callers(group, 1, slow, "slow")
    assert await group.do("quick", quick) == "quick"
    assert not waiting.done()
    slow.land.set()
    await waiting


async def test_02_the_first_caller_cancelled_leaves_the_others_their_value_with_one_call() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 10, work)
    tasks[0].cancel()
    await _settle()
    assert tasks[0].cancelled()
    work.land.set()
    assert await asyncio.gather(*tasks[1:]) == ["value"] * 9
    assert work.calls == 1


async def test_03_one_waiter_cancelled_affects_only_that_one() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 10, work)
    tasks[5].cancel()
    await _settle()
    assert [task.done() for task in tasks].count(True) == 1
    work.land.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results.count("value") == 9
    assert isinstance(results[5], asyncio.CancelledError)


async def test_03_one_waiter_timed_out_by_its_own_deadline_affects_only_that_one() -> None:
    group, work = Group(), Work()
    (first,) = await _callers(group, 1, work)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(group.do("key", work), timeout=0.001)
    assert not work.cleaned_up.is_set()
    work.land.set()
    assert await first == "value"


async def test_03_a_cancellation_in_the_very_tick_of_the_landing_is_not_lost() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 2, work)
    work.land.set()
    await work.cleaned_up.wait()
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == "value"
    assert isinstance(results[1], asyncio.CancelledError)


async def test_04_when_all_leave_the_work_is_cancelled_and_cleans_up_and_the_key_is_free() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 3, work)
    for task in tasks:
        task.cancel()
    await asyncio.wait_for(work.cleaned_up.wait(), 1)
    assert len(group) == 0
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))


async def test_05_a_caller_that_comes_while_cancelled_work_unwinds_gets_a_fresh_flight() -> None:
    group = Group()
    begun, unwinding, unwound = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_to_die() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            unwinding.set()
            await unwound.wait()
        raise AssertionError("unreachable")

    (first,) = await _callers(group, 1, slow_to_die)
    await begun.wait()
    first.cancel()
    await unwinding.wait()
    fresh = Work("fresh")
    (second,) = await _callers(group, 1, fresh)
    unwound.set()
    await _settle()
    assert not second.done(), "the old work's end must not end the new flight"
    assert len(group) == 1, "nor remove it"
    fresh.land.set()
    assert await second == "fresh"


async def test_06_an_error_reaches_all_with_one_call_and_the_next_call_tries_again() -> None:
    group, work = Group(), Work(ValueError("broken"))
    tasks = await _callers(group, 50, work)
    work.land.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(error), str(error)) for error in results] == [(ValueError, "broken")] * 50
    assert work.calls == 1, "no convoy of retries"

    work.value = "healed"
    assert await group.do("key", work) == "healed"


async def test_07_each_waiter_has_its_own_exception_chained_to_the_original() -> None:
    original = ValueError("broken")
    group, work = Group(), Work(original)
    tasks = await _callers(group, 3, work)
    work.land.set()
    errors: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(error) for error in errors} | {id(original)}) == 4
    assert all(error.__cause__ is original for error in errors)


async def test_07_no_traceback_and_no_context_grows_with_the_number_of_waiters() -> None:
    original = ValueError("broken")
    group, work = Group(), Work(original)

    async def caller_in_trouble(number: int) -> BaseException:
        try:
            try:
                raise LookupError(number)  # noqa: TRY301
            except LookupError:
                await group.do("key", work)
        except ValueError as error:
            return error
        raise AssertionError("unreachable")

    tasks = [asyncio.create_task(caller_in_trouble(number)) for number in range(100)]
    await _settle()
    work.land.set()
    errors = await asyncio.gather(*tasks)

    def depth(error: BaseException) -> int:
        frames, trace = 0, error.__traceback__
        while trace is not None:
            frames, trace = frames + 1, trace.tb_next
        return frames

    assert len({depth(error) for error in errors}) == 1
    assert depth(original) == 2, "the task's two frames, and none of any waiter"
    assert original.__context__ is None
    assert [error.__context__.args for error in errors if error.__context__] == [(n,) for n in range(100)]


class _PickyError(Exception):
    """Its `__init__` takes other arguments than `args` holds."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class _RewritingError(Exception):
    """Its `__init__` would write the text twice."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what}")
        self.what = what


class _StubbornError(Exception):
    """Can be made in neither way."""

    def __new__(cls, *args: object, key: str = "") -> _StubbornError:
        if not key:
            raise TypeError("key is needed")
        return super().__new__(cls, *args)

    def __init__(self, *, key: str) -> None:
        super().__init__(key)


@pytest.mark.parametrize(
    "original",
    [
        _PickyError(code=7),
        _RewritingError("way"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
        KeyError("key"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_07_awkward_exception_classes_keep_type_text_and_attributes(original: Exception) -> None:
    original.add_note("a note")
    work = Work(original)
    work.land.set()
    with pytest.raises(type(original)) as caught:
        await Group().do("key", work)
    assert caught.value is not original
    assert str(caught.value) == str(original)
    assert vars(caught.value) == vars(original)
    assert caught.value.__notes__ is not original.__notes__


async def test_07_an_exception_that_cannot_be_made_again_arrives_as_a_flight_error_with_its_text() -> None:
    work = Work(_StubbornError(key="stuck"))
    work.land.set()
    with pytest.raises(FlightError, match="_StubbornError: stuck") as caught:
        await Group().do("key", work)
    assert isinstance(caught.value.__cause__, _StubbornError)


async def test_08_work_that_cancels_itself_reaches_the_waiters_as_an_error_and_not_as_their_cancellation() -> None:
    group, work = Group(), Work(asyncio.CancelledError())
    tasks = await _callers(group, 3, work)
    work.land.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in results] == [FlightCancelledError] * 3
    assert not any(task.cancelled() for task in tasks)


@pytest.mark.parametrize("path", [["A"], ["A", "B"], ["A", "B", "C", "D"]], ids=["A-A", "A-B-A", "A-B-C-D-A"])
async def test_09_reentry_raises_at_once_instead_of_hanging(path: list[str]) -> None:
    group = Group()

    def work_for(position: int) -> Callable[[], Awaitable[str]]:
        following = path[(position + 1) % len(path)]
        return lambda: group.do(following, work_for(position + 1))

    with pytest.raises(ReentrantCallError):
        await asyncio.wait_for(group.do(path[0], work_for(0)), 1)
    assert len(group) == 0


async def test_09_two_flights_that_come_to_wait_for_each_other_raise_instead_of_hanging() -> None:
    # A and B start on their own; A joins B first, then B joins A: only the second join closes the circle.
    group, b_may_join = Group(), asyncio.Event()

    async def work_a() -> object:
        return await group.do("B", work_b)

    async def work_b() -> object:
        await b_may_join.wait()
        return await group.do("A", work_a)

    b = asyncio.create_task(group.do("B", work_b))
    await _settle()
    a = asyncio.create_task(group.do("A", work_a))
    await _settle()
    b_may_join.set()
    results = await asyncio.wait_for(asyncio.gather(a, b, return_exceptions=True), 1)
    assert [type(error) for error in results] == [ReentrantCallError] * 2


async def test_09_a_cycle_across_two_groups_raises_too() -> None:
    one, two = Group(), Group()
    with pytest.raises(ReentrantCallError):
        await asyncio.wait_for(one.do("k", lambda: two.do("k", lambda: one.do("k", Work()))), 1)


async def test_09_a_task_that_outlives_its_flight_may_call_for_the_same_key() -> None:
    group, landed = Group(), asyncio.Event()
    later: list[asyncio.Task[Any]] = []

    async def after() -> str:
        await landed.wait()
        return await group.do("key", work_again)

    async def work_again() -> str:
        return "again"

    async def work() -> str:
        later.append(asyncio.create_task(after()))
        return "first"

    assert await group.do("key", work) == "first"
    landed.set()
    assert await later[0] == "again"


async def test_10_a_failure_that_nobody_hears_of_leaves_no_complaint() -> None:
    # The fixture above fails the test if the loop gets an "exception was never retrieved".
    group = Group()
    begun = asyncio.Event()

    async def fails_when_cancelled() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while unwinding")

    (task,) = await _callers(group, 1, fails_when_cancelled)
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_10_a_running_flight_is_strongly_referenced() -> None:
    group, work = Group(), Work()
    (task,) = await _callers(group, 1, work)
    group.forget("key")
    gc.collect()
    work.land.set()
    assert await task == "value"


async def test_11_forget_gives_old_waiters_the_old_value_and_a_new_caller_a_new_flight() -> None:
    group, old, new = Group(), Work("old"), Work("new")
    (early,) = await _callers(group, 1, old)
    assert group.forget("key")
    (late,) = await _callers(group, 1, new)
    old.land.set()
    assert await early == "old"
    assert len(group) == 1, "the old flight's end must not remove the new one"
    (later,) = await _callers(group, 1, new)
    new.land.set()
    assert (await late, await later, new.calls) == ("new", "new", 1)


async def test_11_forget_says_whether_there_was_a_flight() -> None:
    assert not Group().forget("key")


async def test_12_a_synchronous_raise_frees_the_key() -> None:
    group = Group()

    def raises_at_once() -> Awaitable[None]:
        raise ValueError("at once")

    for _ in range(2):
        with pytest.raises(ValueError, match="at once"):
            await group.do("key", raises_at_once)
    assert len(group) == 0


async def test_12_cancellation_before_the_first_step_frees_the_key_and_never_calls_the_work() -> None:
    group, work = Group(), Work()
    # Stepped by hand, the caller comes and goes in one tick: the task of the work is cancelled before its first step.
    caller = group.do("key", work)
    caller.send(None)
    assert len(group) == 1
    caller.close()
    assert len(group) == 0
    (fresh,) = await _callers(group, 1, Work())
    fresh.cancel()
    await _settle()
    assert (work.calls, len(group)) == (0, 0)


async def test_13_the_work_sees_the_first_callers_context_and_changes_nobodys() -> None:
    group = Group()
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []
    land = asyncio.Event()

    async def work() -> None:
        seen.append(variable.get())
        variable.set("by the work")
        await land.wait()

    async def caller(value: str) -> str:
        variable.set(value)
        await group.do("key", work)
        return variable.get()

    tasks = [asyncio.create_task(caller(name)) for name in ("first", "second")]
    await _settle()
    land.set()
    assert [await task for task in tasks] == ["first", "second"]
    assert seen == ["first"]


async def test_14_wrapped_methods_give_each_caller_a_copy_of_its_own() -> None:
    land = asyncio.Event()

    async def fetch(number: int) -> dict[str, list[int]]:
        await land.wait()
        return {"numbers": [number]}

    fetch_together = Group().wrap(fetch)
    tasks = [asyncio.create_task(fetch_together(1)) for _ in range(2)]
    await _settle()
    land.set()
    one, two = await asyncio.gather(*tasks)
    one["numbers"].append(99)
    assert two == {"numbers": [1]}


@pytest.mark.slow
def test_15_a_million_keys_leave_an_empty_map_and_flat_memory() -> None:
    # In a process of its own, so that nothing else's memory is measured.
    script = """
        import asyncio, gc, psutil
        from app.concurrency.singleflight import Group

        async def main():
            group, process = Group(), psutil.Process()
            async def work(): return 1
            async def spell(first, count):
                for key in range(first, first + count, 100):
                    await asyncio.gather(*(group.do(k, work) for k in range(key, key + 100)))
            await spell(0, 20_000)
            gc.collect()
            before = process.memory_info().rss
            await spell(20_000, 1_000_000)
            gc.collect()
            print(len(group), len(group._airborne), (process.memory_info().rss - before) / 2**20)

        asyncio.run(main())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stderr
    keys, airborne, grown_mb = run.stdout.split()
    assert (keys, airborne) == ("0", "0")
    assert float(grown_mb) < 5


async def test_16_closing_waits_for_flights_and_refuses_new_calls() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 2, work)
    closing = asyncio.create_task(group.aclose())
    await _settle()
    with pytest.raises(GroupClosedError):
        await group.do("key", work)
    assert not closing.done()
    work.land.set()
    assert await asyncio.gather(*tasks) == ["value"] * 2
    await closing
    await group.aclose()


async def test_16_closing_with_cancel_ends_the_work_and_tells_the_waiters() -> None:
    group, work = Group(), Work()
    tasks = await _callers(group, 2, work)
    await group.aclose(cancel=True)
    assert work.cleaned_up.is_set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in results] == [GroupClosedError] * 2


async def test_16_closing_cancels_what_has_not_landed_in_time() -> None:
    group, work = Group(), Work()
    (task,) = await _callers(group, 1, work)
    await group.aclose(timeout_s=0.01)
    with pytest.raises(GroupClosedError):
        await task


async def test_16_closing_says_so_when_work_ignores_its_cancellation() -> None:
    group, release = Group(), asyncio.Event()

    async def stubborn() -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "done"

    (task,) = await _callers(group, 1, stubborn)
    with pytest.raises(TimeoutError, match="1 flights ignored"):
        await group.aclose(cancel=True, timeout_s=0.01)
    release.set()
    assert await task == "done"


async def test_16_closing_from_within_a_flight_raises_instead_of_hanging() -> None:
    group = Group()
    with pytest.raises(ReentrantCallError):
        await asyncio.wait_for(group.do("key", group.aclose), 1)


def test_16_use_from_another_loop_raises_clearly() -> None:
    group = Group()

    async def use() -> str:
        work = Work()
        work.land.set()
        return str(await group.do("key", work))

    assert asyncio.run(use()) == "value"
    with pytest.raises(WrongLoopError, match="another event loop"):
        asyncio.run(use())


async def test_17_a_caller_that_becomes_first_just_after_a_landing_finds_the_value_in_the_cache() -> None:
    # B looks in the cache before A's flight lands, and calls after: B's flight is a new one, and must look again.
    group, land = Group(), asyncio.Event()
    cache: dict[str, str] = {}
    loads = 0

    async def look_again_then_load() -> str:
        nonlocal loads
        if "key" not in cache:
            loads += 1
            await land.wait()
            cache["key"] = "value"
        return cache["key"]

    a = asyncio.create_task(group.do("key", look_again_then_load))
    await _settle()
    b_missed = "key" not in cache
    land.set()
    assert await a == "value"
    assert await group.do("key", look_again_then_load) == "value"
    assert b_missed
    assert loads == 1


async def test_waiters_past_the_bound_are_refused_at_once_and_the_others_served() -> None:
    group, work = Group(max_waiters=2), Work()
    tasks = await _callers(group, 3, work)
    with pytest.raises(TooManyWaitersError):
        await group.do("key", work)
    tasks[1].cancel()
    await _settle()
    tasks += await _callers(group, 1, work)
    work.land.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results.count("value") == 3


async def test_a_wait_past_the_bound_times_out_and_the_last_to_leave_takes_the_work_along() -> None:
    group, work = Group(wait_timeout_s=0.01), Work()
    tasks = await _callers(group, 3, work)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in results] == [WaitTimeoutError] * 3
    await asyncio.wait_for(work.cleaned_up.wait(), 1)


async def test_wrapping_keeps_the_signature_and_shares_calls_however_the_arguments_are_written() -> None:
    land = asyncio.Event()
    calls: list[tuple[int, str]] = []

    class Repository:
        async def get(self, number: int, flavour: str = "plain") -> str:
            """Fetches."""
            calls.append((number, flavour))
            await land.wait()
            return f"{number} {flavour}"

    group, repository = Group(), Repository()
    get = group.wrap(repository.get)
    assert getattr(get, "__doc__", None) == "Fetches."
    tasks = [
        asyncio.ensure_future(call)
        for call in (get(1), get(number=1), get(1, "plain"), get(flavour="plain", number=1), get(2))
    ]
    await _settle()
    land.set()
    assert await asyncio.gather(*tasks) == ["1 plain"] * 4 + ["2 plain"]
    assert sorted(calls) == [(1, "plain"), (2, "plain")]


async def test_wrapped_methods_of_one_group_do_not_meet() -> None:
    async def one(number: int) -> str:
        await asyncio.sleep(0)
        return f"one {number}"

    async def two(number: int) -> str:
        await asyncio.sleep(0)
        return f"two {number}"

    group = Group()
    assert tuple(await asyncio.gather(group.wrap(one)(1), group.wrap(two)(1))) == ("one 1", "two 1")


async def test_wrapping_takes_a_key_and_can_leave_the_copy_out() -> None:
    value: list[int] = []

    async def fetch(number: int, trace: object) -> list[int]:
        await asyncio.sleep(0)
        return value

    group = Group()
    fetch_together = group.wrap(fetch, key=lambda number, trace: number, copy=None)
    one, two = await asyncio.gather(fetch_together(1, object()), fetch_together(1, object()))
    assert one is two is value


async def test_an_eager_task_factory_does_not_break_sharing() -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        pytest.skip("uvloop passes on an argument that the eager factories of some Pythons do not take")
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        group, work = Group(), Work()
        tasks = await _callers(group, 3, work)
        work.land.set()
        assert await asyncio.gather(*tasks) == ["value"] * 3
        assert work.calls == 1
        with pytest.raises(ReentrantCallError):
            await group.do("A", lambda: group.do("A", work))
    finally:
        loop.set_task_factory(None)
