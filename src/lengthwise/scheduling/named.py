"""The ready-made schedulers, by the names that the command and `Pipeline` take."""

from __future__ import annotations

from dataclasses import replace

from lengthwise.errors import UsageError
from lengthwise.protocols import Scheduler
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.sizing import TableSizing

NAMES = ("default", "paper", "arrival")

# The quantile of one answer at which the paper's predicted length stands. Its labels are the longest of four samples,
# which lie 34 tokens around their prompt's mean, so 35 above it; the predictor (error 62, about 78 as standard
# deviation) is off by about 74 from that mean: P(Z < 35 / sqrt(74^2 + 34^2)) = 0.67. With bins of 50 this has 16 % of
# Vicuna-like answers run again; the paper's repository reports 16.5 %.
_PAPER_QUANTILE = 0.67

# Groups of 256, bins of 50, the size table, and failures written again from nothing. The paper's text and its
# released code (`generate_group`) collect failures until the end of their group of 256.
PAPER = GroupingConfig(
    group_size=256,
    order_quantile=_PAPER_QUANTILE,
    longest_first=False,
    bin_tokens=50,
    sizing=TableSizing(),
    cap_quantile=_PAPER_QUANTILE,
    on_cut="restart",
    groups_per_collection=1,
)


def default(*, fcr: bool = True) -> GroupedScheduler:
    """Sorted groups, batches from memory, cut answers go on from their tokens. `fcr` False: no caps at all."""
    return GroupedScheduler(GroupingConfig(fcr=fcr))


def paper(*, fcr: bool = True) -> GroupedScheduler:
    """The paper's sequence scheduling: table of batch sizes, failures written again. `fcr` False: no caps at all."""
    return GroupedScheduler(replace(PAPER, fcr=fcr))


def make(name: str, *, batch_size: int, can_cap: bool = True) -> Scheduler:
    """A fresh scheduler by name, for one run. `batch_size` is arrival order's; `can_cap` False turns caps off."""
    if name == "arrival":
        return ArrivalScheduler(batch_size)
    if name == "default":
        return default(fcr=can_cap)
    if name == "paper":
        return paper(fcr=can_cap)
    raise UsageError(f"There is no scheduler {name!r}; choose one of {', '.join(NAMES)}.")
