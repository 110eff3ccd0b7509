"""The simulator is exact to the token, runs every scheduler, and reproduces what queueing theory knows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.costs import StepCost
from lengthwise.errors import EngineError, InputError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling import urgency
from lengthwise.scheduling.online import OnlineConfig, OnlineScheduler
from lengthwise.scheduling.refill import RefillScheduler
from lengthwise.simulation.arrivals import at_once, bursty, poisson, resampled
from lengthwise.simulation.cost import steps_s, steps_until
from lengthwise.simulation.guesses import exact, of_tau
from lengthwise.simulation.load import at_load, load_of
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import DEFAULT, POLICIES, policy
from lengthwise.simulation.prefixes import BLOCK_TOKENS
from lengthwise.simulation.remembered import RememberedEstimates, remembered
from lengthwise.simulation.simulator import Outcome, simulate
from lengthwise.simulation.study import interval
from lengthwise.simulation.workload import Workload
from lengthwise.types import Preempt, RunningRequest, Start, View
from tests.simulation.step_by_step import play

quick = settings(deadline=None, max_examples=40)


def arrival() -> OnlineScheduler:
    return OnlineScheduler(OnlineConfig(urgency.no_order))


def drawn(seed: int, num: int, gap_s: float = 0.3) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload.of(rng.exponential(gap_s, num).cumsum(), rng.integers(0, 30, num), rng.integers(1, 40, num))


def tree(work: Workload, seed: int) -> Workload:
    """The same requests, with prompts of 0 to 4 blocks and some tokens more: each block goes on in one of two ways."""
    rng = np.random.default_rng([seed, 1])
    prefixes = []
    for _ in range(len(work)):
        turns = rng.integers(0, 2, rng.integers(0, 5)).tolist()
        prefixes.append(tuple(2 ** (i + 1) + int("".join(map(str, turns[: i + 1])), 2) for i in range(len(turns))))
    prompts = BLOCK_TOKENS * np.array([len(prefix) for prefix in prefixes]) + rng.integers(0, 3, len(work))
    return replace(work, prompt_tokens=prompts, prefixes=tuple(prefixes))


class TestExactToTheToken:
    """Against an engine that takes every step, and knows no closed form."""

    @quick
    @given(
        seed=st.integers(0, 10_000),
        num=st.integers(1, 25),
        gap_s=st.sampled_from([0.0, 0.05, 0.4]),
        slots=st.integers(1, 6),
        context_s=st.sampled_from([0.0, 1e-4]),
        read=st.sampled_from([(0.0, 0.0), (0.0201931, 0.0011731)]),
        chunk=st.sampled_from([None, 7, 16]),
        kv_tokens=st.sampled_from([float("inf"), 75.0, 120.0]),
        is_shortest=st.booleans(),
    )
    def test_starts_and_ends_agree(self, seed, num, gap_s, slots, context_s, read, chunk, kv_tokens, is_shortest):
        """Slots, arrivals, prompts read alone or in chunks, a cache that fills up: the same times for every request.
        (Times are odd, so that no arrival falls on the end of a step, where rounding would decide.)"""
        work = drawn(seed, num, gap_s)
        model = EngineModel(slots, kv_tokens, "preempt", chunk, cost=StepCost(0.0101371, 0.0021931, context_s, *read))
        scheduler = OnlineScheduler() if is_shortest else arrival()
        outcome = simulate(work, exact(work.output_tokens), scheduler, model)
        start_s, end_s = play(work, work.output_tokens if is_shortest else work.arrival_s, model)
        np.testing.assert_allclose(outcome.start_s, start_s, atol=1e-6)
        np.testing.assert_allclose(outcome.end_s, end_s, atol=1e-6)

    @quick
    @given(
        seed=st.integers(0, 10_000),
        num=st.integers(1, 25),
        slots=st.integers(1, 6),
        chunk=st.sampled_from([None, 700]),
        kv_tokens=st.sampled_from([float("inf"), 5000.0]),
        num_blocks=st.sampled_from([1, 3, 6, 100]),
        is_shortest=st.booleans(),
    )
    def test_a_prefix_cache_agrees(self, seed, num, slots, chunk, kv_tokens, num_blocks, is_shortest):
        """Prompts of up to four blocks from a small tree of them, in caches from one block to all."""
        work = tree(drawn(seed, num), seed)
        cost = StepCost(0.0101371, 0.0021931, 1e-7, 0.0201931, 0.00011731)
        model = EngineModel(slots, kv_tokens, "preempt", chunk, num_blocks * BLOCK_TOKENS, cost)
        scheduler = OnlineScheduler() if is_shortest else arrival()
        outcome = simulate(work, exact(work.output_tokens), scheduler, model)
        start_s, end_s = play(work, work.output_tokens if is_shortest else work.arrival_s, model)
        np.testing.assert_allclose(outcome.start_s, start_s, atol=1e-6)
        np.testing.assert_allclose(outcome.end_s, end_s, atol=1e-6)

    @quick
    @given(st.floats(0, 50), st.floats(1e-3, 1), st.sampled_from([0.0, 1e-6, 0.01]))
    def test_steps_until_is_the_fewest(self, wanted_s: float, first_s: float, growth_s: float):
        """One step less would not do, and the closed form is the sum."""
        num = steps_until(wanted_s, first_s, growth_s)
        assert steps_s(num, first_s, growth_s) >= wanted_s
        assert num == 1 or steps_s(num - 1, first_s, growth_s) < wanted_s
        assert steps_s(3, first_s, growth_s) == pytest.approx(3 * first_s + 3 * growth_s)


class TestEveryScheduler:
    @pytest.mark.parametrize("name", POLICIES)
    @pytest.mark.parametrize("kv_tokens", [float("inf"), 250.0])
    def test_each_request_ends_with_its_tokens(self, name: str, kv_tokens: float):
        """All policies, those of the package in static batches too: row-steps are the tokens, written again or not."""
        work = drawn(1, 120, 0.05)
        chosen = policy(name)
        model = EngineModel(4, kv_tokens, chosen.memory)
        guess = of_tau(work.output_tokens, 0.5, np.random.default_rng(0))
        outcome = simulate(work, guess, chosen.make(model), model)
        assert (outcome.end_s > outcome.start_s).all()
        assert (outcome.start_s >= outcome.arrival_s).all()
        assert outcome.num_row_steps == work.answer_tokens.sum() + outcome.recomputed_tokens

    def test_memory_that_is_planned_by_chances_holds_more_rows(self):
        """With guesses of tau 0.5 in the memory of four whole answers: sooner done than where each row reserves its
        limit, few rows are put back, and hardly later than with lengths that are known."""
        lengths = np.minimum(np.random.default_rng(3).lognormal(3.5, 0.8, 600).astype(int) + 1, 256)
        work = Workload.of(at_once(600), 10, lengths, 256)
        model = EngineModel(64, 4 * 266, "planned", cost=StepCost(1.0, 0.02))
        guess, refill = of_tau(lengths, 0.5, np.random.default_rng(0)), POLICIES["refill"].make(model)
        planned = simulate(work, guess, refill, model)
        known = simulate(work, exact(lengths), POLICIES["refill"].make(model), model)
        whole = replace(model, memory="reserve")
        limits = simulate(work, guess, RefillScheduler(), whole)
        assert planned.makespan_s < 0.5 * limits.makespan_s
        assert planned.makespan_s < 1.15 * known.makespan_s
        assert planned.num_put_back < 0.1 * 600

    def test_static_batches_by_hand(self):
        """Two batches of two, arrival order: a batch steps as often as its longest row; what ends leaves."""
        work = Workload.of(at_once(4), 0, np.array([10, 20, 5, 30]))
        model = EngineModel(2, cost=StepCost(1.0, 0.1))
        outcome = simulate(work, exact(work.output_tokens), POLICIES["static-arrival"].make(model), model)
        first = 10 * 1.2 + 10 * 1.1
        assert outcome.end_s == pytest.approx([12, first, first + 5 * 1.2, first + 5 * 1.2 + 25 * 1.1])
        assert (outcome.num_steps, outcome.num_row_steps) == (50, 65)

    def test_nothing_is_written_while_others_are_taken_in(self):
        """Ten steps of a second; who comes in the fourth of them holds up both by half a second, and starts then."""
        work = Workload.of(np.array([0.0, 3.7]), 0, np.array([10, 2]))
        model = EngineModel(2, intake_s=0.5, cost=StepCost(1.0, 0.0))
        outcome = simulate(work, exact(work.output_tokens), arrival(), model)
        assert outcome.start_s.tolist() == [0.5, 5.0]
        assert outcome.end_s.tolist() == [11.0, 7.0]

    def test_limits_cut_answers(self):
        """An answer ends at its limit, however long it would be."""
        work = Workload.of(at_once(2), 0, np.array([10, 50]), 20)
        model = EngineModel(2, cost=StepCost(1.0, 0.0))
        outcome = simulate(work, exact(work.output_tokens), arrival(), model)
        assert outcome.end_s.tolist() == [10, 20]

    def test_the_view_is_the_loops(self):
        """Rows that run show what they have by now, what waits is there, and free memory is what is not reserved."""
        seen: list[tuple[float, list[int], list[str], int, float]] = []

        class Watching(OnlineScheduler):
            def decide(self, view: View):
                rows = [row.num_tokens for row in view.running.values()]
                seen.append((view.now_s, rows, list(view.waiting), view.free_rows, view.free_kv_tokens))
                assert all(isinstance(row, RunningRequest) for row in view.running.values())
                return super().decide(view)

        work = Workload.of(np.array([0.0, 4.5, 20.0]), 3, np.array([10, 6, 1]), 16)
        model = EngineModel(2, 40, "reserve", cost=StepCost(1.0, 0.0))
        simulate(work, exact(work.output_tokens), Watching(), model)
        assert seen[0] == (0.0, [], ["0"], 2, 40)
        assert seen[1] == (5.0, [5], ["1"], 1, 40 - 3 - 16)

    def test_what_is_put_back_goes_on(self):
        """A scheduler may put a row back: it waits again with its tokens, reads them again, and ends once."""

        class Swapping(OnlineScheduler):
            is_done = False

            def decide(self, view: View):
                if "0" in view.running and "1" in view.waiting and not self.is_done:
                    self.is_done = True
                    return [Preempt("0")]
                return super().decide(view)

        work = Workload.of(np.array([0.0, 3.5]), 5, np.array([10, 10]))
        model = EngineModel(2, cost=StepCost(1.0, 0.0))
        outcome = simulate(work, exact(work.output_tokens), Swapping(), model)
        assert outcome.num_put_back == 1
        assert outcome.num_read_tokens == 5 + 5 + (5 + 4)
        assert outcome.num_row_steps == 20

    def test_a_scheduler_that_starts_nothing_is_told_of(self):
        class Idle(OnlineScheduler):
            def decide(self, view: View) -> list[Start]:
                return []

        work = Workload.of(at_once(2), 0, np.array([1, 2]))
        with pytest.raises(EngineError, match="Idle starts nothing though 2 requests wait"):
            simulate(work, exact(work.output_tokens), Idle(), EngineModel())

    def test_a_request_that_never_fits_is_named(self):
        work = Workload.of(at_once(2), np.array([1, 90]), np.array([1, 20]))
        with pytest.raises(UsageError, match="Row 2 needs 110 tokens"):
            simulate(work, exact(work.output_tokens), arrival(), EngineModel(2, 100))


class TestMemory:
    def test_a_full_cache_puts_the_youngest_back(self):
        """Two rows of 30 in a cache of 40: the second gives way when both have 20, and goes on when there is room."""
        work = Workload.of(at_once(2), 0, np.array([30, 30]))
        model = EngineModel(2, 40, cost=StepCost(1.0, 0.0, read_token_s=0.1))
        outcome = simulate(work, exact(work.output_tokens), arrival(), model)
        assert outcome.num_put_back == 1
        assert outcome.end_s == pytest.approx([30, 30 + 20 * 0.1 + 10])

    def test_reserved_memory_is_free_again(self):
        """Two rows of 16 tokens at a time in a cache of 32, whatever ran before."""
        work = Workload.of(at_once(6), 0, np.array([10] * 6), 16)
        model = EngineModel(4, 32, "reserve", cost=StepCost(1.0, 0.0))
        outcome = simulate(work, exact(work.output_tokens), arrival(), model)
        assert outcome.end_s.tolist() == [10, 10, 20, 20, 30, 30]

    def test_less_memory_takes_longer(self):
        """The same requests with room for all, for some, and for hardly more than one."""
        work = drawn(3, 200, 0.0)
        spans = []
        for kv_tokens in (float("inf"), 200.0, 80.0):
            outcome = simulate(work, exact(work.output_tokens), arrival(), EngineModel(16, kv_tokens))
            spans.append(outcome.makespan_s)
        assert spans[0] < 0.8 * spans[1] < 0.8**2 * spans[2]


def mean_wait_s(outcome: Outcome) -> float:
    return float(outcome.wait_s.mean())


class TestQueueingTheory:
    """One slot, Poisson arrivals, a token a millisecond: a single server whose waiting has a closed form."""

    model = EngineModel(1, cost=StepCost(0.001, 0.0))

    def waits(self, lengths: Callable[[np.random.Generator, int], np.ndarray], rate: float) -> np.ndarray:
        found = []
        for seed in range(12):
            rng = np.random.default_rng([seed, 5])
            work = Workload.of(poisson(2000, rate, rng), 0, lengths(rng, 2000))
            found.append(mean_wait_s(simulate(work, exact(work.output_tokens), arrival(), self.model)))
        return np.array(found)

    def test_m_m_1(self):
        """Exponential service (geometric in tokens) at load 0.6: the mean wait is load ÷ (1 - load) services."""
        waits = self.waits(lambda rng, num: rng.geometric(1 / 1000, num), rate=0.6)
        low, high = interval(waits)
        assert low < 0.6 / 0.4 < high
        assert high - low < 0.3

    def test_m_g_1(self):
        """Two kinds of answers, 100 and 2,000 tokens: Pollaczek and Khinchine's mean wait."""
        lengths, chances = np.array([100, 2000]), np.array([0.8, 0.2])
        mean_s, square_s = (lengths / 1000) @ chances, (lengths / 1000) ** 2 @ chances
        rate = 0.6 / mean_s
        expected_s = rate * square_s / (2 * (1 - 0.6))
        low, high = interval(self.waits(lambda rng, num: rng.choice(lengths, num, p=chances), rate))
        assert low < expected_s < high
        assert high - low < 0.25 * expected_s

    def test_shortest_first_waits_least(self):
        """With true lengths nothing waits less on average than shortest first; longest first waits most."""
        rng = np.random.default_rng(0)
        work = Workload.of(poisson(1000, 0.8, rng), 0, rng.geometric(1 / 1000, 1000))
        waits = {
            name: mean_wait_s(simulate(work, exact(work.output_tokens), policy(name).make(self.model), self.model))
            for name in DEFAULT
        }
        assert min(waits, key=waits.__getitem__) in ("shortest", "gittins")
        assert max(waits, key=waits.__getitem__) == "longest"
        assert waits["shortest"] < 0.7 * waits["arrival"]


