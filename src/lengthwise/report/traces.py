"""How many requests ran at each time: noted by whoever asks a scheduler, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.estimates import LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.report.scales import Doubles
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import policy
from lengthwise.simulation.simulator import Outcome, simulate
from lengthwise.simulation.workload import Workload
from lengthwise.types import Decision, Start, View, WaitingRequest

MAX_POINTS = 20_000  # kept of a timeline; beyond these every second one is forgotten, and no slot-second is lost


class Timeline:
    """A number over time. What is kept are slot-seconds so far, so means over any stretch stay right."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._areas: list[float] = []
        self._num = 0

    def note(self, now_s: float, num: int) -> None:
        """From now on it is `num`. Times never fall."""
        if not self._times_s:
            self._times_s, self._areas = [now_s], [0.0]
        elif now_s > self._times_s[-1]:
            self._areas.append(self._areas[-1] + self._num * (now_s - self._times_s[-1]))
            self._times_s.append(now_s)
            if len(self._times_s) > MAX_POINTS:
                self._thin()
        self._num = num

    def _thin(self) -> None:
        for points in (self._times_s, self._areas):
            points[:] = [*points[:-1:2], points[-1]]

    @property
    def is_begun(self) -> bool:
        return bool(self._times_s)

    @property
    def start_s(self) -> float:
        return self._times_s[0] if self._times_s else 0.0

    @property
    def span_s(self) -> float:
        return self._times_s[-1] - self._times_s[0] if self._times_s else 0.0

    def idle_share(self, num_slots: int) -> float:
        """Of so many slots, from the first time to the last."""
        whole = num_slots * self.span_s
        return 1 - self._areas[-1] / whole if whole > 0 else 0.0

    def means(self, num: int) -> tuple[Doubles, Doubles]:
        """Ends of `num` equal stretches (num + 1, seconds since the start) and the mean in each (num). All 0 where
        nothing lasted."""
        edges = np.linspace(0.0, self.span_s, num + 1)
        if self.span_s <= 0:
            return edges, np.zeros(num)
        areas = np.interp(edges, np.array(self._times_s) - self.start_s, self._areas)
        return edges, np.diff(areas) / np.diff(edges)


class WatchedScheduler:
    """Decides as another one does, and notes how many run then: a scheduler is asked whenever that changes."""

    def __init__(self, scheduler: Scheduler, timeline: Timeline) -> None:
        self._scheduler, self._timeline = scheduler, timeline

    def add(self, requests: Sequence[WaitingRequest], estimates: LengthEstimates) -> None:
        self._scheduler.add(requests, estimates)

    def remove(self, request_ids: Iterable[str]) -> None:
        self._scheduler.remove(request_ids)

    def decide(self, view: View) -> list[Decision]:
        num_before, now_s = len(view.running), view.now_s
        decisions = self._scheduler.decide(view)
        changes = sum(1 if isinstance(decision, Start) else -1 for decision in decisions)
        self._timeline.note(now_s, num_before + changes)
        return decisions


@dataclass(frozen=True, eq=False)
class Trace:
    """One simulated run in full."""

    outcome: Outcome
    timeline: Timeline


def traced(name: str, workload: Workload, estimates: LengthEstimates, engine: EngineModel) -> Trace:
    """A policy on one workload, by its name, as a study runs it."""
    chosen = policy(name)
    model = chosen.on(engine)
    timeline = Timeline()
    timeline.note(float(workload.arrival_s[0]), 0)
    outcome = simulate(workload, estimates, WatchedScheduler(chosen.make(model), timeline), model)
    timeline.note(float(outcome.end_s.max()), 0)
    return Trace(outcome, timeline)
