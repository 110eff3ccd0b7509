"""Orders for requests that come while others run."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.scheduling import urgency
from lengthwise.scheduling.kinetic import GrowingQueue, Place, SteadyQueue
from lengthwise.scheduling.online import OnlineConfig, OnlineScheduler
from lengthwise.scheduling.promise import PromiseConfig, PromiseScheduler
from lengthwise.testing import check_scheduler
from lengthwise.types import Start, View, WaitingRequest
from tests.scheduling.toy_engine import ToyEngine
from tests.scheduling.worlds import World, patient, worlds

ORDERS = {
    "none": urgency.no_order,
    "mean": urgency.shortest_mean,
    "median": urgency.shortest_median,
    "quantile": urgency.shortest_quantile(0.8),
    "tail": urgency.shortest_tail_mean(0.5),
    "gittins": urgency.gittins,
    "longest": urgency.longest_mean,
}


def schedulers() -> st.SearchStrategy[OnlineScheduler]:
    orders, rates = st.sampled_from(list(ORDERS.values())), st.sampled_from([0.0, 3.0])
    online = st.builds(OnlineScheduler, st.builds(OnlineConfig, orders, rates))
    factors = st.sampled_from([1.0, 1.5, 100.0])
    return online | st.builds(PromiseScheduler, st.builds(PromiseConfig, orders, rates, factors))


@pytest.mark.parametrize("ageing", [0.0, 20.0])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_keeps_the_contract(order, ageing: float):
    """Every order, with ageing and without, passes the checks that every scheduler must pass."""
    check_scheduler(lambda: OnlineScheduler(OnlineConfig(order, ageing)))


def test_the_promise_keeps_the_contract():
    check_scheduler(PromiseScheduler)
    check_scheduler(lambda: PromiseScheduler(PromiseConfig(max_wait_factor=1.0)))


class TestEveryRequestEndsOnce:
    @patient
    @given(worlds(), schedulers(), st.booleans())
    def test_whatever_comes(self, world: World, scheduler: OnlineScheduler, has_foreign_cuts: bool):
        """With right, wrong and missing guesses, little memory, and an engine that puts rows back."""
        engine = self.engine(world, scheduler, has_foreign_cuts)
        engine.add(world.requests)
        engine.run()
        assert engine.finished == world.expected

    @patient
    @given(worlds(), schedulers(), st.integers(0, 2**32).map(random.Random))
    def test_when_requests_come_and_go(self, world: World, scheduler: OnlineScheduler, rng: random.Random):
        """Requests may come while others run, leave, and come again under the same id."""
        engine = self.engine(world, scheduler, has_foreign_cuts=True)
        pending = list(world.requests)
        while pending or engine.waiting or engine.running:
            num = rng.randint(0, 3)
            engine.add(pending[:num])
            pending = pending[num:]
            if rng.random() < 0.3:
                again = [request for request in engine.waiting.values() if not request.num_cuts and rng.random() < 0.2]
                engine.remove([request.id for request in again] + ["never seen"])
                pending += again
            engine.step()
        assert engine.finished == world.expected

    def engine(self, world: World, scheduler: OnlineScheduler, has_foreign_cuts: bool) -> ToyEngine:
        engine = world.engine(scheduler, has_foreign_cuts=has_foreign_cuts)
        engine.is_static = False
        return engine


def _seconds(first: int, last: int) -> st.SearchStrategy[float]:
    return st.integers(first * 10**6, last * 10**6).map(lambda microseconds: microseconds / 10**6)


class TestOrder:
    def started(self, config: OnlineConfig, lengths: list[float], arrivals: list[float], now_s: float) -> list[int]:
        scheduler = OnlineScheduler(config)
        waiting = [WaitingRequest(str(i), 5, 1000, 0, at) for i, at in enumerate(arrivals)]
        scheduler.add(waiting, LengthEstimates.certain(lengths))
        decisions = scheduler.decide(View(now_s, {one.id: one for one in waiting}, {}, len(waiting)))
        assert all(isinstance(one, Start) for one in decisions)
        return [int(one.id) for one in decisions]

    @pytest.mark.parametrize(
        ("order", "expected"),
        [("none", [0, 1, 2, 3]), ("mean", [1, 3, 0, 2]), ("gittins", [1, 3, 0, 2]), ("longest", [2, 0, 1, 3])],
    )
    def test_by_length(self, order: str, expected: list[int]):
        """True lengths: shortest, longest, or as they came; equals as they came."""
        assert self.started(OnlineConfig(ORDERS[order]), [50, 10, 90, 10], [0.0] * 4, 1.0) == expected

    @patient
    @given(
        st.lists(st.tuples(st.integers(1, 500), _seconds(0, 50)), min_size=1, max_size=30),
        _seconds(50, 500),
    )
    def test_highest_response_ratio(self, rows: list[tuple[int, float]], now_s: float):
        """Ageing and no other order: by wait ÷ expected tokens. Times are those of a clock with microseconds."""
        lengths, arrivals = [float(length) for length, _ in rows], [at for _, at in rows]
        order = self.started(OnlineConfig(urgency.no_order, 1.0), lengths, arrivals, now_s)
        ratios = [(now_s - arrivals[i]) / lengths[i] for i in order]
        assert all(one >= other * (1 - 1e-6) for one, other in pairwise(ratios))

    def test_ageing_lets_the_long_ones_through(self):
        """A long one that has waited long goes before a short one that has just come; not without ageing."""
        rows = ([500.0, 10.0], [0.0, 999.99], 1000.0)
        assert self.started(OnlineConfig(urgency.shortest_mean), *rows) == [1, 0]
        assert self.started(OnlineConfig(urgency.shortest_mean, 1000.0), *rows) == [0, 1]

    def test_what_comes_back_goes_first(self):
        """A request that was cut to make room goes before one that is shorter and never ran."""
        scheduler = OnlineScheduler()
        back, fresh = WaitingRequest("back", 5, 100, 20, 0.0, 1), WaitingRequest("fresh", 5, 100)
        scheduler.add([fresh], LengthEstimates.certain([3]))
        scheduler.add([back], LengthEstimates.certain([90]).given(20))
        assert [one.id for one in scheduler.decide(View(0.0, {}, {}, 2))] == ["back", "fresh"]

    def test_the_next_is_not_passed_over(self):
        """What does not fit yet holds back what would: it starts as soon as its tokens are free."""
        scheduler = OnlineScheduler(OnlineConfig(urgency.no_order))
        rows = [WaitingRequest("large", 50, 100), WaitingRequest("small", 5, 10)]
        scheduler.add(rows, LengthEstimates.unknown(2).capped([100, 10]))
        running = {"other": rows[0]}
        assert scheduler.decide(View(0.0, {}, running, 2, 100.0)) == []
        assert [one.id for one in scheduler.decide(View(0.0, {}, running, 2, 165.0))] == ["large", "small"]

    def test_settings_out_of_range_are_told(self):
        for make in (
            lambda: OnlineConfig(ageing_tokens_per_s=-1),
            lambda: PromiseConfig(max_wait_factor=0.9),
            lambda: urgency.shortest_quantile(1.0),
            lambda: urgency.shortest_tail_mean(2.0),
        ):
            with pytest.raises(UsageError):
                make()


class TestUrgencies:
    def test_gittins_of_two_kinds(self):
        """Half of the answers end within 10 tokens, the others have 1,000: worth 10 tokens' try (0.5 ÷ about 10), more
        than an answer of 100, though its mean is larger."""
        mixed = np.where(GRID < 10, 1.0, np.where(GRID < 1000, 0.5, 0.0))
        estimates = LengthEstimates.from_survival(mixed[None, :])
        index = urgency.gittins(estimates, np.zeros(1))[0]
        assert index == pytest.approx(0.5 / 10, rel=0.12)
        assert estimates.mean()[0] > 400
        # Once those 10 are there, it is one of the others.
        written = np.full(1, 20.0)
        assert urgency.gittins(estimates.given(20), written)[0] == pytest.approx(1 / 950, rel=0.12)

    def test_gittins_of_a_certain_length(self):
        """One over what is left, with tokens written and without."""
        lengths, written = LengthEstimates.certain([50, 50, 7]), np.array([0.0, 30.0, 0.0])
        assert urgency.gittins(lengths.given(written), written) == pytest.approx([1 / 50, 1 / 20, 1 / 7])

    def test_gittins_is_no_less_than_one_over_the_mean(self):
        """Going on to the end is one of the stopping points."""
        curves = 1 / (1 + (GRID / np.array([20, 100, 300])[:, None]) ** 1.5)
        estimates = LengthEstimates.from_survival(curves).capped(512)
        assert (urgency.gittins(estimates, np.zeros(3)) >= urgency.shortest_mean(estimates, np.zeros(3)) - 1e-9).all()

    def test_a_tail_makes_later(self):
        """Of two answers with one mean, the one that may turn out much longer goes later."""
        narrow = 1 / (1 + (GRID / 120) ** 8)
        wide = 1 / (1 + (GRID / 60) ** 1.6)
        estimates = LengthEstimates.from_survival(np.stack([narrow, wide])).capped(2000)
        at = urgency.shortest_tail_mean(0.5)(estimates, np.zeros(2)) * estimates.mean()
        assert at[0] > 1.3 * at[1]
        flat = urgency.shortest_tail_mean(0.0)(estimates, np.zeros(2)) * estimates.mean()
        assert flat == pytest.approx([1, 1])


class TestQueues:
    @patient
    @given(st.integers(0, 2**32).map(random.Random), st.booleans())
    def test_first_is_the_most_urgent(self, rng: random.Random, is_growing: bool):
        """Against looking at all of them, as time goes on and places come and go."""
        queue = GrowingQueue() if is_growing else SteadyQueue()
        here: list[Place] = []
        now_s = 0.0
        for serial in range(rng.randint(1, 120)):
            now_s += rng.choice([0.0, rng.expovariate(1)])
            if here and rng.random() < 0.4:
                place = here.pop(rng.randrange(len(here)))
                place.is_waiting = False
                queue.drop(place)
            else:
                growth = rng.choice([0.0, 0.5, rng.random()]) if is_growing else 0.0
                urgent = rng.choice([1.0, rng.random()])
                here.append(Place(WaitingRequest(str(serial), 1, 1), serial, urgent - growth * now_s, growth))
                queue.push(here[-1])
            found = queue.first(now_s)
            if not here:
                assert found is None
                continue
            assert found in here
            most = max(place.urgency + place.growth_per_s * now_s for place in here)
            assert found.urgency + found.growth_per_s * now_s == pytest.approx(most, abs=1e-9)

    def test_a_million_looks_do_not_cost_a_million(self):
        """Looking at the first of many that all grow plays few matches again: a logarithm for each, on average."""
        queue, rng, num_played = GrowingQueue(), random.Random(0), 0

        def counted(node: int) -> None:
            nonlocal num_played
            num_played += 1
            GrowingQueue._play(queue, node)

        for serial in range(4096):
            queue.push(Place(WaitingRequest(str(serial), 1, 1), serial, -rng.random(), rng.random()))
        queue._play = counted
        for step in range(4096):
            place = queue.first(step / 100)
            assert place is not None
            place.is_waiting = False
            queue.drop(place)
        assert num_played < 4096 * 12 * 4
