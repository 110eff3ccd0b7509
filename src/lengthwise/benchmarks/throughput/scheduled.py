"""This package's own ways: one engine, with different schedulers, predictors and numbers of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from lengthwise.benchmarks.baseline import writing_on
from lengthwise.benchmarks.throughput.contender import Contender
from lengthwise.benchmarks.throughput.engines import WatchedEngine, WatchedGenerate, WatchedRows
from lengthwise.benchmarks.throughput.sample import Sample
from lengthwise.benchmarks.throughput.workload import Setup
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import LengthPredictor, Scheduler
from lengthwise.scheduling import named
from lengthwise.types import Capabilities, Completion, Request

MakePredictor = Callable[[Sequence[Request]], LengthPredictor]  # a fresh one for each run: some learn from a run's end,
# and would know the answers of the next
MakeScheduler = Callable[[Capabilities], Scheduler]


def knowing_nothing(requests: Sequence[Request]) -> LengthPredictor:
    return UnknownPredictor()


def default_scheduler(capabilities: Capabilities) -> Scheduler:
    return named.make("default", capabilities)


def paper_scheduler(capabilities: Capabilities) -> Scheduler:
    return named.make("paper", capabilities)


def whole_limits(capabilities: Capabilities) -> Scheduler:
    """Refilled, but every row reserves its limit."""
    return named.refill()


class Scheduled(Contender):
    """A scheduler with a predictor, on an engine that is opened before the clock starts and closed behind it."""

    def __init__(
        self,
        name: str,
        title: str,
        setup: Setup,
        predictor: MakePredictor = knowing_nothing,
        scheduler: MakeScheduler = default_scheduler,
        max_rows: int | None = None,
        *,
        generates: bool = False,
    ) -> None:
        """`max_rows`: None for as many as are free to choose. `generates`: by `model.generate`."""
        super().__init__(name, title)
        self._setup = setup
        self._predictor = predictor
        self._scheduler = scheduler
        self._max_rows = max_rows or setup.max_rows
        self._engine: type[WatchedRows] | type[WatchedGenerate] = WatchedGenerate if generates else WatchedRows

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"max_rows": self._max_rows}

    def run(self, requests: Sequence[Request]) -> Sample:
        predictor = self._predictor(requests)
        is_recorded = self._setup.workload.lengths is not None
        with writing_on(self._setup.loaded) if is_recorded else nullcontext():
            engine = self._engine(self._setup, self._max_rows)
            scheduler = self._scheduler(engine.capabilities)
            with Pipeline(engine=engine, predictor=predictor, scheduler=scheduler) as pipeline:
                started_s = time.perf_counter()
                answers = list(pipeline.stream(requests))
                return _sample(engine, pipeline, answers, started_s, time.perf_counter())


class TrueLengths:
    """Makes the oracle: recorded lengths, else those of a run that is not timed."""

    def __init__(self, setup: Setup) -> None:
        self._known: Mapping[str, int] = setup.workload.lengths or {}
        self._untimed = Scheduled("", "", setup)

    def __call__(self, requests: Sequence[Request]) -> LengthPredictor:
        if not all(request.id in self._known for request in requests):
            self._known = self._untimed.run(requests).lengths
        return OraclePredictor(self._known)


def _sample(
    engine: WatchedEngine, pipeline: Pipeline, answers: Sequence[Completion], started_s: float, ended_s: float
) -> Sample:
    done = [answer for answer in answers if answer.error is None]
    return Sample(
        ended_s - started_s,
        {answer.id: answer.completion_tokens for answer in done},
        {answer.id: answer.text for answer in done},
        engine.num_row_steps,
        pipeline.counts.recomputed_tokens,
        pipeline.counts.predict_s,
        engine.watch.num_put_back,
        len(answers) - len(done),
        [(start - started_s, end - started_s) for start, end in engine.watch.spans],
    )
