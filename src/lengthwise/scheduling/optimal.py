"""Static batches done as well as is known beforehand: sorted rows are parted, and caps chosen, by expected time.

For engines whose batch runs as it was started: compiled models and accelerators with fixed shapes, and
`model.generate`. Where rows can be refilled that gains more than any partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lengthwise.costs import StepCost
from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.expected import Outlook, Table
from lengthwise.scheduling.partition import Batch, Shape, best_plan
from lengthwise.scheduling.planning import PlanConfig, is_unknown
from lengthwise.scheduling.rows import Rows, int_column
from lengthwise.scheduling.static_groups import StaticGroups
from lengthwise.types import View, WaitingRequest

# Where nobody measured: a step as the paper's figures have it, and a token that is read costs what a row does.
UNMEASURED = StepCost(read_token_s=StepCost.step_row_s)


@dataclass(frozen=True)
class PartitionConfig:
    """Settings of PartitionScheduler. Raises UsageError on a value out of range."""

    cost: StepCost = UNMEASURED

    # Rows that have ended are computed on, and prompts are padded to the longest (`model.generate`, fixed shapes).
    is_padded: bool = False

    # Requests sorted and parted together.
    group_size: int = 4096

    # As in GroupingConfig and PlanConfig.
    groups_per_collection: int = 3
    fcr: bool = True
    max_cuts: int = 2

    planning: PlanConfig = field(init=False)

    def __post_init__(self) -> None:
        for name in ("group_size", "groups_per_collection"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        object.__setattr__(self, "planning", PlanConfig(fcr=self.fcr, max_cuts=self.max_cuts))


@dataclass(frozen=True)
class _CurvedRows(Rows):
    """With what is known of their lengths (the columns of LengthEstimates), and whether they are not to be cut."""

    survival: Table
    at_least: Table
    limit: Table
    is_whole: NDArray[np.bool_]


class PartitionScheduler(StaticGroups):
    """Batches of sorted requests whose expected time, that of going on with what they cut included, is the least of
    all partitions of a group (see `partition.best_plan`), each with its own cap.

    Of what waits the curves are kept (276 bytes a request). Ids that wait must differ.
    """

    def __init__(self, config: PartitionConfig = PartitionConfig()) -> None:
        super().__init__(config.planning, config.group_size, config.groups_per_collection, longest_first=True)
        self.config = config
        self._batches: deque[Batch] = deque()  # of the group, as planned
        self._shape: Shape | None = None  # for which they were planned

    def _kept(self, rows: Rows, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> Rows:
        has_failed = int_column(requests, "num_cuts") >= self.config.max_cuts
        is_whole = is_unknown(estimates, rows.max_tokens) | has_failed | (not self.config.fcr)
        return _CurvedRows(
            **vars(rows),
            survival=estimates.survival,
            at_least=estimates.at_least,
            limit=estimates.limit,
            is_whole=is_whole,
        )

    def _next_batch(self, view: View) -> tuple[int, int]:
        """Planned anew when rows were removed from the group, or the engine has less room than it had."""
        shape = Shape(max(1, view.free_rows), view.free_kv_tokens, self.config.is_padded)
        if shape != self._shape or sum(batch.num_rows for batch in self._batches) != len(self._group):
            self._shape = shape
            self._batches = deque(self._planned(shape))
        batch = self._batches.popleft()
        return batch.num_rows, batch.num_steps

    def _planned(self, shape: Shape) -> list[Batch]:
        rows = self._group
        assert isinstance(rows, _CurvedRows), "all rows that are taken in have curves"
        estimates = LengthEstimates(rows.survival, rows.at_least, rows.limit)
        outlook = Outlook.of(estimates, rows.prompt_tokens, rows.num_tokens, rows.room_tokens, rows.is_whole)
        return best_plan(outlook, self.config.cost, shape, self.config.groups_per_collection)
