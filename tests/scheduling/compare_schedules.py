"""How much time each schedule takes, by counted steps; where the defaults of GroupingConfig come from.

    python -m tests.scheduling.compare_schedules            the table of schedules
    python -m tests.scheduling.compare_schedules --sweep    one setting of the default varied at a time

Lengths are log-normal with the statistics of Vicuna's answers (median 105, p90 282, cut at 512); the predictor
knows a part of the log length, so that Kendall's tau is as asked, and gives the exact distribution of the rest. A
decode step costs 2 ms and 0.1 ms a row; a token that is read (a prompt, or an answer that goes on) costs
`read_ms`. Figures are arrival order's time divided by the schedule's, at the same rows and memory.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

import numpy as np

from lengthwise.costs import StepCost
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.named import PAPER, optimal, refill
from lengthwise.scheduling.refill import RefillScheduler
from lengthwise.scheduling.sizing import MemorySizing
from lengthwise.types import WaitingRequest
from tests.scheduling.toy_engine import ToyEngine, needs

MEDIAN_TOKENS, SIGMA, LIMIT, PROMPT_TOKENS = 105, 0.77, 512, 40
STEP_MS, ROW_MS = 2.0, 0.1


@dataclass(frozen=True)
class World:
    """Requests with their lengths and what a predictor says of them."""

    lengths: dict[str, int]
    estimates: LengthEstimates

    @classmethod
    def drawn(cls, num: int, tau: float, seed: int) -> World:
        """`tau` is Kendall's between predicted and natural length; 1 is an oracle."""
        rng = np.random.default_rng(seed)
        known = math.sin(math.pi * tau / 2)  # share of the spread that the predictor sees, for normal variables
        seen, rest = rng.normal(size=(2, num))
        centre, spread = SIGMA * known * seen, SIGMA * math.sqrt(1 - known**2)
        lengths = np.maximum(np.rint(MEDIAN_TOKENS * np.exp(centre + spread * rest)), 1)
        named = {f"r{i}": int(length) for i, length in enumerate(lengths)}
        if tau == 1:
            return cls(named, LengthEstimates.certain(lengths))
        z = (np.log(GRID / MEDIAN_TOKENS)[None, :] - centre[:, None]) / spread
        return cls(named, LengthEstimates.from_survival(1 - np.vectorize(NormalDist().cdf)(z)))

    def estimate(self, requests: Sequence[WaitingRequest]) -> LengthEstimates:
        return self.estimates[np.array([int(request.id[1:]) for request in requests])]

    def play(self, scheduler: Scheduler, max_rows: int, kv_tokens: float = math.inf) -> ToyEngine:
        engine = ToyEngine(scheduler, self.lengths, self.estimate, max_rows, kv_tokens, **needs(scheduler))
        engine.add([WaitingRequest(name, PROMPT_TOKENS, LIMIT) for name in self.lengths])
        engine.run()
        assert engine.finished == {name: min(length, LIMIT) for name, length in self.lengths.items()} | engine.finished
        return engine


def cost_ms(engine: ToyEngine, read_ms: float, is_padded: bool = False) -> float:
    rows, read = engine.num_row_steps, engine.num_read_tokens
    if is_padded:
        rows, read = engine.num_padded_row_steps, engine.num_padded_read_tokens
    return STEP_MS * engine.num_steps + ROW_MS * rows + read_ms * read


@dataclass(frozen=True)
class Setting:
    """One column of a table: an engine and its costs."""

    max_rows: int
    read_ms: float = 0.05
    kv_tokens: float = math.inf
    arrival_rows: int | None = None  # rows of arrival order's batches; None: all
    is_padded: bool = False  # rows that have ended are computed on until their batch ends

    def __str__(self) -> str:
        memory = "" if self.kv_tokens == math.inf else f" {self.kv_tokens / 1000:.0f}k"
        return f"{self.max_rows}{memory}/{self.read_ms}{'p' if self.is_padded else ''}"

    @property
    def cost(self) -> StepCost:
        return StepCost(STEP_MS / 1000, ROW_MS / 1000, read_token_s=self.read_ms / 1000)


