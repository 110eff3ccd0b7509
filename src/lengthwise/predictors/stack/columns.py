"""What a stack sees of a prompt: what its bases say, and the prompt's structure, as columns of like size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.structure import NAMES, structure
from lengthwise.types import Request

MAX_DEVIATION = 3.0  # standard deviations: further out a line through what was learned from says nothing


def num_columns(num_bases: int) -> int:
    """The average's log median and spread, how far each base lies from it, and the structure."""
    return 2 + num_bases + len(NAMES)


@dataclass(frozen=True)
class Said:
    """What bases say of n prompts: the average of their curves, where any knows something (`is_known`, n), and the log
    median of each (n × bases, NaN where it knows nothing)."""

    estimates: LengthEstimates
    is_known: NDArray[np.bool_]
    log_medians: Doubles

    @classmethod
    def of(cls, estimates: Sequence[LengthEstimates]) -> Self:
        """From at least one base. A length that is known exactly (a limit) counts as nothing known: it has no curve."""
        medians = np.stack([one.median for one in estimates], axis=1).astype(np.float64)
        has_limit = np.stack([np.isfinite(one.limit) for one in estimates], axis=1)
        knows = np.isfinite(medians) & ~has_limit
        weights = (knows / np.maximum(knows.sum(axis=1, keepdims=True), 1)).astype(np.float32)
        average = sum(one.survival * weights[:, [base]] for base, one in enumerate(estimates))
        is_known = knows.any(axis=1)
        curves = np.where(is_known[:, None], average, np.float32(1))
        return cls(LengthEstimates.from_survival(curves), is_known, np.log(np.where(knows, medians, np.nan)))

    @property
    def average(self) -> Doubles:
        """Log median of the averaged curve (n); 0 where nothing is known."""
        return np.where(self.is_known, np.log(self._median), 0.0)

    def columns(self) -> Doubles:
        """n × (2 + bases): 0 stands for what is not known."""
        spread = np.log(self._quantile(0.9) / self._quantile(0.1))
        apart = np.nan_to_num(self.log_medians - self.average[:, None])
        return np.column_stack([self.average, np.where(self.is_known, spread, 0.0), apart])

    @property
    def _median(self) -> Doubles:
        return self._quantile(0.5)

    def _quantile(self, q: float) -> Doubles:
        found = self.estimates.quantile(q).astype(np.float64)
        return np.where(np.isfinite(found), found, 1.0)


@dataclass(frozen=True)
class Scale:
    """Centre and spread of each column, where it was learned from."""

    centres: Floats
    spreads: Floats

    @classmethod
    def of(cls, columns: Doubles) -> Self:
        """A column that is the same everywhere has the spread 1, and becomes 0."""
        spreads = columns.std(axis=0)
        return cls(columns.mean(axis=0).astype(np.float32), np.where(spreads > 1e-6, spreads, 1).astype(np.float32))

    def standardised(self, columns: Doubles) -> Doubles:
        deviations = (columns - self.centres) / self.spreads
        return np.clip(deviations, -MAX_DEVIATION, MAX_DEVIATION)


def structure_columns(requests: Sequence[Request]) -> Doubles:
    """n × structure: counts by their logs, as a prompt of 1,000 words is not ten times what one of 100 is."""
    values = structure(requests).astype(np.float64)
    return np.sign(values) * np.log1p(np.abs(values))
