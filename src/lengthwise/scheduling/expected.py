"""What batches of sorted rows are expected to take: for every run of rows beside each other, at every cap.

A batch makes as many steps as its longest row. Let F(t) be the product of its rows' distributions, the chance that all
have ended by step t: then it makes step t + 1 with the chance 1 - F(t), and capped at c it makes the sum of these up to
c. What adds up over rows is kept as sums from the first row on, F as a sum of logarithms, so that the figures of any
run of rows are two differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lengthwise.costs import StepCost
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.rows import Doubles, Ints

Table = NDArray[np.float32]

# Caps that are tried, and points between which a distribution is taken as straight.
MAX_POINTS = 64
_LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)  # quantiles of all rows among which the points are chosen
_AT_ONCE = 4096  # lengths that estimates are asked for at once
_LEAST_CHANCE = 1e-30  # instead of 0, whose logarithm can't be taken back


@dataclass(frozen=True)
class Outlook:
    """Rows in the order in which they run (n), and what is known of how many more steps each takes.

    `points` (p): numbers of steps, from 0 to the most that a row may make. `survival` (n × p): the chance that a row
    makes more. `prompt_tokens` and `num_tokens` are there already (the answer so far is `num_tokens`), `room_tokens`
    more may come. `is_whole`: the row is not to be cut.
    """

    estimates: LengthEstimates
    prompt_tokens: Ints
    num_tokens: Ints
    room_tokens: Ints
    is_whole: NDArray[np.bool_]
    points: Ints
    survival: Doubles

    @classmethod
    def of(
        cls,
        estimates: LengthEstimates,
        prompt_tokens: Ints,
        num_tokens: Ints,
        room_tokens: Ints,
        is_whole: NDArray[np.bool_],
    ) -> Outlook:
        """`estimates` are given the tokens so far."""
        points = _points(estimates, num_tokens, room_tokens)
        survival = np.where(room_tokens[:, None] > points, _exceeds(estimates, num_tokens[:, None] + points), 0.0)
        return cls(estimates, prompt_tokens, num_tokens, room_tokens, is_whole, points, survival)

    def __len__(self) -> int:
        return len(self.num_tokens)

    @property
    def held_tokens(self) -> Ints:
        return self.prompt_tokens + self.num_tokens

    @property
    def mean_steps(self) -> Doubles:
        """Of each row."""
        found: Doubles = self.survival @ _weights(self.points)[0][:, -1]
        return found

    def later(self, rows: Ints, steps: Ints) -> Outlook:
        """Some of the rows (a row may stand there more than once), after so many more steps each."""
        num_tokens = self.num_tokens[rows] + steps
        estimates = self.estimates[rows].given(num_tokens)
        room = self.room_tokens[rows] - steps
        return Outlook.of(estimates, self.prompt_tokens[rows], num_tokens, room, self.is_whole[rows])


def _exceeds(estimates: LengthEstimates, num_tokens: Ints) -> Doubles:
    """The chance that each row's length is above each of its numbers of tokens (n × p), some thousands at a time."""
    num, num_points = num_tokens.shape
    width = max(1, _AT_ONCE // num)
    columns = [num_tokens[:, start : start + width] for start in range(0, num_points, width)]
    if width == 1:
        return np.stack([estimates.exceeds(one[:, 0]) for one in columns], axis=1).astype(np.float64)
    tiled = [np.repeat(np.arange(num), one.shape[1]) for one in columns]
    found = [estimates[rows].exceeds(one.ravel()) for rows, one in zip(tiled, columns, strict=True)]
    return np.concatenate([one.reshape(num, -1) for one in found], axis=1).astype(np.float64)


def _points(estimates: LengthEstimates, kept: Ints, room: Ints) -> Ints:
    """All numbers of steps where they are few; else as many between two of them for all rows together."""
    longest = int(room.max())
    if longest < MAX_POINTS:
        return np.arange(longest + 1)
    more = np.concatenate([np.minimum(estimates.quantile(level) - kept, room) for level in _LEVELS])
    inner = np.quantile(np.maximum(np.ceil(more), 1), np.linspace(0, 1, MAX_POINTS - 2), method="nearest")
    return np.unique(np.concatenate([[0], inner.astype(np.int64), [longest]]))


def _weights(points: Ints) -> tuple[Doubles, Doubles]:
    """What chances at the points (m × p) that a step is made are multiplied by to give the expected steps up to each
    point (p × p), and the same with each step times its number. Between points chances are taken as straight."""
    width = np.diff(points).astype(np.float64)
    cells = np.zeros((len(points), len(points)))  # point × cell, whose right end is the column's point
    at = np.arange(len(width))
    cells[at, at + 1] = (width + 1) / 2
    cells[at + 1, at + 1] = (width - 1) / 2
    middle = np.concatenate([[0], points[:-1] + (width - 1) / 2])
    return cells.cumsum(axis=1), (cells * middle).cumsum(axis=1)


class Tables:
    """Expected seconds of every batch of rows beside each other. `is_padded`: rows that have ended are computed on
    until the batch ends, and every prompt is as long as the longest (fixed shapes); else a row that has ended leaves.
    """

    def __init__(self, outlook: Outlook, cost: StepCost, is_padded: bool) -> None:
        self._outlook, self._cost, self._is_padded = outlook, cost, is_padded
        self._weights = _weights(outlook.points)
        self._weights_32 = tuple(weights.astype(np.float32) for weights in self._weights)
        self._log_ended = _from_first(np.log(np.maximum(1 - outlook.survival, _LEAST_CHANCE)))
        self._steps = outlook.survival @ self._weights[0]
        self._own_s = self._seconds_by_row()
        held, points = outlook.held_tokens[:, None], outlook.points
        self._reserved = _from_first(held + np.minimum(outlook.room_tokens[:, None], points))
        is_cut_short = outlook.is_whole[:, None] & (outlook.room_tokens[:, None] > points)
        self._num_cut_short = _from_first(is_cut_short) if is_cut_short.any() else None
        self._needed_whole = self._reserved[:, -1]
        self._added_s = self._own_s

    def _seconds_by_row(self) -> Doubles:
        """n + 1 × p: what each row adds to its batch by itself, summed: reading it again where it is cut included."""
        outlook, cost = self._outlook, self._cost
        held = outlook.held_tokens[:, None]
        seconds = cost.read_token_s * outlook.survival * (held + outlook.points)
        if not self._is_padded:
            tokens = outlook.survival @ self._weights[1]
            seconds += cost.step_row_s * self._steps + cost.step_context_s * (held * self._steps + tokens)
            seconds += cost.read_token_s * held
        return _from_first(seconds)

    def set_prices(self, prices_s: Doubles) -> None:
        """What a token of each row (n) takes when it goes on after a cut, without reading it again."""
        self._added_s = self._own_s + _from_first(prices_s[:, None] * (self._steps[:, -1:] - self._steps))

    def num_whole(self, start: int, max_rows: int, kv_tokens: float) -> int:
        """How many rows from there fit beside each other with all that they may have; at least one."""
        reserved = self._needed_whole[start + 1 : start + max_rows + 1] - self._needed_whole[start]
        return max(1, int(np.searchsorted(reserved, kv_tokens, side="right")))

    def seconds(self, starts: slice, size: int) -> Table:
        """For the batch of `size` rows from each of `starts` (m, a range): seconds at each cap (m × p), those that the
        rows that it cuts take later included."""
        after = slice(starts.start + size, starts.stop + size)
        log_ended = (self._log_ended[after] - self._log_ended[starts]).astype(np.float32)
        goes_on = -np.expm1(log_ended)
        cost = self._cost
        steps = goes_on @ self._weights_32[0]
        seconds: Table = (self._added_s[after] - self._added_s[starts]).astype(np.float32)
        seconds += np.float32(cost.read_fixed_s)
        if self._is_padded:
            held = self._longest(self._outlook.held_tokens, starts, size)
            context = cost.step_context_s * (held * steps + goes_on @ self._weights_32[1])
            seconds += size * (cost.read_token_s * held + cost.step_row_s * steps + context)
        seconds += np.float32(cost.step_fixed_s) * steps
        return seconds

    def best(self, starts: slice, size: int, kv_tokens: float) -> tuple[Doubles, Ints]:
        """For the batch of `size` rows from each of `starts` (m): the seconds at its best cap, and which point that is.
        Infinite where no cap fits into `kv_tokens`; a row alone always does."""
        seconds = self.seconds(starts, size)
        seconds[:, 0] = np.inf  # a batch makes a step
        after = slice(starts.start + size, starts.stop + size)
        if self._num_cut_short is not None:
            seconds[self._num_cut_short[after] > self._num_cut_short[starts]] = np.inf
        if size > 1 and kv_tokens < np.inf:
            seconds[self._needed(starts, size) > kv_tokens] = np.inf
        last = seconds.shape[1] - 1
        caps = last - seconds[:, ::-1].argmin(axis=1)  # of equal ones the greatest: it cuts least
        return seconds[np.arange(len(caps)), caps].astype(np.float64), caps

    def _needed(self, starts: slice, size: int) -> Doubles:
        """m × p: key/value tokens that are reserved."""
        if not self._is_padded:
            found: Doubles = self._reserved[starts.start + size : starts.stop + size] - self._reserved[starts]
            return found
        held = self._longest(self._outlook.held_tokens, starts, size)
        room = self._longest(self._outlook.room_tokens, starts, size)
        return size * (held + np.minimum(room, self._outlook.points)).astype(np.float64)

    def _longest(self, values: Ints, starts: slice, size: int) -> Table:
        """m × 1: the greatest of `size` values from each start."""
        windows = np.lib.stride_tricks.sliding_window_view(values, size)[starts]
        found: Table = windows.max(axis=1).astype(np.float32)[:, None]
        return found


def _from_first(values: Doubles | Ints | NDArray[np.bool_]) -> Doubles:
    """Sums over the rows before each: n + 1 × p."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums
