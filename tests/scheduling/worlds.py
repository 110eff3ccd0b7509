"""Random requests, lengths, estimates and schedulers for property tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from lengthwise.costs import StepCost
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.optimal import PartitionConfig, PartitionScheduler
from lengthwise.scheduling.refill import RefillConfig, RefillScheduler
from lengthwise.scheduling.sizing import FixedSizing, MemorySizing, TableSizing
from lengthwise.types import WaitingRequest
from tests.scheduling.toy_engine import ToyEngine, needs

MAX_TOKENS = 60

patient = settings(deadline=None)  # a busy machine is slow at times


@dataclass(frozen=True)
class World:
    """Requests, their natural lengths, what is guessed of them (None: nothing), and the engine they meet."""

    requests: list[WaitingRequest]
    lengths: dict[str, int]
    guesses: dict[str, float | None]
    max_rows: int
    kv_tokens: float
    seed: int

    def estimate(self, requests: Sequence[WaitingRequest]) -> LengthEstimates:
        curves = [curve(self.guesses[request.id]) for request in requests]
        return LengthEstimates.from_survival(np.reshape(curves, (-1, len(GRID))))

    def engine(self, scheduler: Scheduler, *, has_foreign_cuts: bool = False) -> ToyEngine:
        rng = random.Random(self.seed) if has_foreign_cuts else None
        known = (self.lengths, self.estimate, self.max_rows, self.kv_tokens)
        return ToyEngine(scheduler, *known, rng, **needs(scheduler))

    @property
    def expected(self) -> dict[str, int]:
        return {request.id: min(self.lengths[request.id], request.max_tokens) for request in self.requests}


def curve(guess: float | None) -> np.ndarray:
    """Survival around a guess, half of the answers within a factor of 1.5; a flat one for "nothing is known"."""
    if guess is None:
        return np.ones(len(GRID))
    return 1 / (1 + (GRID / guess) ** 2.7)


@st.composite
def worlds(draw: st.DrawFn, max_requests: int = 40) -> World:
    """Guesses may be right, wrong by any factor, or missing; memory may hold less than one request."""
    num = draw(st.integers(1, max_requests))
    rng = random.Random(draw(st.integers(0, 2**32)))
    names = [f"r{i}" for i in range(num)]
    requests = [WaitingRequest(name, rng.randint(1, 20), rng.randint(1, MAX_TOKENS)) for name in names]
    lengths = {name: rng.randint(1, 2 * MAX_TOKENS) for name in names}
    error = draw(st.sampled_from([1.0, 0.1, 5.0, 0.0]))
    guesses = {name: length * error or None for name, length in lengths.items()}
    kv_tokens = draw(st.sampled_from([1.0, 100.0, 300.0, float("inf")]))
    return World(requests, lengths, guesses, draw(st.integers(1, 12)), kv_tokens, rng.randint(0, 2**32))


TINY_TABLE = TableSizing(((5, 4), (10, 3)), above=2, bin_tokens=5, min_rows=2)
SIZINGS = [(MemorySizing(), True), (MemorySizing(), False), (FixedSizing(3), True), (TINY_TABLE, False)]


@st.composite
def configs(draw: st.DrawFn) -> GroupingConfig:
    """All settings, with groups and batches small enough that every rule is met."""
    sizing, longest_first = draw(st.sampled_from(SIZINGS))
    return GroupingConfig(
        group_size=draw(st.sampled_from([1, 3, 8, None])),
        order_quantile=draw(st.sampled_from([0.5, 0.9])),
        longest_first=longest_first,
        bin_tokens=draw(st.sampled_from([1, 7, 50])),
        sizing=sizing,
        fcr=draw(st.booleans()),
        cap_quantile=draw(st.sampled_from([0.2, 0.8])),
        on_cut=draw(st.sampled_from(["continue", "restart"])),
        max_cuts=draw(st.integers(1, 3)),
        groups_per_collection=draw(st.integers(1, 4)),
    )


def refill_configs() -> st.SearchStrategy[RefillConfig]:
    memory, margin = st.sampled_from(["expected", "limits"]), st.sampled_from([0.0, 1.0, 3.0])
    return st.builds(RefillConfig, memory=memory, margin=margin, seed=st.integers(0, 3))


def partition_configs() -> st.SearchStrategy[PartitionConfig]:
    return st.builds(
        PartitionConfig,
        cost=st.sampled_from([StepCost(), StepCost(0.02, 0.001, 1e-5, 0.01, 0.0005), StepCost(1e-6, 0.01)]),
        is_padded=st.booleans(),
        group_size=st.sampled_from([4, 12, 4096]),
        groups_per_collection=st.integers(1, 4),
        fcr=st.booleans(),
        max_cuts=st.integers(1, 3),
    )


def static_schedulers() -> st.SearchStrategy[Scheduler]:
    made = st.builds(ArrivalScheduler, st.integers(1, 9)) | st.builds(GroupedScheduler, configs())
    return made | st.builds(PartitionScheduler, partition_configs())


def sorting_schedulers() -> st.SearchStrategy[Scheduler]:
    """Those that order by predicted length."""
    made = st.builds(GroupedScheduler, configs()) | st.builds(PartitionScheduler, partition_configs())
    return made | st.builds(RefillScheduler, refill_configs())


def schedulers() -> st.SearchStrategy[Scheduler]:
    return static_schedulers() | st.builds(RefillScheduler, refill_configs())
