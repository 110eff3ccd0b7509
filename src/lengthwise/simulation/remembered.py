"""Estimates of a whole log, asked for a request at a time: what is asked of one is worked out for all at once."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

from lengthwise.estimates import Floats, LengthEstimates


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

    @cached_property
    def _quantiles(self) -> dict[float, Floats]:
        return {}

    @cached_property
    def _plain(self) -> LengthEstimates:
        return LengthEstimates(self.survival, self.at_least, self.limit)


class _Slice(LengthEstimates):
    """Neighbouring rows of remembered estimates; the columns of what is not asked for are never made."""

    def __init__(self, whole: RememberedEstimates, rows: slice) -> None:
        vars(self).update(whole=whole, rows=rows)

    def __getattr__(self, name: str) -> Any:
        if name in ("survival", "at_least", "limit"):
            found = vars(self)[name] = getattr(vars(self)["whole"], name)[vars(self)["rows"]]
            return found
        raise AttributeError(name)

    def __len__(self) -> int:
        start, stop, step = vars(self)["rows"].indices(len(vars(self)["whole"]))
        return len(range(start, stop, step))

    def quantile(self, q: float) -> Floats:
        found: Floats = vars(self)["whole"].quantile(q)[vars(self)["rows"]]
        return found

    def mean(self) -> Floats:
        found: Floats = vars(self)["whole"].mean()[vars(self)["rows"]]
        return found

    def capped(self, limit: Any) -> Any:
        return self._plain.capped(limit)

    def given(self, num_tokens: Any) -> Any:
        return self._plain.given(num_tokens)

    def __getitem__(self, rows: Any) -> Any:
        return self._plain[rows]

    @property
    def _plain(self) -> LengthEstimates:
        return LengthEstimates(self.survival, self.at_least, self.limit)
