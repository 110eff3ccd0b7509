"""The ready-made schedulers, by the names that the command and `Pipeline` take."""

from __future__ import annotations

from dataclasses import replace

from lengthwise.costs import StepCost
from lengthwise.errors import UsageError
from lengthwise.protocols import Scheduler
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.optimal import UNMEASURED, PartitionConfig, PartitionScheduler
from lengthwise.scheduling.refill import RefillConfig, RefillScheduler
from lengthwise.scheduling.sizing import TableSizing
from lengthwise.types import Capabilities

NAMES = ("default", "refill", "grouped", "optimal", "paper", "arrival")  # default: refill, where the engine can;
# else grouped

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


def refill(*, makes_room: bool = False) -> RefillScheduler:
    """Into every row that is free, the job's last requests in the order that ends it soonest. `makes_room`: the engine
    does (see Capabilities), so rows enter by what they will probably hold."""
    return RefillScheduler(RefillConfig(memory="expected" if makes_room else "limits"))


def grouped(*, fcr: bool = True) -> GroupedScheduler:
    """Sorted groups in static batches from memory, cut answers go on from their tokens. `fcr` False: no caps at all."""
    return GroupedScheduler(GroupingConfig(fcr=fcr))


def paper(*, fcr: bool = True) -> GroupedScheduler:
    """The paper's sequence scheduling: table of batch sizes, failures written again. `fcr` False: no caps at all."""
    return GroupedScheduler(replace(PAPER, fcr=fcr))


def optimal(cost: StepCost | None = None, *, is_padded: bool = False, fcr: bool = True) -> PartitionScheduler:
    """Sorted groups in the static batches that take the least expected time at this cost (None: nobody measured one).
    `is_padded`: see PartitionConfig. `fcr` False: no caps at all."""
    return PartitionScheduler(PartitionConfig(cost or UNMEASURED, is_padded, fcr=fcr))


def make(name: str, capabilities: Capabilities, cost: StepCost | None = None) -> Scheduler:
    """A fresh scheduler by name, for one run on an engine that can do this much, whose passes take `cost` (None: nobody
    measured that). Raises UsageError."""
    check_name(name)
    can_cap = capabilities.can_cut and capabilities.can_continue
    if name == "default":
        name = "refill" if capabilities.can_refill else "grouped"
    if name == "refill":
        return refill(makes_room=capabilities.makes_room and capabilities.can_continue)
    if name == "grouped":
        return grouped(fcr=can_cap)
    if name == "optimal":
        return optimal(cost, is_padded=not capabilities.can_refill, fcr=can_cap)
    if name == "paper":
        return paper(fcr=can_cap)
    return ArrivalScheduler(capabilities.max_running)


def check_name(name: str) -> None:
    """Raises UsageError, with the names that there are."""
    if name not in NAMES:
        raise UsageError(f"There is no scheduler {name!r}; choose one of {', '.join(NAMES)}.")
