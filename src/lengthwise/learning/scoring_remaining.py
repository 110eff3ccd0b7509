"""How well it is known what remains of answers that are being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import Flags, LengthData, Lengths
from lengthwise.predictors.remaining.fit import part_of
from lengthwise.protocols import AnswerReviser

WRITTEN = (16, 64, 128, 256)  # tokens


@dataclass(frozen=True)
class RemainingScore:
    """Of answers that go on after `num_tokens`: errors in the tokens that remain (mean absolute error of the median;
    a prediction above an "at least" is none), from the text and from the base's `given(n)`, the difference's 95 %
    interval by resampling answers, and how often 90 % intervals from the text hold."""

    num_tokens: int
    num_answers: int
    mae: float
    mae_given: float
    gain_ci95: tuple[float, float]
    coverage_90: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def written_samples(data: LengthData) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    """Rows, samples and texts of all answers whose text is known (m)."""
    places = [
        (row, sample, text)
        for row, texts in enumerate(data.texts or ())
        for sample, text in enumerate(texts)
        if text is not None and np.isfinite(data.lengths[row, sample])
    ]
    rows, samples, texts = zip(*places, strict=True) if places else ((), (), ())
    return np.array(rows, np.intp), np.array(samples, np.intp), list(texts)


def score_remaining(
    predictor: AnswerReviser, data: LengthData, written: Sequence[int] = WRITTEN, num_resamples: int = 500
) -> list[RemainingScore]:
    """Figures at each number of tokens that some answers go on after; none where `data` has no texts. All samples
    count, and resampling draws prompts with all of theirs."""
    rows, samples, texts = written_samples(data)
    lengths = data.lengths[rows, samples]
    is_cut = data.is_cut[rows, samples]
    scores = []
    for num_tokens in written:
        goes_on = np.flatnonzero(lengths > num_tokens)
        if len(goes_on):
            requests = [data.requests[rows[at]] for at in goes_on]
            parts = [part_of(texts[at], num_tokens, lengths[at]) for at in goes_on]
            revised = predictor.revise_running(requests, parts, [num_tokens] * len(goes_on))
            given = predictor.predict(requests).given(num_tokens)
            truth = _Truth(lengths[goes_on], is_cut[goes_on], rows[goes_on], data.limit)
            scores.append(_scored(num_tokens, revised, given, truth, num_resamples))
    return scores


@dataclass(frozen=True, eq=False)
class _Truth:
    """Lengths of answers ("at least" where cut), and the prompt of each."""

    lengths: Lengths
    is_cut: Flags
    prompts: NDArray[np.intp]
    limit: int | None

    def errors(self, estimates: LengthEstimates) -> Lengths:
        """Absolute, in tokens; those of a length are those of what remains of it."""
        errors = self._limited(estimates).median - self.lengths
        return np.abs(np.where(self.is_cut, np.minimum(errors, 0), errors))

    def is_covered(self, estimates: LengthEstimates) -> Flags:
        limited = self._limited(estimates)
        is_above = self.lengths > limited.quantile(0.95)
        is_below = (self.lengths < limited.quantile(0.05)) & ~self.is_cut
        return np.asarray(~(is_above | is_below))

    def _limited(self, estimates: LengthEstimates) -> LengthEstimates:
        return estimates if self.limit is None else estimates.capped(self.limit)


def _scored(
    num_tokens: int, revised: LengthEstimates, given: LengthEstimates, truth: _Truth, num_resamples: int
) -> RemainingScore:
    errors, errors_given = truth.errors(revised), truth.errors(given)
    return RemainingScore(
        num_tokens,
        len(errors),
        float(errors.mean()),
        float(errors_given.mean()),
        _interval_of_mean(errors_given - errors, truth.prompts, num_resamples),
        float(truth.is_covered(revised).mean()),
    )


def _interval_of_mean(values: Lengths, prompts: NDArray[np.intp], num_resamples: int) -> tuple[float, float]:
    _, which = np.unique(prompts, return_inverse=True)
    sums, counts = np.bincount(which, values), np.bincount(which)
    draws = np.random.default_rng(0).integers(0, len(sums), (num_resamples, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
