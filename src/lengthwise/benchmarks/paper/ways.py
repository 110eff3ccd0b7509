"""Ways to schedule: the paper's, with its parts switched on and off."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lengthwise.benchmarks.paper.counting import WatchedScheduler
from lengthwise.errors import UsageError
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler
from lengthwise.scheduling.named import PAPER
from lengthwise.scheduling.online import OnlineConfig, OnlineScheduler
from lengthwise.scheduling.sizing import FixedSizing, TableSizing
from lengthwise.scheduling.urgency import no_order

BATCH_SIZE = 16  # of the paper's runs without variable batch size
LARGEST_BATCH = max(size for _, size in TableSizing().sizes)


@dataclass(frozen=True)
class Way:
    """How requests are put into batches. `sequence`: the paper's groups, sorted by predicted length; `arrival`: batches
    in arrival order, "vanilla"; `refill`: no batches, a row that has ended is taken by the next request to come.

    `quantile`: where the paper's one number lies in an estimate. The median is the number of a predictor that learned
    the paper's labels. Raises UsageError on a size below 1.
    """

    order: Literal["sequence", "arrival", "refill"] = "sequence"
    binning: bool = True  # predicted lengths are rounded up to a multiple of 50
    fcr: bool = True  # failure collection and recomputation
    vbs: bool = True  # variable batch size
    group_size: int = PAPER.group_size or 256
    batch_size: int = BATCH_SIZE  # without variable batch size
    quantile: float = 0.5

    def __post_init__(self) -> None:
        if min(self.group_size, self.batch_size) < 1:
            raise UsageError(f"group_size is {self.group_size}, batch_size {self.batch_size}; both must be 1 or more.")

    def scheduler(self) -> WatchedScheduler:
        """A fresh one, for one run."""
        if self.order == "refill":
            return WatchedScheduler(OnlineScheduler(OnlineConfig(no_order)), self.batch_size, in_batches=False)
        if self.order == "arrival":
            return WatchedScheduler(ArrivalScheduler(self.batch_size))
        sizing = TableSizing() if self.vbs else FixedSizing(self.batch_size)
        config = replace(
            PAPER,
            order_quantile=self.quantile,
            cap_quantile=self.quantile,
            bin_tokens=PAPER.bin_tokens if self.binning else 1,
            fcr=self.fcr,
            group_size=self.group_size,
            sizing=sizing,
        )
        return WatchedScheduler(GroupedScheduler(config))

    @property
    def uses_lengths(self) -> bool:
        return self.order == "sequence"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


VANILLA = Way("arrival")
REFILL = Way("refill")
PAPER_WAY = Way()
SORTED_ONLY = Way(fcr=False, vbs=False)  # sorted and rounded, neither variable batch size nor failure collection
