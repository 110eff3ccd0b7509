"""Whether a predictor tells more than the distribution: the judgement itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.predictors.cold_start.cohort import Examples
from lengthwise.predictors.cold_start.trial import concordance, judge, scores
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.types import Request

RNG = np.random.default_rng(0)


def examples(lengths: np.ndarray, is_censored: np.ndarray | None = None) -> Examples:
    censored = np.zeros(len(lengths), bool) if is_censored is None else is_censored
    requests = tuple(Request(str(i), "prompt") for i in range(len(lengths)))
    return Examples(requests, lengths.astype(float), censored, np.arange(len(lengths)))


def around(centres: np.ndarray, spread: float = 0.3) -> LengthEstimates:
    return LengthEstimates.from_survival(1 / (1 + (GRID / centres[:, None]) ** (1 / spread)))


def test_knowledge_gains_and_guessing_loses():
    """The constant is the true distribution: who knows centres beats it by far, who guesses at them does not."""
    centres = np.exp(RNG.normal(4.5, 0.8, 300))
    lengths = np.maximum(1, centres * np.exp(RNG.logistic(0, 0.3, 300)))
    constant = ConstantPredictor.fit(lengths).predict(examples(lengths).requests)
    knowing = judge(around(centres), constant, examples(lengths))
    assert knowing.gain > 5
    assert knowing.mae < knowing.mae_constant
    assert knowing.tau > 0.4
    guessing = judge(around(RNG.permutation(centres)), constant, examples(lengths))
    assert guessing.gain < 0


def test_a_censored_length_is_judged_up_to_where_it_was_seen():
    """What a predictor says of the time after does not count."""
    curve = np.interp(GRID, [1, 50, 1_000], [1, 0.6, 0]).astype(np.float32)
    other = np.where(GRID > 100, curve / 2, curve)
    seen = examples(np.array([100.0]), np.array([True]))
    assert scores(curve[None], seen) == pytest.approx(scores(other[None], seen))
    ended = examples(np.array([100.0]))
    assert scores(curve[None], ended) != pytest.approx(scores(other[None], ended))
    assert scores(np.ones_like(curve)[None], seen) == pytest.approx(0)


def test_concordance_is_kendalls_tau_and_leaves_out_what_is_not_known():
    """Without censoring it is tau; a pair counts only if it is known which is longer."""
    lengths = RNG.permutation(np.arange(1, 101)).astype(float)
    predicted = lengths + RNG.normal(0, 30, 100)
    assert concordance(predicted, examples(lengths)) == pytest.approx(kendalltau(predicted, lengths)[0])
    three = examples(np.array([10.0, 20.0, 30.0]), np.array([True, False, False]))
    assert concordance(np.array([9.0, 1.0, 2.0]), three) == 1  # 10 may become anything: one pair is known
    assert concordance(np.array([1.0]), examples(np.array([5.0]))) == 0
