"""Length estimates: survival functions of the natural length of one answer, in columns.

S(n) = P(length > n) on a log-spaced grid from 1 to 131,072 tokens, four points an octave, linear in log n
between them; S is 1 below one token. What is left at the grid's end is the tail: longer than 131,072.

What is known beside the curve is stored beside it, so that nothing is smeared over grid cells: `at_least`
(tokens that are already there) and `limit` (no answer is longer). A length known exactly is a curve that never
falls, limited to that length; "nothing is known" is a curve that never falls, without a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

POINTS_PER_OCTAVE = 4
MAX_TOKENS = 131_072
GRID: Floats = (2.0 ** (np.arange(17 * POINTS_PER_OCTAVE + 1) / POINTS_PER_OCTAVE)).astype(np.float32)

# Below this the curve says nothing any more (it was learned from a finite sample) and is not read: from the n at
# which it falls to MIN_SURVIVAL on, S(m) = MIN_SURVIVAL · n / m, so half of the answers that reach m reach 2m. Any
# scale-free rule would do. It needs mass everywhere, and to be one function with the curve, so that
# P(L > m | L > a) = P(L > b | L > a) · P(L > m | L > b) whatever has come. Price: 0.001 · n · ln(131,072 / n) tokens
# on an unlimited mean (2.8 for a curve that ends at 512).
MIN_SURVIVAL = 1e-3


@dataclass(frozen=True, eq=False)
class LengthEstimates:
    """Estimates of n requests. Row i is a survival function `survival[i]` (float32, n × len(GRID), from 1 to 0,
    never rising), known to be longer than `at_least[i]` and at most `limit[i]` tokens (float32, n; inf: no limit).

    All methods are vectorised over rows and return new objects that share the curves; nothing is changed in place.
    """

    survival: Floats
    at_least: Floats
    limit: Floats

    # -- making ------------------------------------------------------------------------------------------------

    @classmethod
    def from_survival(cls, survival: ArrayLike) -> Self:
        """Curves as they come, n × len(GRID). Rows that are no survival function (NaN, negative, above 1, rising)
        become "nothing is known": a wrong estimate costs time, never correctness."""
        curves = np.atleast_2d(np.array(survival, dtype=np.float32))
        if curves.shape[1] != len(GRID):
            raise ValueError(f"survival has {curves.shape[1]} grid points; the grid has {len(GRID)}.")
        curves[~np.all((curves >= 0) & (curves <= 1), axis=1)] = 1
        curves[np.any(np.diff(curves, axis=1) > 1e-5, axis=1)] = 1
        np.minimum.accumulate(curves, axis=1, out=curves)  # rises of up to 1e-5 are rounding
        return cls(curves, _zeros(len(curves)), _infinite(len(curves)))

    @classmethod
    def unknown(cls, num: int) -> Self:
        """Nothing is known of `num` answers: every quantile is the limit, so order is arrival and caps cut nothing."""
        return cls(np.broadcast_to(np.float32(1), (num, len(GRID))), _zeros(num), _infinite(num))

    @classmethod
    def certain(cls, num_tokens: ArrayLike) -> Self:
        """Lengths known exactly; a NaN or a value below 1 is "nothing is known"."""
        lengths = np.asarray(num_tokens, dtype=np.float32).reshape(-1)
        known = cls.unknown(len(lengths))
        return cls(known.survival, known.at_least, np.where(lengths >= 1, lengths, np.float32(np.inf)))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All rows of all parts, in order; no parts make no rows."""
        found = [cls.unknown(0), *parts]
        return cls(*(np.concatenate([getattr(p, name) for p in found]) for name in ("survival", "at_least", "limit")))

    # -- narrowing ---------------------------------------------------------------------------------------------

    def capped(self, limit: ArrayLike) -> Self:
        """No answer is longer than `limit` (n, or one for all): the rest of the mass stands on it. A limit that an
        answer has already passed was wrong and gives way."""
        new = np.broadcast_to(np.asarray(limit, dtype=np.float32), self.limit.shape)
        was_wrong = self.limit <= self.at_least
        return type(self)(self.survival, self.at_least, np.where(was_wrong, new, np.minimum(self.limit, new)))

    def given(self, num_tokens: ArrayLike) -> Self:
        """The answers already have `num_tokens` tokens (n, or one for all) and go on. `given(a).given(b)` is
        `given(max(a, b))`. There is always mass above, however wrong the curve was. A limit that is passed here is
        refuted, whoever set it: cap again afterwards where a hard limit holds."""
        new = np.broadcast_to(np.asarray(num_tokens, dtype=np.float32), self.limit.shape)
        return type(self)(self.survival, np.maximum(self.at_least, new), self.limit)

    def __getitem__(self, rows: int | np.integer | slice | NDArray[np.intp] | NDArray[np.bool_] | list[int]) -> Self:
        """A view of one row or several, as estimates again. Raises IndexError past the last row."""
        if isinstance(rows, (int, np.integer)):
            row = range(len(self))[rows]
            return self[row : row + 1]
        return type(self)(self.survival[rows], self.at_least[rows], self.limit[rows])

    def __len__(self) -> int:
        return len(self.limit)

    # -- asking ------------------------------------------------------------------------------------------------

    @property
    def median(self) -> Floats:
        return self.quantile(0.5)

    def quantile(self, q: float) -> Floats:
        """Tokens n with P(length ≤ n) = q, float32 (n): from `at_least` to `limit`, inf in an open tail. A whole
        number of tokens above `at_least` is its ceiling, but at least `at_least + 1`."""
        return self.quantiles(np.full(len(self), q))

    def quantiles(self, q: NDArray[np.float64]) -> Floats:
        """The same with a q for each row (n)."""
        if not np.all((q > 0) & (q < 1)):
            raise ValueError(f"A quantile lies between 0 and 1; {q} does not.")
        target = (1 - q).astype(np.float32) * self._mass
        in_tail = self._tail_start * (MIN_SURVIVAL / target)
        found = np.where(target > MIN_SURVIVAL, self._curve_quantile(target), in_tail)
        return np.minimum(np.maximum(found, self.at_least), self._hard_limit).astype(np.float32)

    def exceeds(self, num_tokens: ArrayLike) -> Floats:
        """P(length > num_tokens), float32 (n); `num_tokens` is n or one for all."""
        asked = np.broadcast_to(np.asarray(num_tokens, np.float32), self.limit.shape)
        chance = self._survival_at(np.maximum(asked, self.at_least)) / self._mass
        return np.where(asked >= self._hard_limit, 0, np.minimum(chance, 1)).astype(np.float32)

    def mean(self) -> Floats:
        """Expected tokens, float32 (n); what lies beyond the grid counts as its end (a lower bound)."""
        low = np.minimum(self.at_least, MAX_TOKENS)
        high = np.minimum(self._hard_limit, MAX_TOKENS)
        in_curve = self._area_to(np.minimum(high, self._tail_start)) - self._area_to(np.minimum(low, self._tail_start))
        tail_from = np.minimum(np.maximum(low, self._tail_start), high)
        in_tail = MIN_SURVIVAL * np.minimum(self._tail_start, high) * np.log(high / tail_from)
        found = np.clip(low + (in_curve + in_tail) / self._mass, low, high)
        return np.maximum(found, self.at_least).astype(np.float32)

    # -- how ---------------------------------------------------------------------------------------------------

    @cached_property
    def _mass(self) -> Floats:
        """S(at_least): what is left above the tokens that are there; never 0."""
        return self._survival_at(self.at_least)

    @cached_property
    def _tail_start(self) -> Floats:
        """The n at which the curve falls to MIN_SURVIVAL (n), inf where it never does."""
        return self._curve_quantile(np.full(len(self), MIN_SURVIVAL, np.float32))

    @property
    def _hard_limit(self) -> Floats:
        """The limit, where it is not already refuted."""
        return np.where(self.limit > self.at_least, self.limit, np.float32(np.inf))

    def _survival_at(self, num_tokens: Floats) -> Floats:
        """S(n) by the curve and its tail, (n) → (n)."""
        start = np.minimum(self._tail_start, np.finfo(np.float32).max)
        in_tail = MIN_SURVIVAL * (start / np.maximum(num_tokens, 1))
        found = np.where(num_tokens < start, self._curve_at(num_tokens), in_tail)
        return np.where(num_tokens < 1, 1, found).astype(np.float32)

    def _curve_at(self, num_tokens: Floats) -> Floats:
        """The curve at n ≥ 1, (n) → (n)."""
        left, share = _cell(num_tokens)
        rows = np.arange(len(self))
        before, after = self.survival[rows, left], self.survival[rows, left + 1]
        found: Floats = before + (after - before) * share
        return found

    def _curve_quantile(self, target: Floats) -> Floats:
        """The n at which the curve falls to `target` (n)."""
        falls = self.survival <= target[:, None]
        right = falls.argmax(axis=1)
        rows = np.arange(len(self))
        left = np.maximum(right - 1, 0)
        before, after = self.survival[rows, left], self.survival[rows, right]
        drop = before - after
        share = np.divide(before - target, drop, out=np.zeros_like(target), where=drop > 0)
        found: Floats = np.exp2((left + np.clip(share, 0, 1) * (right - left)) / POINTS_PER_OCTAVE)
        return np.where(falls[rows, right], found, np.float32(np.inf))

    def _area_to(self, num_tokens: Floats) -> Floats:
        """∫ S dn from 0 to n by the curve, (n) → (n): exact for S linear in log n in each cell, 1 below one token."""
        n = np.maximum(num_tokens, 1)
        left, _ = _cell(n)
        start = GRID[left]
        before, here = self.survival[np.arange(len(self)), left], self._curve_at(n)
        last = here * n - before * start - (here - before) * _mean_slope(start, n)
        area: Floats = np.minimum(num_tokens, 1) + np.einsum("ij,ij->i", self.survival, _AREA_WEIGHTS[left]) + last
        return area