Make = Callable[[], Scheduler]


def gain(make: Make, worlds: list[World], setting: Setting) -> float:
    """Arrival order's time over the schedule's, mean over worlds."""

    def time_ms(world: World, scheduler: Scheduler) -> float:
        return cost_ms(world.play(scheduler, setting.max_rows, setting.kv_tokens), setting.read_ms, setting.is_padded)

    def made() -> Scheduler:
        return optimal(setting.cost, is_padded=setting.is_padded) if make is optimal else make()

    arrival_rows = setting.arrival_rows or setting.max_rows
    return fmean(time_ms(world, ArrivalScheduler(arrival_rows)) / time_ms(world, made()) for world in worlds)


def grouped(**changes: object) -> Make:
    return lambda: GroupedScheduler(replace(GroupingConfig(), **changes))  # type: ignore[arg-type]


def refilled() -> Scheduler:
    return refill(makes_room=True)


class InArrivalOrder(RefillScheduler):
    """It is told nothing."""

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        limits = [request.max_tokens for request in requests]
        super().add(requests, LengthEstimates.unknown(len(requests)).capped(limits))


SCHEDULES: dict[str, Make] = {
    "sorted, no caps, groups of 256": grouped(fcr=False, group_size=256),
    "sorted, no caps": grouped(fcr=False),
    "sorted, caps, restart": grouped(on_cut="restart"),
    "sorted, caps, continue (grouped)": grouped(),
    "parted by expected time (optimal)": optimal,
    "the paper's, batches from memory": lambda: GroupedScheduler(replace(PAPER, sizing=MemorySizing())),
    "the paper's, its table": lambda: GroupedScheduler(PAPER),
    "refill, arrival order": InArrivalOrder,
    "refill, whole limits": refill,
    "refill (default)": refilled,
}

SWEEPS: dict[str, Sequence[object]] = {
    "cap_quantile": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "order_quantile": (0.3, 0.5, 0.8, 0.9),
    "group_size": (128, 256, 512, 1024, 4096, None),
    "bin_tokens": (1, 10, 50),
    "longest_first": (True, False),
    "max_cuts": (1, 2, 3, 5),
    "groups_per_collection": (1, 3, 6, 1000),
}


def show(rows: dict[str, Make], worlds: list[World], settings: list[Setting]) -> None:
    print(f"{'rows/ms a token read':36}" + "".join(f"{setting!s:>12}" for setting in settings))
    for name, make in rows.items():
        print(f"{name:36}" + "".join(f"{gain(make, worlds, setting):12.2f}" for setting in settings), flush=True)


def main() -> None:
    if "--sweep" in sys.argv:
        worlds = [World.drawn(4000, 0.6, seed) for seed in range(2)]
        settings = [Setting(rows, read) for read in (0.0, 0.05, 0.1) for rows in (32, 64, 128)]
        for name, values in SWEEPS.items():
            show({f"{name}={value}": grouped(**{name: value}) for value in values}, worlds, settings)
        return
    worlds = [World.drawn(1000, 0.6, seed) for seed in range(4)]
    oracles = [World.drawn(1000, 1.0, seed) for seed in range(4)]
    settings = [Setting(rows, read) for read in (0.0, 0.05, 0.1) for rows in (32, 64, 128)]
    settings += [Setting(512, 0.05, rows * (PROMPT_TOKENS + LIMIT)) for rows in (16, 32)]
    show(SCHEDULES, worlds, settings)
    show({"oracle, sorted": grouped(), "oracle, refill": refilled}, oracles, settings)
    print("against arrival order in batches of 16, on an engine that holds 256 rows")
    show(SCHEDULES, worlds, [Setting(256, read, arrival_rows=16) for read in (0.0, 0.05, 0.1)])


if __name__ == "__main__":
    main()
