"""A model that is really run: its lengths are collected, predictors learn from them, and each row is answered anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.benchmarks.paper.counting import counted
from lengthwise.benchmarks.paper.pace import NUM_REQUESTS, Pace
from lengthwise.benchmarks.paper.rows import BASE, Known, Row
from lengthwise.benchmarks.paper.store import Store
from lengthwise.benchmarks.paper.summary import PACE, Sampled
from lengthwise.benchmarks.paper.ways import LARGEST_BATCH
from lengthwise.benchmarks.perception.cells import Cell, Source
from lengthwise.benchmarks.perception.facts import facts
from lengthwise.engines.transformers.open import OpenedRowEngine
from lengthwise.errors import EngineError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.splits import split
from lengthwise.learning.training import TrainConfig, train
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.saved import load_folder, load_predictor
from lengthwise.protocols import LengthPredictor, Scheduler
from lengthwise.scheduling.named import refill
from lengthwise.types import Completion, Request, SamplingParams

log = logging.getLogger("lengthwise")

SEED = 42  # of the split, and of sampled answers: the paper's


@dataclass(frozen=True)
class RunConfig:
    """How a model is run. `temperatures`: of the samples that are learned from. `settings`: of predictors, by kind.
    Raises UsageError on a value out of range."""

    max_tokens: int = 512  # of an answer; the engine's own limit
    temperatures: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    held_out_share: float = 0.4  # of the prompts: they are scheduled; from the others is learned
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not self.temperatures:
            raise UsageError(f"max_tokens is {self.max_tokens}; an answer has 1 token or more.")
        if not 0 < self.held_out_share < 1:
            raise UsageError(f"held_out_share is {self.held_out_share}; it must lie between 0 and 1.")


class RealRuns:
    """One model on one engine, and prompts that leave room for an answer; their ids must differ. `model_name` is how it
    was opened. Raises UsageError where there are too few prompts to be split."""

    def __init__(
        self, store: Store, engine: OpenedRowEngine, requests: Sequence[Request], model_name: str, config: RunConfig
    ) -> None:
        if engine.capabilities.max_running < LARGEST_BATCH:
            log.info(
                "The engine takes %d rows at once; the paper's table has batches of up to %d.",
                engine.capabilities.max_running,
                LARGEST_BATCH,
            )
        self.config, self.model_name = config, model_name
        self._store, self._engine = store, engine
        self._learned, self._held_out = _split(requests, config.held_out_share)
        self._predictors: dict[tuple[Known, int], LengthPredictor] = {}
        beside = self._held_out[:NUM_REQUESTS]
        self._pace = Pace(len(beside), lambda: self._answers(beside, BASE.way.scheduler(), None))

    def sampled(self, row: Row, seeds: Sequence[int]) -> Sampled:
        """One run a seed. Raises PredictorError where a predictor can't be had of this model, EngineError where an
        answer was not delivered."""
        points = tuple(self._kept(row, seed) for seed in seeds)
        return Sampled(tuple(seeds), points, tuple(() for _ in seeds))

    def _kept(self, row: Row, seed: int) -> dict[str, Any]:
        return self._store.once(f"run-{row.name}", self._key(row, seed), lambda: self._run(row, seed))

    def _key(self, row: Row, seed: int) -> dict[str, Any]:
        """Seconds depend on the machine, too."""
        return {
            **row.to_json(),
            "seed": seed,
            "model": self._engine.model,
            "learned": self.learned.digest,
            "held_out": self.held_out.digest,
            "settings": dict(self.config.settings.get(row.known.kind, {})),
            "max_tokens": self.config.max_tokens,
            "machine": facts()["machine"],
            "max_rows": self._engine.capabilities.max_running,
            "beside": NUM_REQUESTS,
        }

    # -- lengths -----------------------------------------------------------------------------------------------

    @cached_property
    def learned(self) -> Source:
        """Several answers a prompt."""
        return self._collected("learned", self._learned)

    @cached_property
    def held_out(self) -> Source:
        """The same of those that are scheduled; ground truth is the longest, as in the paper."""
        return self._collected("held-out", self._held_out)

    def _collected(self, name: str, requests: Sequence[Request]) -> Source:
        depends_on = {
            "model": self._engine.model,
            "prompts": [request.prompt for request in requests],
            "max_tokens": self.config.max_tokens,
            "temperatures": self.config.temperatures,
        }
        file = self._store.lengths_file(name, depends_on, lambda: self._lengths(name, requests))
        return Source.of(str(file), None, self.config.max_tokens)

    def _lengths(self, name: str, requests: Sequence[Request]) -> list[dict[str, Any]]:
        lengths: list[list[int]] = [[] for _ in requests]
        for temperature in self.config.temperatures:
            log.info("%s: %d answers at temperature %g", name, len(requests), temperature)
            asked = [Request(str(row), one.prompt, _sampling(temperature, row)) for row, one in enumerate(requests)]
            for answer in self._answers(asked, refill(), None):
                lengths[int(answer.id)].append(answer.completion_tokens)
        return [{**_prompt(one), "id": one.id, "length": lengths[row]} for row, one in enumerate(requests)]

    # -- predictors --------------------------------------------------------------------------------------------

    def _predictor(self, known: Known, seed: int) -> LengthPredictor | None:
        """None where nothing is known."""
        if known.kind == "none":
            return None
        if known.kind == "oracle":
            return _Said(self._held_out, self._truth(known))
        if known.kind == "po":  # as the paper asks: nothing is learned
            return load_predictor("po", self._engine.backbone())
        if (known, seed) not in self._predictors:
            self._predictors[known, seed] = self._trained(known, seed)
        return self._predictors[known, seed]

    def _truth(self, known: Known) -> LengthEstimates:
        lengths = self.held_out.read().lengths
        return LengthEstimates.certain(lengths[:, 0] if known.target == "answer" else lengths.max(axis=1))

    def _trained(self, known: Known, seed: int) -> LengthPredictor:
        settings = self.config.settings.get(known.kind, {})
        model = self._engine.model
        cell = Cell(known.kind, known.target, seed, self.learned, self.learned, settings, model, self.model_name)
        backbone = self._engine.backbone()

        def save(folder: Path) -> None:
            log.info("training %s", cell.name)
            config = TrainConfig(seed=seed, model=model, backbone=backbone, settings=settings)
            learned: Any = train(known.kind, self.learned.read(), Target(known.target), config)
            learned.save(folder)

        return load_folder(self._store.predictor(cell.name, save), backbone)

    # -- runs --------------------------------------------------------------------------------------------------

    def _run(self, row: Row, seed: int) -> dict[str, Any]:
        """All held-out requests, in the seed's order, greedily. What predicting takes is part of the time."""
        predictor = self._predictor(row.known, seed)
        if not self._pace.is_known():
            self._pace.measured()
        order = np.random.default_rng(seed).permutation(len(self._held_out))
        requests = [self._held_out[place] for place in order]
        scheduler = row.way.scheduler()
        started_s = time.perf_counter()
        said = None if predictor is None else _Said(requests, predictor.predict(requests))
        predict_s = 0.0 if predictor is None else time.perf_counter() - started_s
        answers = self._answers(requests, scheduler, said)
        wall_s = time.perf_counter() - started_s
        counts = counted(scheduler.batches, {answer.id: answer.completion_tokens for answer in answers})
        seconds = {"samples_per_s": len(requests) / wall_s, PACE: self._pace.measured(), "predict_s": predict_s}
        return {**seconds, **counts.figures()}

    def _answers(
        self, requests: Sequence[Request], scheduler: Scheduler, predictor: LengthPredictor | None
    ) -> list[Completion]:
        pipeline = Pipeline(engine=self._engine, predictor=predictor or "none", scheduler=scheduler)
        answers = list(pipeline.stream(requests))
        failed = [answer.error.message for answer in answers if answer.error is not None]
        if failed:
            raise EngineError(f"{len(failed)} of {len(answers)} requests were not answered: {failed[0]}")
        return answers

    def to_json(self) -> dict[str, Any]:
        sets = {"train": self.learned, "test": self.held_out}
        splits = {name: {"name": name, "sha256_of_content": one.digest} for name, one in sets.items()}
        return {
            **splits,
            "model": self._engine.model,
            "num_learned": len(self._learned),
            "num_requests": len(self._held_out),
            "max_tokens": self.config.max_tokens,
            "temperatures": list(self.config.temperatures),
            "split_seed": SEED,
            "max_rows": self._engine.capabilities.max_running,
            "predictor_settings": {kind: dict(table) for kind, table in self.config.settings.items()},
        }


class _Said:
    """What is known of some requests, said before any of them starts: so the prompts are read beforehand, as the paper
    does."""

    model: str | None = None

    def __init__(self, requests: Sequence[Request], estimates: LengthEstimates) -> None:
        self._rows = {request.id: row for row, request in enumerate(requests)}
        self._estimates = estimates

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return self._estimates[[self._rows[request.id] for request in requests]]

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing."""


def _split(requests: Sequence[Request], share: float) -> tuple[list[Request], list[Request]]:
    """To learn from, and to schedule: prompts that are nearly the same stand on one side."""
    nothing = np.zeros((len(requests), 1), bool)
    learned, held_out = split(LengthData(tuple(requests), nothing + 1.0, nothing), share, SEED)
    return [requests[row] for row in learned], [requests[row] for row in held_out]


def _sampling(temperature: float, row: int) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=SEED + row)


def _prompt(request: Request) -> dict[str, Any]:
    if isinstance(request.prompt, str):
        return {"prompt": request.prompt}
    return {"messages": [dict(message) for message in request.prompt]}
