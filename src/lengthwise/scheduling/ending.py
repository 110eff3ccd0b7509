"""In which order the last requests of a job start, so that it ends soon.

Longest first (Graham 1969) is right where lengths are known. Where they are guessed, it leaves for the end those that
seem short, so many that a few of them turn out long, and each of these keeps all other rows waiting. What helps then
is a last wave of rows that will run long anyway, one for each row of the engine, in which the surprises of all that
started earlier come to their ends; and behind it a few of the shortest, to fill what falls free.

How much of which depends on how good the guesses are. So a few such orders are played through with lengths drawn from
the estimates, and the one that ends soonest on average is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapreplace

import numpy as np

from lengthwise.scheduling.rows import Doubles, Ints

NUM_ROUNDS = 16  # requests for each of the engine's rows that are ordered by length; those before come as they came
WAVES = ((1, 0.0), (1, 0.5), (1, 1.0), (1, 2.0), (2, 1.0))  # the longest in the last wave, and the shortest behind it,
# for each row
MIN_GAIN = 0.005  # over longest first, which is right where lengths are known


def ending_order(expected_tokens: Doubles, more_tokens: Ints, num_rows: int) -> Ints:
    """The requests' places (n) in the order in which they shall start into `num_rows` rows. `expected_tokens`: what is
    expected of each (n), `more_tokens`: how many tokens it may have, by draw (n × draws). Ties as they came."""
    longest_first = np.argsort(-expected_tokens, kind="stable")
    is_all_alike = len(expected_tokens) == 0 or expected_tokens.min() == expected_tokens.max()
    if len(more_tokens) <= num_rows or is_all_alike:
        return longest_first
    best, best_end = longest_first, (1 - MIN_GAIN) * _mean_end(more_tokens[longest_first], num_rows)
    for order in _with_last_waves(longest_first, num_rows):
        end = _mean_end(more_tokens[order], num_rows)
        if end < best_end:
            best, best_end = order, end
    return best


def _with_last_waves(longest_first: Ints, num_rows: int) -> Iterator[Ints]:
    for num_long, num_short in WAVES:
        wave = round(num_long * num_rows)
        rest = len(longest_first) - round(num_short * num_rows)
        if wave < rest:
            yield np.concatenate([longest_first[wave:rest], longest_first[:wave], longest_first[rest:]])


def _mean_end(more_tokens: Ints, num_rows: int) -> float:
    """Steps until all are done, each started as soon as a row is free; the average over draws."""
    return float(np.mean([_end(draw, num_rows) for draw in more_tokens.T.tolist()]))


def _end(lengths: list[int], num_rows: int) -> int:
    ends = [0] * num_rows
    for length in lengths:
        heapreplace(ends, ends[0] + length)
    return max(ends)
