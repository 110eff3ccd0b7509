"""Estimates of a whole log, asked for a request at a time: what is asked of one is worked out for all at once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.scheduling.rows import Doubles
from lengthwise.scheduling.urgency import Urgency


class RememberedEstimates(LengthEstimates):
    """The same estimates. Quantiles and means are worked out once for all rows, and slices of it share them: asking
    one row at a time of a curve of 69 points would take most of a simulation's time."""

    @classmethod
    def of(cls, estimates: LengthEstimates) -> Self:
        return cls(estimates.survival, estimates.at_least, estimates.limit)

    def __getitem__(self, rows: Any) -> Any:
        return _Slice(self, rows) if isinstance(rows, slice) else LengthEstimates.__getitem__(self._plain, rows)

    def quantile(self, q: float) -> Floats:
        found = self._quantiles.get(q)
        if found is None:
            found = self._quantiles[q] = super().quantile(q)
        return found

    def mean(self) -> Floats:
        return self._mean

    @cached_property
    def _mean(self) -> Floats:
        return super().mean()

    def urgency(self, urgency: Urgency) -> Doubles:
        """Of requests of which nothing is written."""
        found = self._urgencies.get(urgency)
        if found is None:
            found = self._urgencies[urgency] = urgency(self._plain, np.zeros(len(self)))
        return found

    @cached_property
    def _quantiles(self) -> dict[float, Floats]:
        return {}

    @cached_property
    def _urgencies(self) -> dict[Urgency, Doubles]:
        return {}

    @cached_property
    def _plain(self) -> LengthEstimates:
        return LengthEstimates(self.survival, self.at_least, self.limit)


class _Slice(LengthEstimates):
    """Neighbouring rows of remembered estimates; the columns of what is not asked for are never made."""

    def __init__(self, whole: RememberedEstimates, rows: slice) -> None:
        vars(self).update(whole=whole, rows=rows)

    if TYPE_CHECKING:
        whole: RememberedEstimates
        rows: slice

    @property
    def survival(self) -> Floats:
        return self.whole.survival[self.rows]

    @property
    def at_least(self) -> Floats:
        return self.whole.at_least[self.rows]

    @property
    def limit(self) -> Floats:
        return self.whole.limit[self.rows]

    def __len__(self) -> int:
        return len(range(*self.rows.indices(len(self.whole))))

    def quantile(self, q: float) -> Floats:
        return self.whole.quantile(q)[self.rows]

    def mean(self) -> Floats:
        return self.whole.mean()[self.rows]

    def urgency(self, urgency: Urgency) -> Doubles:
        """Of requests of which nothing is written."""
        return self.whole.urgency(urgency)[self.rows]

    def capped(self, limit: Any) -> Any:
        return self._plain.capped(limit)

    def given(self, num_tokens: Any) -> Any:
        return self._plain.given(num_tokens)

    def __getitem__(self, rows: Any) -> Any:
        return self._plain[rows]

    @property
    def _plain(self) -> LengthEstimates:
        return LengthEstimates(self.survival, self.at_least, self.limit)


def remembered(urgency: Urgency) -> Urgency:
    """The same urgency, worked out once for all requests of a log, as the simulator hands them over: nothing of them is
    written then."""

    def found(estimates: LengthEstimates, written: Doubles) -> Doubles:
        return estimates.urgency(urgency) if isinstance(estimates, _Slice) else urgency(estimates, written)

    return found
