"""Fitting a stack: a ridge regression on what the average of the bases leaves over, a penalty for each of three groups
of columns: what the bases say, structure, words. Chances are made what they are worth by folds left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import Ridge

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors.correction import levels, opened, scaled
from lengthwise.predictors.residuals import Doubles, ResidualTable
from lengthwise.predictors.stack.columns import Said, Scale, structure_columns
from lengthwise.predictors.stack.predictor import StackWeights
from lengthwise.predictors.survival import length_curve
from lengthwise.predictors.terms import prompt_text
from lengthwise.predictors.text.bag import Bag
from lengthwise.predictors.text.fit import fit_vocabulary
from lengthwise.types import Request

MIN_PROMPTS = 20
Rows = NDArray[np.intp]
Folds = Sequence[tuple[Rows, Rows]]


@dataclass(frozen=True)
class ShrinkConfig:
    """How far corrections may go. A group's weight is what its columns are expected to explain together, as a multiple
    of what is left unexplained; 0 leaves the group out.

    The defaults were chosen on nine AlpacaEval sets, for a text predictor of Vicuna's lengths, over 50 to 536 prompts:
    Kendall's tau 0.348 becomes 0.363 (50), 0.369 (100), 0.378 (200), 0.395 (536). Choosing weights anew for each set,
    by leaving one prompt out or by their likelihood, gives less: 0.354, 0.36, 0.37, 0.39.
    """

    base_weight: float = 0.03
    structure_weight: float = 0.03
    term_weight: float = 0.3
    max_terms: int = 20_000
    min_prompts: int = 2  # a term that stands in one prompt only tells nothing of others

    def __post_init__(self) -> None:
        if min(self.weights) < 0:
            raise ValueError(f"base_weight, structure_weight and term_weight are {self.weights}; none may be below 0.")
        if min(self.max_terms, self.min_prompts) < 1:
            raise ValueError("max_terms and min_prompts must be 1 or more.")

    @property
    def weights(self) -> tuple[float, float, float]:
        return self.base_weight, self.structure_weight, self.term_weight


@dataclass(frozen=True, eq=False)
class Answers:
    """m answers to n prompts: their lengths in tokens, which are "at least", and the prompt of each (m each)."""

    lengths: Doubles
    is_censored: NDArray[np.bool_]
    which: Rows


@dataclass(frozen=True, eq=False)
class _Columns:
    """Of n prompts: what bases say, structure, and words, each row of a group of length about 1."""

    base: Doubles
    structure: Doubles
    bags: csr_matrix

    def weighed(self, config: ShrinkConfig) -> csr_matrix:
        """All columns, so that one penalty of 1 serves them all."""
        dense = np.hstack([self.base, self.structure]) * self.scales(config)
        return hstack([dense, self.bags * np.sqrt(config.term_weight)], format="csr")

    def scales(self, config: ShrinkConfig) -> Doubles:
        """What `weighed` multiplies the columns of the first two groups by."""
        sizes = [self.base.shape[1], self.structure.shape[1]]
        return np.sqrt(np.repeat(np.array(config.weights[:2]) / sizes, sizes))


def fit_stack(
    estimates: Sequence[LengthEstimates],
    requests: Sequence[Request],
    answers: Answers,
    folds: Folds,
    config: ShrinkConfig,
) -> StackWeights:
    """`estimates` are those of each base for `requests`, by a base that has not seen them; `folds` are of requests.
    Raises PredictorError where too few prompts are left of which a base knows something."""
    said = Said.of(estimates)
    known = _known(said, answers)
    left_over = _left_over(said, answers)
    vocabulary, idf = _fit_vocabulary(requests, config)
    scale, columns = _columns(said, requests, Bag(vocabulary, idf), known)
    weighed, scales = columns.weighed(config), columns.scales(config)
    stated, true = _levels(said, _held_out(weighed, left_over, known, folds), answers)
    model = _ridge(weighed[known], left_over[known])
    return StackWeights(
        scale=scale,
        column_weights=_float32(model.coef_[: len(scales)] * scales),
        vocabulary=vocabulary,
        idf=idf,
        term_weights=_float32(model.coef_[len(scales) :] * np.sqrt(config.term_weight)),
        intercept=float(model.intercept_),
        stated=stated,
        true=true,
        marginal=length_curve(answers.lengths, answers.is_censored).reshape(1, len(GRID)),
    )


def _known(said: Said, answers: Answers) -> Rows:
    """Prompts of which a base knows something. Raises PredictorError where too few are left."""
    is_ended = said.is_known[answers.which] & ~answers.is_censored
    num = len(np.unique(answers.which[is_ended]))
    if num < MIN_PROMPTS:
        raise PredictorError(
            f"A stack needs answers to {MIN_PROMPTS} prompts or more that were not cut, and of which a base knows "
            f"something; there are {num}. Give more, or other bases."
        )
    return np.flatnonzero(said.is_known)


def _columns(said: Said, requests: Sequence[Request], bag: Bag, known: Rows) -> tuple[Scale, _Columns]:
    by_bases, structure = said.columns(), structure_columns(requests)
    both = np.hstack([by_bases, structure])
    scale = Scale.of(both[known])
    standard, num = scale.standardised(both), by_bases.shape[1]
    bags = bag.rows([prompt_text(request) for request in requests])
    return scale, _Columns(standard[:, :num], standard[:, num:], bags)


def _left_over(said: Said, answers: Answers) -> Doubles:
    """What the average says too little (n, natural log), mean over a prompt's answers. A cut answer stands for what is
    expected beyond its cut, by how far the others lie from the average."""
    num, which = len(said.is_known), answers.which
    predicted, log_lengths = said.average[which], np.log(answers.lengths)
    known = said.is_known[which]
    table = ResidualTable.fit(predicted[known], log_lengths[known], answers.is_censored[known], 1)
    beyond = predicted + table.expected_above(predicted, log_lengths - predicted)
    filled = np.where(answers.is_censored, np.maximum(beyond, log_lengths), log_lengths)
    counts = np.maximum(np.bincount(which, minlength=num), 1)
    return np.asarray(np.bincount(which, filled - predicted, minlength=num) / counts)


def _held_out(weighed: csr_matrix, left_over: Doubles, known: Rows, folds: Folds) -> Doubles:
    """Corrections of each prompt by regressions that have not seen it (n)."""
    found = np.zeros(len(left_over))
    for train, held_out in folds:
        rows = np.intersect1d(train, known)
        found[held_out] = _ridge(weighed[rows], left_over[rows]).predict(weighed[held_out])
    return found


def _levels(said: Said, corrections: Doubles, answers: Answers) -> tuple[Floats, Floats]:
    """What the chances of corrected curves are worth."""
    moved = scaled(said.estimates, corrections / np.log(2))
    is_in = said.is_known[answers.which]
    estimates = moved[answers.which[is_in]]
    return levels(opened(estimates), answers.lengths[is_in], answers.is_censored[is_in])


def _ridge(columns: csr_matrix, values: Doubles) -> Ridge:
    return Ridge(alpha=1.0, solver="sparse_cg", tol=1e-6).fit(columns, values)


def _fit_vocabulary(requests: Sequence[Request], config: ShrinkConfig) -> tuple[list[str], Floats]:
    """The terms and their weights; none where they are not wanted, or prompts share none."""
    if not config.term_weight:
        return [], np.empty(0, np.float32)
    try:
        return fit_vocabulary([prompt_text(request) for request in requests], config.max_terms, config.min_prompts)
    except PredictorError:
        return [], np.empty(0, np.float32)


def _float32(values: Doubles) -> Floats:
    return np.ascontiguousarray(values, np.float32)
