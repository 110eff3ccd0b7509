"""From requests and their estimates to an order and grants: what every policy that knows lengths begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.rows import Ints, Rows, ids_of, int_column
from lengthwise.types import WaitingRequest

# Where a request stands of which nothing is known: with its like, in order of arrival, however their limits differ.
_UNKNOWN_TOKENS = 2**40

# Requests planned at once: their curves (4.5 MB) stay in the cache. A million in one piece took twice as long.
_PIECE = 16_384


@dataclass(frozen=True)
class PlanConfig:
    """How an estimate becomes a place in the order and a grant. Raises UsageError on a value out of range.

    Figures in this file and in those of the policies are gains in time over arrival order in static batches with the
    same rows and memory, by `tests/scheduling/compare_schedules.py`: lengths like Vicuna's, a predictor of Kendall tau
    0.6, rows that leave the batch when they end. What a cut costs depends on what it costs to read a token again (a
    prompt, or an answer that goes on) relative to decoding one.
    """

    # The estimate's quantile that requests are sorted by. From 0.3 to 0.9 there is no difference.
    order_quantile: float = 0.8

    # Predicted lengths are rounded up to a multiple of this many tokens; 1 is off. The paper's 50 makes order and caps
    # coarse (1.43 becomes 1.38 in sorted batches), which a distribution does not need.
    bin_tokens: int = 1

    # Failure collection: a row may be cut at its predicted length. Off: every row may reach its limit.
    fcr: bool = True

    # The estimate's quantile that a row is granted. In sorted batches of 32 rows, when reading is free: 1.67 at 0.6,
    # 1.57 at 0.8, 1.48 at 0.9, 1.35 without caps; when it costs half a decoded row: 1.37, 1.42, 1.40, 1.33; when it
    # costs as much: 1.18, 1.30, 1.34, 1.31. A 4M-parameter model on a CPU lies near the second.
    cap_quantile: float = 0.8

    # What becomes of a cut row: it goes on from its tokens, or is written again with the full limit (the paper's).
    # Where ended rows leave the batch, writing again loses all that caps gain: 1.30, against 1.33 without any.
    on_cut: Literal["continue", "restart"] = "continue"

    # Cuts after which a row has its full limit. 1 gains up to 3 % less, 3 the same.
    max_cuts: int = 2

    def __post_init__(self) -> None:
        self._check_at_least_one("bin_tokens", "max_cuts")
        for name in ("order_quantile", "cap_quantile"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; a quantile lies between 0 and 1.")
        if self.on_cut not in ("continue", "restart"):
            raise UsageError(f"on_cut is {self.on_cut!r}; it must be 'continue' or 'restart'.")

    def _check_at_least_one(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be 1 or more.")


def plan(requests: Sequence[WaitingRequest], estimates: LengthEstimates, config: PlanConfig) -> Iterator[Rows]:
    """Requests as columns, some thousands at a time: where each stands in the order, and how many tokens it is granted
    before it may be cut. `estimates` are within limits and given the tokens so far (see `Scheduler.add`)."""
    for start in range(0, len(requests), _PIECE):
        piece = slice(start, start + _PIECE)
        yield _plan_piece(requests[piece], estimates[piece], config)


def _plan_piece(requests: Sequence[WaitingRequest], estimates: LengthEstimates, config: PlanConfig) -> Rows:
    num_tokens, max_tokens = int_column(requests, "num_tokens"), int_column(requests, "max_tokens")
    num_cuts = int_column(requests, "num_cuts")
    restarts = (num_cuts > 0) & (num_tokens > 0) & (config.on_cut == "restart")
    kept = np.where(restarts, 0, num_tokens)
    room = np.maximum(max_tokens - kept, 1)
    more = {q: _more_tokens(estimates, q, kept, room, config) for q in {config.order_quantile, config.cap_quantile}}
    predicted, granted = more[config.order_quantile], more[config.cap_quantile] if config.fcr else room
    predicted = np.where(is_unknown(estimates, max_tokens), _UNKNOWN_TOKENS, predicted)
    has_failed = num_cuts >= (1 if config.on_cut == "restart" else config.max_cuts)
    return Rows(
        ids=ids_of(requests),
        prompt_tokens=int_column(requests, "prompt_tokens"),
        num_tokens=kept,
        max_tokens=max_tokens,
        predicted_tokens=np.where(has_failed, room, predicted),
        granted_tokens=np.where(has_failed, room, granted),
        restarts=restarts,
        was_cut=num_cuts > 0,
    )


def is_unknown(estimates: LengthEstimates, max_tokens: Ints) -> NDArray[np.bool_]:
    """A curve that never falls, whose end is the request's own limit."""
    found: NDArray[np.bool_] = (estimates.survival[:, -1] >= 1) & (estimates.limit >= max_tokens)
    return found


def _more_tokens(estimates: LengthEstimates, quantile: float, kept: Ints, room: Ints, config: PlanConfig) -> Ints:
    """A quantile of the length as tokens beyond `kept`: whole bins, from 1 to `room`."""
    more = np.minimum(estimates.quantile(quantile) - kept, room)
    binned = np.ceil(more / config.bin_tokens).astype(np.int64) * config.bin_tokens
    found: Ints = np.clip(binned, 1, room)
    return found
