"""Partition and caps by expected time: against brute force, within limits, and fast."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.costs import StepCost
from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.expected import Outlook, Tables
from lengthwise.scheduling.named import grouped, make, optimal
from lengthwise.scheduling.optimal import PartitionConfig, PartitionScheduler
from lengthwise.scheduling.partition import Shape, best_plan, cheapest
from lengthwise.types import Capabilities, View, WaitingRequest
from tests.scheduling.compare_schedules import Setting, World, gain
from tests.scheduling.worlds import curve

few = settings(deadline=None, max_examples=40)

COSTS = [
    StepCost(0.02, 0.001, 1e-5, 0.01, 0.0005),
    StepCost(0.02, 0.001),
    StepCost(0.001, 0.01, 0.0, 0.0, 0.02),
]


@st.composite
def outlooks(draw: st.DrawFn, max_rows: int = 8) -> Outlook:
    """A few rows with short answers, each with a prompt, tokens so far and a limit of its own; some not to be cut."""
    num = draw(st.integers(1, max_rows))

    def ints(low: int, high: int) -> np.ndarray:
        return np.array(draw(st.lists(st.integers(low, high), min_size=num, max_size=num)))

    kept, room = ints(0, 5), ints(1, 8)
    guesses = draw(st.lists(st.sampled_from([None, 2.0, 4.0, 9.0]), min_size=num, max_size=num))
    estimates = LengthEstimates.from_survival([curve(guess) for guess in guesses]).given(kept).capped(kept + room)
    is_whole = np.array(draw(st.lists(st.sampled_from([False, False, True]), min_size=num, max_size=num)))
    return Outlook.of(estimates, ints(1, 30), kept, room, is_whole)


def shapes(max_kv_tokens: int = 200) -> st.SearchStrategy[Shape]:
    return st.builds(
        Shape, st.integers(1, 4), st.integers(1, max_kv_tokens).map(float) | st.just(math.inf), st.booleans()
    )


class Slow:
    """The same expectation added up step by step, from the estimates themselves."""

    def __init__(self, outlook: Outlook, cost: StepCost, shape: Shape, prices_s: list[float]) -> None:
        self.cost, self.shape, self.prices_s, self.outlook = cost, shape, prices_s, outlook
        held, room = outlook.held_tokens.tolist(), outlook.room_tokens.tolist()
        self.rows = list(zip(held, room, outlook.is_whole.tolist(), strict=True))
        self.goes_on = [
            [
                float(outlook.estimates[i].exceeds(outlook.num_tokens[i] + t)[0]) if t < room[i] else 0.0
                for t in range(9)
            ]
            for i in range(len(outlook))
        ]

    def seconds(self, batch: range, cap: int) -> float:
        """Infinite for what may not be."""
        held, room, is_whole = zip(*(self.rows[i] for i in batch), strict=True)
        if any(whole and cap < most for whole, most in zip(is_whole, room, strict=True)):
            return math.inf
        if len(batch) > 1 and self._reserved(held, room, cap) > self.shape.kv_tokens:
            return math.inf
        return self.cost.read_fixed_s + self._own_s(batch, held, cap) + sum(self._later_s(i, cap) for i in batch)

    def _reserved(self, held: tuple[int, ...], room: tuple[int, ...], cap: int) -> int:
        if self.shape.is_padded:
            return len(held) * (max(held) + min(max(room), cap))
        return sum(have + min(cap, most) for have, most in zip(held, room, strict=True))

    def _own_s(self, batch: range, held: tuple[int, ...], cap: int) -> float:
        seconds, cost = 0.0, self.cost
        if self.shape.is_padded:
            seconds += cost.read_token_s * len(held) * max(held)
        else:
            seconds += cost.read_token_s * sum(held)
        for step in range(cap):
            goes_on = [self.goes_on[i][step] for i in batch]
            any_goes_on = 1 - math.prod(1 - chance for chance in goes_on)
            if self.shape.is_padded:
                seconds += any_goes_on * cost.step_s(len(held), len(held) * (max(held) + step))
            else:
                seconds += any_goes_on * cost.step_fixed_s
                seconds += sum(
                    chance * (cost.step_row_s + cost.step_context_s * (have + step))
                    for chance, have in zip(goes_on, held, strict=True)
                )
        return seconds

    def _later_s(self, row: int, cap: int) -> float:
        """Reading it again, and its tokens behind the cap."""
        left = sum(self.goes_on[row][cap:])
        return self.goes_on[row][cap] * self.cost.read_token_s * (self.rows[row][0] + cap) + left * self.prices_s[row]

    @cache  # noqa: B019 (it lives as long as one example)
    def best_of(self, batch: range, longest: int) -> float:
        return min(self.seconds(batch, cap) for cap in range(1, longest + 1))

    def best_s(self) -> float:
        """Over all partitions and all caps."""
        longest = max(self.outlook.room_tokens.tolist())
        return min(
            sum(self.best_of(batch, longest) for batch in batches)
            for batches in partitions(len(self.outlook), self.shape.max_rows)
        )


def partitions(num: int, max_rows: int) -> Iterator[list[range]]:
    """Every way to cut `num` rows in a line into pieces of at most `max_rows`."""
    for cuts in product([False, True], repeat=num - 1):
        ends = [i + 1 for i, is_cut in enumerate(cuts) if is_cut] + [num]
        pieces = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        if max(map(len, pieces)) <= max_rows:
            yield pieces


class TestBruteForce:
    @few
    @given(outlooks(), shapes(), st.sampled_from(COSTS), st.floats(0, 0.1))
    def test_no_partition_and_no_caps_take_less(self, outlook: Outlook, shape: Shape, cost: StepCost, price_s: float):
        """Of all partitions into batches that fit and all caps, added up step by step."""
        prices_s = [price_s * (1 + i) for i in range(len(outlook))]
        tables = Tables(outlook, cost, shape.is_padded)
        tables.set_prices(np.array(prices_s))
        batches = cheapest(tables, outlook, shape)
        slow = Slow(outlook, cost, shape, prices_s)
        start, total_s = 0, 0.0
        for batch in batches:
            seconds = slow.seconds(range(start, start + batch.num_rows), batch.num_steps)
            assert batch.expected_s == pytest.approx(seconds, rel=1e-4, abs=1e-7)
            start, total_s = start + batch.num_rows, total_s + seconds
        assert start == len(outlook)
        assert total_s == pytest.approx(slow.best_s(), rel=1e-4, abs=1e-7)

    def test_the_sum_between_points_is_nearly_that_of_all_steps(self):
        """Long answers are looked at in 64 points: the expected time of a batch is that of all steps within 1 %."""
        world = World.drawn(8, 0.6, 1)
        zero = np.zeros(8, np.int64)
        outlook = Outlook.of(world.estimates.capped(512), zero + 40, zero, zero + 512, zero > 0)
        assert len(outlook.points) <= 64 < 512
        tables = Tables(outlook, StepCost(1.0, 0.0), False)
        goes_on = [world.estimates.capped(512).exceeds(step) for step in range(512)]
        steps = np.cumsum([1 - np.prod(1 - chances.astype(float)) for chances in goes_on])
        found = tables.seconds(slice(0, 1), 8)[0]
        assert found[1:] == pytest.approx(steps[outlook.points[1:] - 1], rel=0.01)


class TestPlan:
    @few
    @given(outlooks(max_rows=30), shapes(), st.sampled_from(COSTS), st.integers(1, 3))
    def test_every_plan_fits(self, outlook: Outlook, shape: Shape, cost: StepCost, groups: int):
        """Each row in one batch, within rows and memory, at least one step, and whole where it must be."""
        start = 0
        for batch in best_plan(outlook, cost, shape, groups):
            rows = slice(start, start + batch.num_rows)
            start += batch.num_rows
            steps = np.minimum(outlook.room_tokens[rows], batch.num_steps)
            reserved = outlook.held_tokens[rows] + steps
            needed = (
                batch.num_rows * (outlook.held_tokens[rows].max() + steps.max()) if shape.is_padded else reserved.sum()
            )
            assert 1 <= batch.num_rows <= shape.max_rows
            assert batch.num_steps >= 1
            assert batch.num_rows == 1 or needed <= shape.kv_tokens
            assert (steps == outlook.room_tokens[rows])[outlook.is_whole[rows]].all()
        assert start == len(outlook)

    def test_dear_reading_means_fewer_cuts(self):
        """What a cut costs decides where caps lie."""
        world = World.drawn(512, 0.6, 0)
        order = np.argsort(-world.estimates.quantile(0.8), kind="stable")
        zero = np.zeros(512, np.int64)
        outlook = Outlook.of(world.estimates[order].capped(512), zero + 40, zero, zero + 512, zero > 0)

        def num_cut(read_token_s: float) -> float:
            plan = best_plan(outlook, StepCost(0.002, 0.0001, read_token_s=read_token_s), Shape(32, math.inf, False))
            start, cut = 0, 0.0
            for batch in plan:
                rows = outlook.estimates[np.arange(start, start + batch.num_rows)]
                cut += float(rows.exceeds(batch.num_steps).sum())
                start += batch.num_rows
            return cut

        assert num_cut(0.0) > 1.5 * num_cut(0.0001) > 1.5 * num_cut(0.001)

    def test_rows_that_nobody_needs_beside_each_other_stay_apart(self):
        """Where a step costs its rows only and batches are padded, a long row and short ones don't share a batch."""
        lengths = np.array([400, 10, 10, 10, 10])
        zero = np.zeros(5, np.int64)
        outlook = Outlook.of(LengthEstimates.certain(lengths), zero + 5, zero, lengths, zero == 0)
        plan = best_plan(outlook, StepCost(1e-6, 0.01), Shape(5, math.inf, True))
        assert [batch.num_rows for batch in plan] == [1, 4]
        plan = best_plan(outlook, StepCost(0.01, 1e-6), Shape(5, math.inf, True))
        assert [batch[:2] for batch in plan] == [(5, 400)]


