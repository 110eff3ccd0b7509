"""Recorded lengths, replayed with a cost model: what each row's scheduling would have made of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.benchmarks.paper.replay import Recorded, replayed
from lengthwise.benchmarks.paper.rows import Known, Row
from lengthwise.benchmarks.paper.store import Store
from lengthwise.benchmarks.paper.summary import Sample, Sampled
from lengthwise.benchmarks.perception.cells import Cell, Source
from lengthwise.costs import StepCost
from lengthwise.errors import InputError, PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.seen import digests_of, num_seen
from lengthwise.learning.splits import folds, prompt_groups
from lengthwise.learning.training import TrainConfig, train
from lengthwise.predictors.saved import load_folder
from lengthwise.protocols import LengthPredictor
from lengthwise.simulation.workload import Ints

CHARACTERS_A_TOKEN = 4  # of prompts, whose tokens were not recorded; they count only where the cost of reading is given
NUM_FOLDS = 2  # of a set whose own other prompts are learned from
NEEDS_WEIGHTS = "It needs the weights of the model that answered: see the tables of a model that is really run."


@dataclass(frozen=True)
class ReplayConfig:
    """How lengths are replayed. `num_draws`: samples of prompts a seed, for intervals. `settings`: of predictors, by
    kind."""

    cost: StepCost = field(default_factory=StepCost)
    num_draws: int = 20
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _read(train: Source) -> LengthData:
    """Kept: several sets have one to learn from."""
    return train.read()


class RecordedLengths:
    """One set of recorded lengths, `test`, and what predictors learn from, `train`."""

    def __init__(self, store: Store, train: Source, test: Source, config: ReplayConfig) -> None:
        self.config = config
        self.num_left_out = 0  # known when the data was read
        self._store, self._train, self._test = store, train, test
        self._known: dict[tuple[Known, int], tuple[LengthEstimates, float]] = {}

    @cached_property
    def data(self) -> LengthData:
        """Prompts that are learned from are left out. Raises InputError where none is left."""
        read = self._test.read()
        learned = digests_of(_read(self._train).requests)
        is_new = [not num_seen(learned, [request]) for request in read.requests]
        if not any(is_new):
            raise InputError(f"All prompts of {read.name} stand in {self._train.name} too; give another set (--test).")
        self.num_left_out = len(read) - sum(is_new)
        return read[np.array(is_new)]

    @cached_property
    def recorded(self) -> Recorded:
        """Of each prompt the first sample that there is (the paper's benchmark: temperature 0)."""
        lengths = self.data.lengths
        first = (~np.isnan(lengths)).argmax(axis=1)
        answers = np.maximum(1, lengths[np.arange(len(lengths)), first]).astype(np.int64)
        prompts = [1 + len(request.text) // CHARACTERS_A_TOKEN for request in self.data.requests]
        longest = int(answers.max())
        limit = self.data.limit or 2 ** longest.bit_length()  # which then cuts nothing, and tells nothing
        return Recorded(np.array(prompts, np.int64), answers, limit)

    def sampled(self, row: Row, seeds: Sequence[int]) -> Sampled:
        """Raises PredictorError where a row can't be had of recorded lengths, or its predictor can't be trained."""
        if row.known.needs_model:
            raise PredictorError(NEEDS_WEIGHTS)
        found = [self._kept(row, seed) for seed in seeds]
        return Sampled(tuple(seeds), tuple(one["point"] for one in found), tuple(tuple(one["draws"]) for one in found))

    def _kept(self, row: Row, seed: int) -> dict[str, Any]:
        return self._store.once(f"recorded-{row.name}", self._key(row, seed), lambda: self._cell(row, seed))

    def _key(self, row: Row, seed: int) -> dict[str, Any]:
        kind = row.known.kind
        return {
            **row.to_json(),
            "seed": seed,
            "train": self._train.digest,
            "test": self._test.digest,
            "cost": self.config.cost.to_json(),
            "num_draws": self.config.num_draws,
            "settings": self.config.settings.get(kind, {}),
        }

    def _cell(self, row: Row, seed: int) -> dict[str, Any]:
        """The set in random order, and samples of its prompts, which are the same for all rows."""
        rng = np.random.default_rng(seed)
        num = len(self.recorded)
        point = self._sample(row, seed, rng.permutation(num))
        draws = [self._sample(row, seed, rng.integers(0, num, num)) for _ in range(self.config.num_draws)]
        return {"point": point, "draws": draws}

    def _sample(self, row: Row, seed: int, picked: Ints) -> Sample:
        estimates, predict_s = self._estimates(row.known, seed)
        taken = self.recorded.taken(picked)
        seconds, counts = replayed(row.way, taken, estimates[picked], self.config.cost)
        rate = len(taken) / (seconds + predict_s)
        return {"samples_per_s": rate, **counts.figures(), "predict_s": predict_s}

    def _estimates(self, known: Known, seed: int) -> tuple[LengthEstimates, float]:
        """Of all prompts, and the seconds that predicting took here."""
        if (known, seed) not in self._known:
            self._known[known, seed] = self._estimated(known, seed)
        return self._known[known, seed]

    def _estimated(self, known: Known, seed: int) -> tuple[LengthEstimates, float]:
        if known.kind == "none":
            return LengthEstimates.unknown(len(self.data)), 0.0
        if known == Known("oracle"):
            return LengthEstimates.certain(self.recorded.answer_tokens), 0.0
        if known.kind == "oracle":
            return LengthEstimates.certain(Target(known.target).summary()(self.data.lengths)), 0.0
        if known.kind == "text-own":
            return self._from_own(seed)
        predictor = self._predictor(known, seed)
        started_s = time.perf_counter()
        return predictor.predict(self.data.requests), time.perf_counter() - started_s

    def _predictor(self, known: Known, seed: int) -> LengthPredictor:
        settings = self.config.settings.get(known.kind, {})
        cell = Cell(known.kind, known.target, seed, self._train, self._train, settings)

        def save(folder: Path) -> None:
            learned: Any = train(
                known.kind, _read(self._train), Target(known.target), TrainConfig(seed=seed, settings=settings)
            )
            learned.save(folder)

        return load_folder(self._store.predictor(cell.name, save))

    def _from_own(self, seed: int) -> tuple[LengthEstimates, float]:
        """Each prompt foretold by a predictor that learned from others of this set."""
        order, parts, predict_s = [], [], 0.0
        for learned, held_out in folds(prompt_groups(self.data.requests), NUM_FOLDS, seed):
            predictor = train("text", self.data[learned], Target("answer"), TrainConfig(seed=seed))
            started_s = time.perf_counter()
            parts.append(predictor.predict(self.data[held_out].requests))
            predict_s += time.perf_counter() - started_s
            order.append(held_out)
        return LengthEstimates.concatenate(parts)[np.argsort(np.concatenate(order))], predict_s

    def to_json(self) -> dict[str, Any]:
        sets = {"train": self._train, "test": self._test}
        splits = {name: {"name": one.name, "sha256_of_content": one.digest} for name, one in sets.items()}
        return {
            **splits,
            "num_requests": len(self.data),
            "num_left_out": self.num_left_out,
            "max_tokens": self.recorded.max_tokens,
            "cost": self.config.cost.to_json(),
            "num_draws": self.config.num_draws,
            "predictor_settings": self.config.settings,
        }
