"""The tokens of many answers together: sums, their intervals, and what a limit does to them."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.learning.estimating.level import SHIFT, level_error_of, num_learned
from lengthwise.learning.estimating.totals import Totals
from lengthwise.predictors.constant import ConstantPredictor

SIGMA = 0.5


def log_normal(medians: np.ndarray) -> LengthEstimates:
    """What is known of answers whose lengths are log-normal around `medians`."""
    from scipy.special import ndtr

    return LengthEstimates.from_survival(1 - ndtr(np.log(GRID[None, :] / medians[:, None]) / SIGMA))


def totals_of(estimates: LengthEstimates, limit: float = 10_000, num_answers: int = 1) -> Totals:
    totals = Totals()
    num = len(estimates)
    totals.add(estimates, np.full(num, limit), np.full(num, num_answers))
    return totals


def test_lengths_that_are_known_add_up() -> None:
    """Exact lengths have an exact sum; the limit cuts them, and the level moves them all together."""
    totals = totals_of(LengthEstimates.certain([10, 20, 300]), limit=100)
    assert totals.tokens == pytest.approx(130)
    assert totals.spread == pytest.approx(0, abs=1e-6)
    exact = totals.interval(0.0)
    assert (exact.low, exact.high) == (pytest.approx(130), pytest.approx(130))
    assert totals.max_tokens == 300
    assert totals.expected_cut == pytest.approx(1)


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Simulated: lengths drawn from what was said of them, all times a common factor that is drawn, too. The interval
    of 90 % holds the sum in about nine of ten jobs, however many answers there are and with a limit or without; one
    without a common factor does not."""
    rng = np.random.default_rng(0)
    for num, limit in ((200, 10_000), (2_000, 10_000), (2_000, 150)):
        medians = rng.uniform(20, 300, num)
        totals = totals_of(log_normal(medians), limit)
        shared, alone = totals.interval(0.1), totals.interval(0.0)
        hits = naive = 0
        for _ in range(400):
            factor = np.exp(0.1 * rng.standard_normal())
            drawn = medians * np.exp(SIGMA * rng.standard_normal(num)) * factor
            sum_ = np.minimum(np.maximum(1, drawn), limit).sum()
            hits += shared.low <= sum_ <= shared.high
            naive += alone.low <= sum_ <= alone.high
        assert 0.86 <= hits / 400 <= 0.94, (num, limit)
        assert naive / 400 < (0.7 if num == 200 else 0.4)


def test_chunks_do_not_matter() -> None:
    """Answers added together or one after the other have the same sum."""
    estimates = log_normal(np.linspace(10, 400, 50))
    whole, parts = totals_of(estimates, 200), Totals()
    for rows in np.array_split(np.arange(50), 7):
        parts.add(estimates[rows], np.full(len(rows), 200.0), np.ones(len(rows), np.int64))
    assert parts.tokens == pytest.approx(whole.tokens)
    assert parts.interval(0.1).high == pytest.approx(whole.interval(0.1).high)


def test_several_answers_to_a_prompt_count_each() -> None:
    """Three choices are three answers, which vary each for itself."""
    estimates = log_normal(np.full(100, 50.0))
    one, three = totals_of(estimates), totals_of(estimates, num_answers=3)
    assert three.num_answers == 300
    assert three.tokens == pytest.approx(3 * one.tokens)
    width = [found.interval(0.0).high - found.interval(0.0).low for found in (one, three)]
    assert width[1] == pytest.approx(3**0.5 * width[0], rel=0.01)


def test_more_answers_never_make_the_level_sure() -> None:
    """A million answers are not known within a tenth of a percent: the common factor stays."""
    estimates = log_normal(np.full(100, 50.0))
    totals = totals_of(estimates, num_answers=10_000)
    interval = totals.interval(0.1)
    assert (interval.high - interval.low) / totals.tokens > 0.3


def test_an_interval_stays_within_what_can_be() -> None:
    """At least a token an answer, at most all limits."""
    interval = totals_of(log_normal(np.full(3, 40.0)), limit=41).interval(0.9)
    assert interval.high == 123
    interval = totals_of(log_normal(np.full(3, 1.1)), limit=4).interval(2.0)
    assert interval.low >= 3


class Learned:
    """A predictor that says by how many answers it was calibrated."""

    model = None
    inner = None

    def __init__(self, num_answers: object) -> None:
        self.card = {"num_answers": num_answers}


def test_the_level_rests_on_the_answers_that_it_was_learned_from() -> None:
    """Few answers leave it open, many leave what other prompts may differ by; who says nothing has that alone."""
    few, many = (level_error_of(Learned(num), spread=0.8) for num in (25, 10_000))  # type: ignore[arg-type]
    assert few == pytest.approx(np.hypot(SHIFT, 0.16))
    assert many == pytest.approx(SHIFT, rel=0.01)
    assert level_error_of(ConstantPredictor.of_length(9), 0.8) == SHIFT
    assert num_learned(Learned("many")) is None  # type: ignore[arg-type]
