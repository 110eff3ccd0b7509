"""Sorted rows → batches of rows beside each other that take the least expected time, each with its best cap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lengthwise.costs import StepCost
from lengthwise.scheduling.expected import Outlook, Tables
from lengthwise.scheduling.rows import Doubles, Ints

# Every number of rows up to this is tried; beyond, each about an eighth more than the one before. Any number can be put
# together of those, and the last batch may have any.
MAX_DENSE = 16
STEADY, COARSE = 1 / 8, 1.0


class Batch(NamedTuple):
    """The next `num_rows` rows, for at most `num_steps` steps. `expected_s`: what it takes, with the continuation of
    those that it cuts."""

    num_rows: int
    num_steps: int
    expected_s: float


class Shape(NamedTuple):
    """What a batch may be: at most `max_rows` rows, which reserve at most `kv_tokens`; a row alone always fits.
    `is_padded`: see `Tables`."""

    max_rows: int
    kv_tokens: float
    is_padded: bool


def best_plan(outlook: Outlook, cost: StepCost, shape: Shape, collected_groups: int = 1) -> list[Batch]:
    """What a row takes that is cut is found out by planning roughly, drawing what `collected_groups` such groups would
    have cut, and planning that: it pays what its neighbours pay there. There, and in the rough plan, a row that is cut
    is taken to go on in a batch without a cap."""
    tables = Tables(outlook, cost, shape.is_padded)
    if outlook.is_whole.all():
        return cheapest(tables, outlook, shape)
    tables.set_prices(_prices_s(outlook, cost, _whole_batches(tables, outlook, shape)))
    rows, steps = _drawn_cuts(outlook, cheapest(tables, outlook, shape, COARSE), collected_groups)
    if len(rows):
        cut = outlook.later(rows, steps)
        later = Tables(cut, cost, shape.is_padded)
        later.set_prices(_prices_s(cut, cost, _whole_batches(later, cut, shape)))
        found = _prices_s(cut, cost, cheapest(later, cut, shape, COARSE))
        tables.set_prices(np.interp(np.arange(len(outlook)), rows, found))
    return cheapest(tables, outlook, shape)


def _whole_batches(tables: Tables, outlook: Outlook, shape: Shape) -> list[Batch]:
    """As many rows as fit, without caps."""
    batches: list[Batch] = []
    start, longest = 0, int(outlook.points[-1])
    while start < len(outlook):
        num = tables.num_whole(start, shape.max_rows, shape.kv_tokens)
        batches.append(Batch(num, longest, float(tables.seconds(slice(start, start + 1), num)[0, -1])))
        start += num
    return batches


def _prices_s(outlook: Outlook, cost: StepCost, batches: list[Batch]) -> Doubles:
    """Seconds that a token of each row takes, all told but for reading what the row holds."""
    nums = np.array([batch.num_rows for batch in batches])
    starts = np.cumsum(nums) - nums
    read_s = cost.read_token_s * np.add.reduceat(outlook.held_tokens, starts)
    taken_s = np.array([batch.expected_s for batch in batches]) - read_s
    return np.repeat(np.maximum(taken_s, 0) / np.add.reduceat(outlook.mean_steps, starts), nums)


def _drawn_cuts(outlook: Outlook, batches: list[Batch], num_groups: int) -> tuple[Ints, Ints]:
    """As many rows as so many such groups are expected to have cut, and after how many steps; in order."""
    steps = np.repeat([batch.num_steps for batch in batches], [batch.num_rows for batch in batches])
    chances = outlook.survival[np.arange(len(outlook)), np.searchsorted(outlook.points, steps)]
    passed = np.floor(num_groups * np.cumsum(chances)).astype(np.int64)
    rows = np.repeat(np.arange(len(outlook)), np.diff(passed, prepend=0))
    return rows, steps[rows]


def cheapest(tables: Tables, outlook: Outlook, shape: Shape, growth: float = STEADY) -> list[Batch]:
    """The best of all partitions, at the tables' prices, by dynamic programming over the row at which a batch starts.
    `growth`: by which numbers of rows differ that are tried."""
    num = len(outlook)
    max_rows = min(shape.max_rows, num)
    sizes = _sizes(max_rows, growth)
    seconds = np.full((num, len(sizes) + 1), np.inf)
    caps = np.zeros((num, len(sizes) + 1), np.int64)
    for column, size in enumerate(sizes.tolist()):
        starts = slice(0, num - size + 1)
        seconds[starts, column], caps[starts, column] = tables.best(starts, size, shape.kv_tokens)
    for start in sorted(set(range(num - max_rows, num)) - set((num - sizes).tolist())):  # all that is left
        seconds[start, -1:], caps[start, -1:] = tables.best(slice(start, start + 1), num - start, shape.kv_tokens)
    chosen = _choose(seconds, sizes)
    steps = outlook.points[caps[np.arange(num), chosen]].tolist()
    taken_s = seconds[np.arange(num), chosen].tolist()
    return [Batch(end - start, steps[start], taken_s[start]) for start, end in _walk(chosen, sizes)]


def _choose(seconds: Doubles, sizes: Ints) -> Ints:
    """For every row, which column is best for a batch that starts with it, all behind it planned best. The last column
    is the batch of all that is left."""
    num = len(seconds)
    rest_s = np.full(num + int(sizes[-1]) + 1, np.inf)
    rest_s[num] = 0.0
    chosen = np.zeros(num, np.int64)
    behind = np.append(sizes, 0)
    for start in range(num - 1, -1, -1):
        places = behind + start
        places[-1] = num
        in_all_s = seconds[start] + rest_s[places]
        chosen[start] = in_all_s.argmin()
        rest_s[start] = in_all_s[chosen[start]]
    return chosen


def _walk(chosen: Ints, sizes: Ints) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(chosen):
        column = int(chosen[start])
        end = len(chosen) if column == len(sizes) else start + int(sizes[column])
        yield start, end
        start = end


def _sizes(max_rows: int, growth: float) -> Ints:
    sizes = [1]
    while sizes[-1] < max_rows:
        is_dense = growth < 1 and sizes[-1] < MAX_DENSE
        sizes.append(min(max_rows, sizes[-1] + (1 if is_dense else max(1, int(sizes[-1] * growth)))))
    return np.array(sizes)
