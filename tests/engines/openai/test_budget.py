"""The budget of tries again: who may go, and when."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

from lengthwise.engines.openai.budget import RetryBudget
from lengthwise.engines.openai.retry import RetryPolicy


def test_a_fifth_and_ten_may_go_at_once():
    """Of 64 requests that break together 22 try again at once, in the order in which they came; the rest waits."""

    async def run() -> list[int]:
        budget, order = RetryBudget(RetryPolicy()), []
        for _ in range(64):
            budget.add_request()

        async def one(num: int) -> None:
            await budget.take()
            order.append(num)

        tasks = [asyncio.ensure_future(one(num)) for num in range(64)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        return order

    assert asyncio.run(run()) == list(range(22))


def test_an_answer_lets_the_next_go():
    """What brings an answer is put back: 500 that broke together and now are answered take no time at all."""

    async def run() -> float:
        budget, began_s = RetryBudget(RetryPolicy()), time.monotonic()

        async def one() -> None:
            await budget.take()
            await asyncio.sleep(0)
            budget.put_back()

        await asyncio.gather(*(one() for _ in range(500)))
        return time.monotonic() - began_s

    assert asyncio.run(run()) < 1.0  # one a second, it would be eight minutes


def test_beyond_the_budget_they_come_one_by_one():
    """Nothing is answered: after the two of the budget one every 20 ms."""

    async def run() -> float:
        budget, began_s = RetryBudget(RetryPolicy(budget_floor=2.0, budget_per_s=50.0)), time.monotonic()
        await asyncio.gather(*(budget.take() for _ in range(12)))
        return time.monotonic() - began_s

    assert asyncio.run(run()) >= 10 / 50 - 0.01


def test_none_is_lost_when_those_who_wait_are_cancelled():
    """Cancelled at any moment, also the one at which the turn comes: what was theirs goes to others."""

    async def run(seed: int) -> int:
        rng = random.Random(seed)
        budget = RetryBudget(RetryPolicy(budget_floor=3.0, budget_per_s=0.001))

        async def one() -> None:
            await budget.take()
            try:
                await asyncio.sleep(0)
            finally:
                budget.put_back()

        tasks = [asyncio.ensure_future(one()) for _ in range(60)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            rng.choice(tasks).cancel()
        num_taken = 0
        for _ in range(4):  # one more than the budget holds, which would wait for a quarter of an hour
            with suppress(TimeoutError):
                await asyncio.wait_for(budget.take(), 0.02)
                num_taken += 1
        return num_taken

    assert [asyncio.run(asyncio.wait_for(run(seed), 10.0)) for seed in range(20)] == [3] * 20
