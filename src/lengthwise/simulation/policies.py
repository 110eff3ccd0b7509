"""The policies that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lengthwise.errors import UsageError
from lengthwise.protocols import Scheduler
from lengthwise.scheduling import named
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.online import OnlineConfig, OnlineScheduler
from lengthwise.scheduling.promise import PromiseConfig, PromiseScheduler
from lengthwise.scheduling.urgency import (
    Urgency,
    gittins,
    longest_mean,
    no_order,
    shortest_mean,
    shortest_median,
    shortest_quantile,
    shortest_tail_mean,
)
from lengthwise.simulation.machine import EngineModel, Memory
from lengthwise.simulation.remembered import remembered

BASE = "arrival"


@dataclass(frozen=True)
class Policy:
    """`make` gives a fresh scheduler for one run on such an engine. `memory`: see EngineModel."""

    title: str
    make: Callable[[EngineModel], Scheduler]
    memory: Memory = "preempt"

    def on(self, engine: EngineModel) -> EngineModel:
        """The engine, with its memory kept as this policy takes it."""
        return replace(engine, memory=self.memory)


def _online(urgency: Urgency, *, is_ageing: bool = False) -> Callable[[EngineModel], Scheduler]:
    def make(engine: EngineModel) -> Scheduler:
        rate = engine.cost.row_tokens_per_s(engine.slots) if is_ageing else 0.0
        return OnlineScheduler(OnlineConfig(remembered(urgency), rate))

    return make


def _promise(factor: float) -> Callable[[EngineModel], Scheduler]:
    return lambda engine: PromiseScheduler(PromiseConfig(remembered(shortest_mean), max_wait_factor=factor))


POLICIES: dict[str, Policy] = {
    BASE: Policy("arrival order", _online(no_order)),
    "promise": Policy("shortest mean first, the longest wait bounded by arrival order's", _promise(1.25)),
    "ratio": Policy("highest response ratio first", _online(no_order, is_ageing=True)),
    "shortest-aged": Policy(
        "shortest mean first, ageing by wait ÷ expected length", _online(shortest_mean, is_ageing=True)
    ),
    "shortest": Policy("shortest mean first", _online(shortest_mean)),
    "shortest-median": Policy("shortest median first", _online(shortest_median)),
    "shortest-q90": Policy("shortest 90 % quantile first", _online(shortest_quantile(0.9))),
    "tail-mean": Policy("shortest mean inflated by its tail first", _online(shortest_tail_mean(0.5))),
    "gittins": Policy("highest Gittins index first", _online(gittins)),
    "longest": Policy("longest mean first", _online(longest_mean)),
    "gittins-aged": Policy("highest Gittins index first, ageing", _online(gittins, is_ageing=True)),
    "longest-aged": Policy("longest mean first, ageing", _online(longest_mean, is_ageing=True)),
    "refill": Policy(
        "arrival order, the last in the order that ends soonest; memory by what rows will probably hold",
        lambda engine: named.refill(makes_room=True),
        "planned",
    ),
    "static-arrival": Policy(
        "static batches in arrival order", lambda engine: ArrivalScheduler(engine.slots), "reserve"
    ),
    "static-grouped": Policy("static batches, sorted in groups", lambda engine: named.grouped(), "reserve"),
    "static-optimal": Policy(
        "static batches, parted by expected time", lambda engine: named.optimal(engine.cost), "reserve"
    ),
    "static-paper": Policy("static batches, the paper's scheduling", lambda engine: named.paper(), "reserve"),
}
DEFAULT = (BASE, "promise:1", "promise", "ratio", "shortest-aged", "shortest", "gittins", "longest")


def policy(name: str) -> Policy:
    """Raises UsageError, with the names that there are. `promise:K` is `promise` with another factor."""
    if name.startswith("promise:"):
        try:
            factor = float(name.removeprefix("promise:"))
        except ValueError:
            raise UsageError(f"The policy {name!r} has no number behind its colon; write promise:1.5, say.") from None
        PromiseConfig(max_wait_factor=factor)
        return Policy(
            f"shortest mean first, the longest wait at most {factor:g} times arrival order's", _promise(factor)
        )
    if name not in POLICIES:
        raise UsageError(f"There is no policy {name!r}; choose from {', '.join(POLICIES)}, promise:K.")
    return POLICIES[name]
