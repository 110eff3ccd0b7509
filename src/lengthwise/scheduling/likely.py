"""Requests that wait, each with a few equally likely lengths: all that is kept of an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.planning import is_unknown
from lengthwise.scheduling.rows import Columns, Doubles, Ints, ids_of, int_column
from lengthwise.types import WaitingRequest

NUM_DRAWS = 16
UNKNOWN = np.inf
_PIECE = 16_384  # requests that lengths are drawn for at once: their curves (4.5 MB) stay in the processor's cache


@dataclass(frozen=True)
class LikelyRows(Columns):
    """n requests as columns. `ends` (n × NUM_DRAWS): how many tokens the whole answer has, drawn from its estimate.

    `expected_tokens`: its mean, from the first token; UNKNOWN where nothing is known, so that these are in no order.

    A row's draws are one from each sixteenth of its distribution, in an order of their own: a column is a job as it
    may come, independent from row to row, and over many rows even a length of one chance in a thousand is met.
    """

    prompt_tokens: Ints
    num_tokens: Ints
    max_tokens: Ints
    expected_tokens: Doubles
    ends: NDArray[np.int32]

    @classmethod
    def empty(cls) -> Self:
        none = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.object_), none, none, none, np.zeros(0), np.zeros((0, NUM_DRAWS), np.int32))

    @classmethod
    def of(cls, requests: Sequence[WaitingRequest], estimates: LengthEstimates, rng: np.random.Generator) -> Self:
        """`estimates` are within limits and given the tokens so far (see `Scheduler.add`)."""
        pieces = [slice(at, at + _PIECE) for at in range(0, len(requests), _PIECE)]
        max_tokens = int_column(requests, "max_tokens")
        ends = [_ends(estimates[piece], max_tokens[piece], rng) for piece in pieces]
        return cls(
            ids_of(requests),
            int_column(requests, "prompt_tokens"),
            int_column(requests, "num_tokens"),
            max_tokens,
            np.where(is_unknown(estimates, max_tokens), UNKNOWN, estimates.mean()),
            np.concatenate([cls.empty().ends, *ends]),
        )

    @property
    def held_tokens(self) -> Ints:
        """Prompt and answer so far (n)."""
        held: Ints = self.prompt_tokens + self.num_tokens
        return held

    @property
    def more_tokens(self) -> Ints:
        """How many tokens may yet come, by draw (n × NUM_DRAWS)."""
        return more_tokens(self.ends, self.num_tokens, self.max_tokens)


def more_tokens(ends: NDArray[np.integer], num_tokens: Ints, max_tokens: Ints) -> Ints:
    """How many tokens may yet come, by draw; 0 where the answer has outlived the draw. One that has outlived all of
    them goes on to its limit, in every draw. Shapes: n × draws, n, n → n × draws."""
    more: Ints = np.maximum(ends - num_tokens[:, None], 0)
    has_outlived_all = ~more.any(axis=1)
    more[has_outlived_all] = np.maximum(max_tokens - num_tokens, 1)[has_outlived_all, None]
    return more


def _ends(estimates: LengthEstimates, max_tokens: Ints, rng: np.random.Generator) -> NDArray[np.int32]:
    num = len(estimates)
    parts = rng.permuted(np.broadcast_to(np.arange(NUM_DRAWS), (num, NUM_DRAWS)), axis=1)
    chances = np.clip((parts + rng.random((num, NUM_DRAWS))) / NUM_DRAWS, 1e-6, 1 - 1e-6)
    lengths = np.stack([estimates.quantiles(column) for column in chances.T], axis=1)
    return np.ceil(np.clip(lengths, 1, max_tokens[:, None])).astype(np.int32)
