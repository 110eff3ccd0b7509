"""Length estimates: survival functions of the natural length of one answer, in columns.

S(n) = P(length > n) on a log-spaced grid from 1 to 131,072 tokens, four points an octave, linear in log n
between them; S is 1 below one token. What is left at the grid's end is the tail: longer than 131,072.

What is known beside the curve is stored beside it, so that nothing is smeared over grid cells: `at_least`
(tokens that are already there) and `limit` (no answer is longer). A length known exactly is a curve that never
falls, limited to that length; "nothing is known" is a curve that never falls, without a limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

POINTS_PER_OCTAVE = 4
MAX_TOKENS = 131_072
GRID: Floats = (2.0 ** (np.arange(17 * POINTS_PER_OCTAVE + 1) / POINTS_PER_OCTAVE)).astype(np.float32)
_LOG_GRID = np.log(GRID)

# Past this the curve says nothing any more (it was learned from a finite sample), and an answer that is already
# longer goes on as P(length > m | length > n) = n / m: half of those at n tokens reach 2n. Any scale-free rule
# would do; it needs mass, and to be coherent when more tokens have come.
MIN_SURVIVAL = 1e-3


@dataclass(frozen=True)
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
        curves = np.atleast_2d(np.asarray(survival, dtype=np.float32))
        if curves.shape[1] != len(GRID):
            raise ValueError(f"survival has {curves.shape[1]} grid points; the grid has {len(GRID)}.")
        is_bad = ~(np.isfinite(curves).all(1) & (curves >= 0).all(1) & (curves <= 1).all(1))
        is_bad |= (np.diff(curves, axis=1) > 1e-5).any(1)
        if is_bad.any():
            curves = np.where(is_bad[:, None], np.float32(1), curves)
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
    def concatenate(cls, parts: list[Self]) -> Self:
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("survival", "at_least", "limit")))

    # -- narrowing ---------------------------------------------------------------------------------------------

    def capped(self, limit: ArrayLike) -> Self:
        """No answer is longer than `limit` (n, or one for all): the rest of the mass stands on it. A limit that an
        answer has already passed was wrong and gives way."""
        new = np.broadcast_to(np.asarray(limit, dtype=np.float32), self.limit.shape)
        was_wrong = self.limit <= self.at_least
        return type(self)(self.survival, self.at_least, np.where(was_wrong, new, np.minimum(self.limit, new)))

    def given(self, num_tokens: ArrayLike) -> Self:
        """The answers already have `num_tokens` tokens (n, or one for all) and go on. `given(a).given(b)` is
        `given(max(a, b))`. There is always mass above, however wrong the curve was."""
        return type(self)(self.survival, np.maximum(self.at_least, np.asarray(num_tokens, np.float32)), self.limit)

    def __getitem__(self, rows: int | slice | NDArray[np.intp] | list[int]) -> Self:
        """A view of one row or several, as estimates again."""
        picked = slice(rows, rows + 1) if isinstance(rows, int) and rows >= 0 else rows
        return type(self)(self.survival[picked], self.at_least[picked], self.limit[picked])

    def __len__(self) -> int:
        return len(self.limit)

    # -- asking ------------------------------------------------------------------------------------------------

    @property
    def median(self) -> Floats:
        return self.quantile(0.5)

    def quantile(self, q: float) -> Floats:
        """Tokens n with P(length ≤ n) = q, float32 (n): above `at_least`, at most `limit`, inf in an open tail."""
        if not 0 < q < 1:
            raise ValueError(f"A quantile lies between 0 and 1; {q} does not.")
        found = np.where(self._is_outlived, self._outlived_quantile(q), self._curve_quantile((1 - q) * self._mass))
        return np.minimum(np.maximum(found, self.at_least), self._hard_limit).astype(np.float32)

    def exceeds(self, num_tokens: ArrayLike) -> Floats:
        """P(length > num_tokens), float32 (n); `num_tokens` is n or one for all."""
        asked = np.broadcast_to(np.asarray(num_tokens, np.float32), self.limit.shape)
        beyond = np.maximum(asked, self.at_least)
        outlived = np.maximum(self.at_least, 1) / np.maximum(beyond, 1)
        chance = np.where(self._is_outlived, outlived, self._survival_at(beyond) / np.maximum(self._mass, MIN_SURVIVAL))
        return np.where(asked >= self._hard_limit, 0, np.minimum(chance, 1)).astype(np.float32)

    def mean(self) -> Floats:
        """Expected tokens, float32 (n); the tail beyond the grid counts as its end (a lower bound)."""
        low = np.minimum(self.at_least, MAX_TOKENS)
        high = np.minimum(self._hard_limit, MAX_TOKENS)
        known = low + _area_under(self.survival, low, high) / np.maximum(self._mass, MIN_SURVIVAL)
        start = np.maximum(low, 1)
        outlived = low + start * np.log(np.maximum(high, start) / start)
        return np.clip(np.where(self._is_outlived, outlived, known), low, high).astype(np.float32)

    # -- how ---------------------------------------------------------------------------------------------------

    @cached_property
    def _mass(self) -> Floats:
        """S(at_least): what the curve still holds above the tokens that are there."""
        return self._survival_at(self.at_least)

    @property
    def _is_outlived(self) -> NDArray[np.bool_]:
        return self._mass < MIN_SURVIVAL

    @property
    def _hard_limit(self) -> Floats:
        """The limit, where it is not already refuted."""
        return np.where(self.limit > self.at_least, self.limit, np.float32(np.inf))

    def _survival_at(self, num_tokens: Floats) -> Floats:
        """S(n) by the curve, (n) → (n)."""
        log_n = np.log(np.clip(num_tokens, 1, MAX_TOKENS))
        position = log_n / _LOG_GRID[1]
        left = np.minimum(position.astype(np.intp), len(GRID) - 2)
        rows = np.arange(len(self))
        before, after = self.survival[rows, left], self.survival[rows, left + 1]
        found = before + (after - before) * (position - left).astype(np.float32)
        return np.where(num_tokens < 1, np.float32(1), found)

    def _curve_quantile(self, target: Floats) -> Floats:
        """The n at which the curve falls to `target` (n)."""
        falls = self.survival <= target[:, None]
        right = falls.argmax(axis=1)
        rows = np.arange(len(self))
        left = np.maximum(right - 1, 0)
        before, after = self.survival[rows, left], self.survival[rows, right]
        drop = before - after
        share = np.divide(before - target, drop, out=np.zeros_like(target), where=drop > 0)
        found = np.exp(_LOG_GRID[left] + np.clip(share, 0, 1) * (_LOG_GRID[right] - _LOG_GRID[left]))
        return np.where(falls[rows, right], found, np.float32(np.inf))

    def _outlived_quantile(self, q: float) -> Floats:
        return np.maximum(self.at_least, 1) / np.float32(1 - q)


def _area_under(survival: Floats, low: Floats, high: Floats) -> Floats:
    """∫ S(n) dn from low to high, (n): exact for S linear in log n on each cell, 1 below one token."""
    edges = np.clip(GRID[None, :], np.maximum(low, 1)[:, None], np.maximum(high, 1)[:, None])
    position = np.log(edges) / _LOG_GRID[1]
    left = np.minimum(position.astype(np.intp), len(GRID) - 2)
    before = np.take_along_axis(survival, left, 1)
    after = np.take_along_axis(survival, left + 1, 1)
    values = before + (after - before) * (position - left)
    width, log_ratio = np.diff(edges, axis=1), np.diff(np.log(edges), axis=1)
    mean_slope = np.divide(width, log_ratio, out=np.zeros_like(width), where=log_ratio > 0)
    cells = values[:, 1:] * edges[:, 1:] - values[:, :-1] * edges[:, :-1] - np.diff(values, axis=1) * mean_slope
    below_one = np.clip(np.minimum(high, 1) - low, 0, 1)
    return below_one + cells.sum(axis=1)


def _zeros(num: int) -> Floats:
    return np.zeros(num, np.float32)


def _infinite(num: int) -> Floats:
    return np.full(num, np.inf, np.float32)
