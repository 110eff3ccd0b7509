"""Turns: first come, first served, never more than the limit, and none is lost."""

from __future__ import annotations

import asyncio
import random

from lengthwise.engines.openai.concurrency import FixedLimit, FoundLimit, FoundLimitConfig
from lengthwise.engines.openai.turns import Turns


def test_turns_come_in_order_and_never_more_than_the_limit():
    """A hundred want two places: two at a time, in the order in which they came."""

    async def run() -> tuple[list[int], int]:
        turns, order, most = Turns(FixedLimit(2)), [], 0

        async def one(num: int) -> None:
            nonlocal most
            await turns.take()
            order.append(num)
            most = max(most, turns.num_taken)
            await asyncio.sleep(0)
            turns.give_back()

        await asyncio.gather(*(one(num) for num in range(100)))
        assert turns.num_taken == 0
        return order, most

    order, most = asyncio.run(run())
    assert order == list(range(100))
    assert most == 2


def test_no_turn_is_lost_when_those_who_wait_are_cancelled():
    """Cancelled at any moment, also the one at which the turn comes: all others still get theirs."""

    async def run(seed: int) -> None:
        rng = random.Random(seed)
        turns = Turns(FixedLimit(3))

        async def one() -> None:
            await turns.take()
            try:
                await asyncio.sleep(0)
            finally:
                turns.give_back()

        tasks = [asyncio.ensure_future(one()) for _ in range(60)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            rng.choice(tasks).cancel()
        assert turns.num_taken == 0
        await asyncio.wait_for(one(), 1.0)

    for seed in range(20):
        asyncio.run(asyncio.wait_for(run(seed), 10.0))


def test_a_limit_that_shrinks_and_grows_is_kept_to():
    """After an overload fewer get in; `let_in` lets those in whose turn a grown limit brings."""

    async def run() -> None:
        limit = FoundLimit(FoundLimitConfig(start=4))
        turns = Turns(limit)
        waiting = [asyncio.ensure_future(turns.take()) for _ in range(10)]
        await asyncio.sleep(0)
        assert turns.num_taken == 4
        limit.refused(0.0, 1.0)
        for _ in range(2):
            turns.give_back()
        await asyncio.sleep(0)
        assert turns.num_taken == 2
        limit._value = 5
        turns.let_in()
        await asyncio.sleep(0)
        assert turns.num_taken == 5
        for task in waiting:
            task.cancel()

    asyncio.run(run())