class TestScheduler:
    @pytest.mark.parametrize(
        ("setting", "least"),
        [(Setting(32), 1.0), (Setting(512, kv_tokens=16 * 552), 1.02), (Setting(256, is_padded=True), 1.05)],
        ids=str,
    )
    def test_it_takes_less_time_than_fixed_rules(self, setting: Setting, least: float):
        """Simulated, against sorted batches with one cap quantile for all; most where batches keep their shape."""
        worlds = [World.drawn(1000, 0.6, 0)]
        assert gain(optimal, worlds, setting) > least * gain(grouped, worlds, setting)

    def test_the_plan_takes_as_long_as_was_expected(self):
        """The expected time of a group, against what it took with lengths drawn from the same estimates."""
        world, setting = World.drawn(2048, 0.6, 3), Setting(64)
        zero = np.zeros(2048, np.int64)
        estimates = world.estimates.capped(512)
        order = np.argsort(-estimates.quantile(0.8), kind="stable")
        outlook = Outlook.of(estimates[order], zero + 40, zero, zero + 512, zero > 0)
        expected_s = sum(batch.expected_s for batch in best_plan(outlook, setting.cost, Shape(64, math.inf, False)))
        engine = world.play(optimal(setting.cost), 64)
        cost = setting.cost
        took_s = cost.step_fixed_s * engine.num_steps + cost.step_row_s * engine.num_row_steps
        took_s += cost.read_token_s * engine.num_read_tokens
        assert took_s == pytest.approx(expected_s, rel=0.05)

    def test_a_smaller_engine_is_planned_for_anew(self):
        """Capabilities may shrink while it runs: the rest of the group is parted again, and nothing is lost."""
        scheduler = optimal()
        requests = [WaitingRequest(f"r{i}", 10, 50) for i in range(30)]
        scheduler.add(requests, LengthEstimates.unknown(30).capped(50))
        views = [(8, math.inf), (3, math.inf), (8, 2 * 60.0), *[(2, math.inf)] * 20]
        started = [scheduler.decide(View(0.0, {}, {}, *room)) for room in views]
        assert [len(starts) <= most for starts, most in zip(started, [8, 3, 2, *[2] * 20], strict=True)] == [True] * 23
        assert [start.id for starts in started for start in starts] == [request.id for request in requests]

    def test_rows_that_were_removed_are_planned_around(self):
        """What was planned for them is not made of others."""
        scheduler = optimal()
        requests = [WaitingRequest(f"r{i}", 10, 50) for i in range(10)]
        scheduler.add(requests, LengthEstimates.unknown(10).capped(50))
        first = {start.id for start in scheduler.decide(View(0.0, {}, {}, 4))}
        gone = [f"r{i}" for i in range(5, 10)]
        scheduler.remove(gone)
        rest = {start.id for start in scheduler.decide(View(0.0, {}, {}, 4))}
        assert first | rest == {request.id for request in requests} - set(gone)
        longer = [WaitingRequest(f"s{i}", 10, 500) for i in range(8)]
        scheduler.add(longer, LengthEstimates.unknown(8).capped(500))
        starts = [start for _ in range(2) for start in scheduler.decide(View(0.0, {}, {}, 4))]
        assert [start.cap for start in starts] == [500] * 8

    def test_the_engine_says_whether_batches_are_padded(self):
        """And whether caps can be used, and what passes take."""
        cost = StepCost(1.0, 2.0)
        able = Capabilities(4)
        assert make("optimal", able, cost).config == PartitionConfig(cost)
        assert make("optimal", replace(able, can_refill=False)).config == PartitionConfig(is_padded=True)
        assert make("optimal", replace(able, can_cut=False)).config == PartitionConfig(fcr=False)

    @pytest.mark.parametrize("bad", [{"group_size": 0}, {"groups_per_collection": 0}, {"max_cuts": 0}])
    def test_settings_out_of_range_are_refused(self, bad: dict[str, int]):
        with pytest.raises(UsageError, match=f"{next(iter(bad))} is 0"):
            PartitionScheduler(PartitionConfig(**bad))