class TestArrivals:
    def test_rates_and_bursts(self):
        """Gaps have the mean and the variation that were asked for."""
        rng = np.random.default_rng(0)
        for variation in (0.5, 1.0, 3.0):
            gaps = np.diff(bursty(40_000, 2.0, variation, rng))
            assert gaps.mean() == pytest.approx(0.5, rel=0.1)
            assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.1)

    def test_a_load_is_what_was_asked_for(self):
        """Scaled to a load, the engine is busy for about that share of the time; beyond 1 it falls behind."""
        model = EngineModel(4, cost=StepCost(0.01, 0.001, 1e-6, 0.01, 1e-4))
        work = drawn(5, 3000)
        for load in (0.5, 1.5):
            scaled = at_load(work, load, model)
            assert load_of(scaled, model) == pytest.approx(load)
        late = [
            simulate(at_load(work, load, model), exact(work.output_tokens), arrival(), model).wait_s[-300:].mean()
            for load in (0.5, 1.5)
        ]
        assert late[1] > 100 * late[0]

    def test_resampled_logs_keep_neighbours(self):
        """A draw has stretches of the log: prompts, lengths and gaps that belong together stay together."""
        work = drawn(7, 400)
        again = resampled(work, 400, np.random.default_rng(0))
        rows = again.rows
        follows = np.flatnonzero(np.diff(rows) == 1)
        assert len(follows) > 350
        assert (again.output_tokens == work.output_tokens[rows]).all()
        gaps, before = np.diff(again.arrival_s), np.diff(work.arrival_s)
        np.testing.assert_allclose(gaps[follows], before[rows[follows]], atol=1e-9)

    @pytest.mark.parametrize(
        "change",
        [
            {"arrival_s": np.array([1.0, 0.0])},
            {"output_tokens": np.array([0, 1])},
            {"arrival_s": np.array([0, np.nan])},
        ],
    )
    def test_wrong_columns_are_refused(self, change):
        with pytest.raises(InputError):
            replace(Workload.of(at_once(2), 1, np.array([1, 2])), **change)