def _cell(num_tokens: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The grid cell that holds n, as the index of its left end, and where in it n lies (0 to 1, in log n)."""
    position = np.log2(np.clip(num_tokens, 1, MAX_TOKENS)) * POINTS_PER_OCTAVE
    left = np.minimum(position.astype(np.intp), len(GRID) - 2)
    return left, (position - left).astype(np.float32)


def _mean_slope(start: Floats, end: Floats) -> Floats:
    """(end - start) / ln(end / start): the logarithmic mean, `start` where both are equal."""
    log_ratio = np.log(end / start)
    mean: Floats = np.divide(end - start, log_ratio, out=start.copy(), where=log_ratio > 0)
    return mean


def _area_weights() -> Floats:
    """Row k: the weights with which a curve's values give its area from 1 token to GRID[k]."""
    slope = _mean_slope(GRID[:-1], GRID[1:])
    cells = np.zeros((len(GRID) - 1, len(GRID)), np.float32)
    index = np.arange(len(GRID) - 1)
    cells[index, index] = slope - GRID[:-1]
    cells[index, index + 1] = GRID[1:] - slope
    return np.vstack([np.zeros_like(cells[:1]), cells.cumsum(axis=0)])


_AREA_WEIGHTS = _area_weights()


def _zeros(num: int) -> Floats:
    return np.zeros(num, np.float32)


def _infinite(num: int) -> Floats:
    return np.full(num, np.inf, np.float32)
