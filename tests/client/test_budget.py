"""One budget over a chain of services: each hands on what is left of its caller's time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.client.errors import DeadlineExceededError
from app.client.templates import TIMEOUT_S
from app.concurrency.budget import budget
from tests.client.fake_service import Context, FakeService, details, giving, held, serving, to


async def test_each_call_of_a_chain_has_less_time_than_the_one_before() -> None:
    async with serving(FakeService(answers=[giving(details())])) as last, to(last, timeout_s=60) as to_last:

        async def passing_on(request: Any, context: Context) -> Any:
            with budget(context.time_remaining()):
                await to_last.get(request.id)
            return details()

        async with serving(FakeService(answers=[passing_on])) as middle, to(middle, timeout_s=60) as to_middle:
            with budget(8.0):
                await to_middle.get(1)
            await to_middle.get(1)
    in_middle, _without = middle.time_remaining
    in_last, from_default = last.time_remaining
    assert in_middle is not None
    assert in_last is not None
    assert from_default is not None
    assert 0 < in_last < in_middle < 8.0
    assert 8.0 < from_default < 60


async def test_a_default_that_is_shorter_than_the_budget_stays() -> None:
    async with serving(FakeService(answers=[giving(details())])) as service, to(service) as client:
        with budget(600):
            await client.get(1)
            await client.get(1, timeout_s=2.0)
    by_default, told = service.time_remaining
    assert by_default is not None
    assert told is not None
    assert told <= 2.02 < by_default <= TIMEOUT_S * 1.01


async def test_with_no_time_left_nothing_is_sent() -> None:
    async with serving(FakeService(answers=[giving(details())])) as service, to(service) as client:
        with budget(0):
            for call in (
                client.get(1),
                client.create("n", "b"),
                client.update(1, name="n"),
                client.delete(1),
                client.import_templates([("n", "b")]),
                anext(client.watch([1])),
            ):
                with pytest.raises(DeadlineExceededError, match="the caller's time is over"):
                    await call
        await client.get(1)  # and the next one, out of the budget, is made
    assert service.calls == 1


async def test_a_budget_that_ends_during_a_call_ends_the_call() -> None:
    never = asyncio.Event()
    answers = [giving(details()), held(never, giving(details()))]
    async with serving(FakeService(answers=answers)) as service, to(service, timeout_s=60) as client:
        await client.get(1)  # connecting is a part of the first one
        with budget(1.0), pytest.raises(DeadlineExceededError):
            await asyncio.wait_for(client.get(1), 30)
    assert service.calls == 2