class TestSettings:
    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda: StepCost(-1.0), "step_fixed_s is -1.0"),
            (lambda: StepCost(0.0, 0.0), "takes no time"),
            (lambda: EngineModel(0), "slots is 0"),
            (lambda: EngineModel(kv_tokens=0), "kv_tokens is 0"),
            (lambda: EngineModel(intake_s=-1.0), "intake_s is -1.0"),
            (lambda: EngineModel(64, chunk_tokens=64), "chunk_tokens is 64"),
            (lambda: policy("nothing"), "no policy 'nothing'"),
            (lambda: policy("promise:0.5"), "max_wait_factor is 0.5"),
            (lambda: bursty(3, 0.0, 1.0, np.random.default_rng(0)), "above 0"),
        ],
    )
    def test_values_out_of_range_are_told(self, make: Callable[[], object], told: str):
        with pytest.raises(UsageError, match=told):
            make()


def test_remembered_estimates_are_the_same():
    """What the simulator hands over says the same as the predictor's own rows, whatever is asked of it."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 400, 50)
    plain = of_tau(lengths, 0.4, rng).capped(300)
    known = RememberedEstimates.of(plain)
    for rows in (slice(3, 4), slice(10, 30), slice(0, 50)):
        one, other = known[rows], plain[rows]
        assert len(one) == len(other)
        for ask in (
            lambda e: e.mean(),
            lambda e: e.median,
            lambda e: e.quantile(0.9),
            lambda e: e.exceeds(50),
            lambda e: e.survival,
            lambda e: e.limit,
            lambda e: e.given(20).mean(),
            lambda e: e.capped(100).quantile(0.8),
            lambda e: e[0].mean(),
            lambda e: LengthEstimates.concatenate([e, e]).mean(),
        ):
            np.testing.assert_array_equal(ask(one), ask(other))


@pytest.mark.parametrize(
    "plainly",
    [
        urgency.shortest_mean,
        urgency.shortest_median,
        urgency.shortest_quantile(0.9),
        urgency.shortest_tail_mean(0.5),
        urgency.longest_mean,
        urgency.gittins,
    ],
)
def test_remembered_urgencies_are_the_same(plainly: urgency.Urgency):
    """To the last bit, for one request or many; and what is put back, with tokens, is asked anew."""
    lengths = np.random.default_rng(0).integers(1, 400, 50)
    plain = of_tau(lengths, 0.4, np.random.default_rng(0)).capped(300)
    handed_over, ask = RememberedEstimates.of(plain), remembered(plainly)
    for rows in (slice(3, 4), slice(10, 30), slice(0, 50)):
        nothing = np.zeros(rows.stop - rows.start)
        np.testing.assert_array_equal(ask(handed_over[rows], nothing), plainly(plain[rows], nothing))
    back, written = plain[7].given(20), np.full(1, 20.0)
    np.testing.assert_array_equal(ask(back, written), plainly(back, written))
    assert (ask(back, written) != ask(handed_over[7:8], np.zeros(1))).all()


def test_same_seed_same_outcome():
    """Nothing depends on anything but what was given."""
    random.seed(1)
    work, model = drawn(9, 200, 0.02), EngineModel(4, 300)
    once, again = (simulate(work, exact(work.output_tokens), OnlineScheduler(), model) for _ in range(2))
    assert once.figures() == again.figures()
