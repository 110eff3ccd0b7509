"""Whether a predictor tells more of lengths than their distribution does: judged on answers that it did not learn from.

The score is the integrated Brier score of the survival curve, over log length, up to where an answer was seen (Graf et
al. 1999; Avati et al. 2019 for the limit): proper, bounded, and fit for censored lengths, which kinds of error are not.
In terms of quantiles it is the mean pinball loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors.cold_start.cohort import Examples
from lengthwise.predictors.residuals import Doubles

MAX_PAIRED = 1_000  # examples of which all pairs are compared: 8 MB


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a predictor did on `num_answers` held-out answers. `gain` is what it takes off the constant's score, in
    standard errors. `tau` counts pairs of which it is known which is longer. Errors are medians' mean absolute errors
    in tokens, of answers that had ended."""

    num_answers: int
    gain: float
    tau: float
    mae: float
    mae_constant: float

    def __str__(self) -> str:
        return (
            f"on {self.num_answers} others tau {self.tau:.2f}, error {self.mae:.0f} tokens where a constant has "
            f"{self.mae_constant:.0f}"
        )

    def to_json(self) -> dict[str, float]:
        return {
            "num_held_out": self.num_answers,
            "tau_held_out": round(self.tau, 3),
            "mae_held_out": round(self.mae, 1),
            "mae_constant": round(self.mae_constant, 1),
        }


def judge(estimates: LengthEstimates, constant: LengthEstimates, held_out: Examples) -> Verdict:
    """Compare estimates of `held_out` with those of a constant (n rows each), on n ≥ 2 answers."""
    gains = scores(constant.survival, held_out) - scores(estimates.survival, held_out)
    spread = float(gains.std(ddof=1)) / np.sqrt(len(gains))
    ended = ~held_out.is_censored
    lengths = held_out.lengths[ended]
    return Verdict(
        num_answers=len(held_out),
        gain=float(gains.mean()) / spread if spread > 0 else 0.0,
        tau=concordance(estimates.median.astype(np.float64), held_out),
        mae=_error(estimates.median[ended], lengths),
        mae_constant=_error(constant.median[ended], lengths),
    )


def scores(survival: Floats, examples: Examples) -> Doubles:
    """The score of each example (n), from its curve (n × len(GRID)); less is better."""
    lengths = examples.lengths[:, None]
    is_known = ~examples.is_censored[:, None] | (lengths > GRID)
    return np.asarray(np.sum((survival - (lengths > GRID)) ** 2 * is_known, axis=1), np.float64)


def concordance(predicted: Doubles, examples: Examples) -> float:
    """Pairs in the predicted order less those in the other, over all whose true order is known: Kendall's tau where
    nothing is censored and nothing ties. 0 where there is no such pair."""
    some = slice(None, MAX_PAIRED)
    predicted, lengths, ended = predicted[some], examples.lengths[some], ~examples.is_censored[some]
    is_shorter = ended[:, None] & (lengths[:, None] < lengths[None, :])
    order = np.sign(predicted[None, :] - predicted[:, None])
    num_pairs = int(is_shorter.sum())
    return float(order[is_shorter].sum()) / num_pairs if num_pairs else 0.0


def _error(predicted: Floats, lengths: Doubles) -> float:
    return float(np.mean(np.abs(predicted - lengths))) if len(lengths) else 0.0
