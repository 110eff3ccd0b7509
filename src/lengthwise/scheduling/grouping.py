"""The paper's sequence scheduling: groups, sorted by predicted length, in batches, with failure collection.

Finished rows leave the batch at once, so a row-step is never wasted and what a schedule can save is steps: a
batch makes as many as its longest row. Sorting puts rows of like length beside each other, a cap ends a batch
when few of its rows are left, and those go on in a batch of their like. arXiv 2305.13144, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.queue import RowQueue
from lengthwise.scheduling.rows import Ints, Rows, column
from lengthwise.scheduling.sizing import MemorySizing, Sizing, TableSizing
from lengthwise.types import Decision, View, WaitingRequest

# Requests planned at once: their curves (4.5 MB) stay in the cache. A million in one piece took twice as long.
_PIECE = 16_384


def _check_at_least_one(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; it must be 1 or more.")


def _check_quantiles(config: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < 1:
            raise UsageError(f"{name} is {getattr(config, name)}; a quantile lies between 0 and 1.")


@dataclass(frozen=True)
class GroupingConfig:
    """Settings of GroupedScheduler. The figures are gains in time over arrival order with the same rows and memory,
    by `tests/scheduling/compare_schedules.py`: lengths like Vicuna's, a predictor of Kendall tau 0.6, rows that leave
    the batch when they end. What a cut costs depends on what it costs to read a token again (a prompt, or an answer
    that goes on) relative to decoding one.
    """

    # Requests sorted together; None: all that wait. At 64 rows 256 (the paper's) gains 1.33, 1,024 1.43, all 1.45;
    # where reading is dear more than 1,024 gains nothing. Answers stay near the order of arrival.
    group_size: int | None = 1024

    # The estimate's quantile that requests are sorted by. From 0.3 to 0.9 there is no difference.
    order_quantile: float = 0.8

    # The longest batch first: a group's last batch, which may be small, then has the fewest steps (up to 1 %; 3 %
    # without caps). A lack of memory also shows at the start, not at the end.
    longest_first: bool = True

    # Predicted lengths are rounded up to a multiple of this many tokens; 1 is off. The paper's 50 makes order and caps
    # coarse (1.43 becomes 1.38), which a distribution does not need.
    bin_tokens: int = 1

    # Rows of a batch: as many as the memory holds.
    sizing: Sizing = field(default_factory=MemorySizing)

    # Failure collection: batches run at most to their predicted length. Off: every row may reach its limit.
    fcr: bool = True

    # The estimate's quantile that a row is granted; a batch runs to the greatest of its rows. At 32 rows, when reading
    # is free: 1.67 at 0.6, 1.57 at 0.8, 1.48 at 0.9, 1.35 without caps; when it costs half a decoded row: 1.37, 1.42,
    # 1.40, 1.33; when it costs as much: 1.18, 1.30, 1.34, 1.31. A 4M-parameter model on a CPU lies near the second.
    cap_quantile: float = 0.8

    # What becomes of a cut row: it goes on from its tokens, or is written again with the full limit (the paper's).
    # Where ended rows leave the batch, writing again loses all that caps gain: 1.30, against 1.33 without any.
    on_cut: Literal["continue", "restart"] = "continue"

    # Cuts after which a row has its full limit. 1 gains up to 3 % less, 3 the same.
    max_cuts: int = 2

    # Cut rows are collected and planned anew when this many groups of new requests have run since the last time, or
    # when nothing new waits. A sixth of a group is cut, so its own cut rows alone fill few batches (1: 2 % less at 256
    # rows; 4 % at groups of 256); more than 3 only leaves more answers unfinished. 1 is the paper's code.
    groups_per_collection: int = 3

    def __post_init__(self) -> None:
        _check_at_least_one(self, "group_size", "bin_tokens", "max_cuts", "groups_per_collection")
        _check_quantiles(self, "order_quantile", "cap_quantile")
        if self.on_cut not in ("continue", "restart"):
            raise UsageError(f"on_cut is {self.on_cut!r}; it must be 'continue' or 'restart'.")
        if isinstance(self.sizing, TableSizing) and self.longest_first:
            raise UsageError("TableSizing moves rows up into the next longer bin; it needs longest_first=False.")


class GroupedScheduler:
    """Sequence scheduling (section 4 of the paper), with every defect of its released code left out.

    Requests form groups in arrival order; a group is sorted by predicted length (ties in arrival order, so with
    nothing known all stays in arrival order and nothing is cut) and taken from the front in batches, each into an
    empty engine. What was cut is collected and planned as a group of its own. A request that comes back for
    another reason (`memory`, `cancelled`) is treated alike. Nothing starves: a group ends, collected rows form the
    next after `groups_per_collection` groups at the latest, and after `max_cuts` cuts a row has its full limit.

    Only columns are kept of what waits, not the curves. Ids that wait must differ.
    """

    def __init__(self, config: GroupingConfig = GroupingConfig()) -> None:
        self.config = config
        self._fresh = RowQueue()
        self._collected = RowQueue()
        self._group = Rows.empty()  # what is left of it, in the order in which it runs
        self._num_groups = 0  # of new requests since cut rows were last planned
        self._removed: set[str] = set()

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._forget_removed()  # first: an id may leave and come again
        for start in range(0, len(requests), _PIECE):
            piece = slice(start, start + _PIECE)
            rows = plan(requests[piece], estimates[piece], self.config)
            was_cut = column(requests[piece], "num_cuts") > 0
            self._fresh.append(rows[~was_cut])
            self._collected.append(rows[was_cut])

    def remove(self, request_ids: Iterable[str]) -> None:
        self._removed.update(request_ids)

    def decide(self, view: View) -> list[Decision]:
        self._forget_removed()
        if view.running:
            return []
        if not len(self._group):
            self._group = self._next_group()
        if not len(self._group):
            return []
        num = self.config.sizing(self._group, view.free_rows, view.free_kv_tokens)
        assert 1 <= num <= len(self._group), f"{self.config.sizing} takes {num} of {len(self._group)} rows"
        batch, self._group = self._group[:num], self._group[num:]
        return [*batch.starts(self._granted_tokens(batch, view.free_kv_tokens))]

    def _next_group(self) -> Rows:
        is_due = self._num_groups >= self.config.groups_per_collection
        if len(self._collected) and (is_due or not len(self._fresh)):
            self._num_groups = 0
            return in_order(self._collected.take(None), self.config)
        self._num_groups += 1
        return in_order(self._fresh.take(self.config.group_size), self.config)

    def _granted_tokens(self, batch: Rows, free_kv_tokens: float) -> int:
        """Steps that the batch may make: the greatest grant, so that a row is not cut while the batch goes on anyway.

        The last batch of all is not cut, memory permitting: what it left would run in a batch of its own.
        """
        is_last = not (len(self._group) or len(self._fresh) or len(self._collected))
        if is_last and self.config.on_cut == "continue":
            whole = int((batch.prompt_tokens + batch.max_tokens).sum())
            if whole <= free_kv_tokens:
                return int(batch.room_tokens.max())
        return int(batch.granted_tokens.max())

    def _forget_removed(self) -> None:
        """One pass for all removals since the last decision."""
        if not self._removed:
            return
        self._fresh.drop(self._removed)
        self._collected.drop(self._removed)
        self._group = self._group.without(self._removed)
        self._removed = set()


def plan(requests: Sequence[WaitingRequest], estimates: LengthEstimates, config: GroupingConfig) -> Rows:
    """Requests as columns: where each stands in the order, and how many tokens it is granted before it may be cut."""
    num_tokens, max_tokens = column(requests, "num_tokens"), column(requests, "max_tokens")
    num_cuts = column(requests, "num_cuts")
    restarts = (num_cuts > 0) & (num_tokens > 0) & (config.on_cut == "restart")
    kept = np.where(restarts, 0, num_tokens)
    room = np.maximum(max_tokens - kept, 1)
    more = {q: _more_tokens(estimates, q, kept, room, config) for q in {config.order_quantile, config.cap_quantile}}
    predicted, granted = more[config.order_quantile], more[config.cap_quantile] if config.fcr else room
    has_failed = num_cuts >= (1 if config.on_cut == "restart" else config.max_cuts)
    return Rows(
        ids=np.fromiter((request.id for request in requests), np.object_, len(requests)),
        prompt_tokens=column(requests, "prompt_tokens"),
        num_tokens=kept,
        max_tokens=max_tokens,
        predicted_tokens=np.where(has_failed, room, predicted),
        granted_tokens=np.where(has_failed, room, granted),
        restarts=restarts,
    )


def in_order(rows: Rows, config: GroupingConfig) -> Rows:
    """Sorted by predicted length, ties as they came."""
    key = -rows.predicted_tokens if config.longest_first else rows.predicted_tokens
    return rows[np.argsort(key, kind="stable")]


def _more_tokens(estimates: LengthEstimates, quantile: float, kept: Ints, room: Ints, config: GroupingConfig) -> Ints:
    """A quantile of the length as tokens beyond `kept`: whole bins, from 1 to `room`."""
    more = np.minimum(estimates.quantile(quantile) - kept, room)
    binned = np.ceil(more / config.bin_tokens).astype(np.int64) * config.bin_tokens
    found: Ints = np.clip(binned, 1, room)
    return found
