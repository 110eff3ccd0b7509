"""Contenders that answer the same requests with the same model, in turn, round after round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lengthwise.benchmarks.baseline import generate_in_batches
from lengthwise.engines.transformers.engine import TransformersEngine
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.protocols import LengthPredictor
from lengthwise.types import Request

BASELINE_BATCH = 16  # the paper's vanilla setting (benchmark section), and what most scripts do


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one contender. `computed_positions` counts a row in a decode step, whether its token was of use."""

    wall_s: float
    num_requests: int
    useful_tokens: int
    computed_positions: int
    recomputed_tokens: int
    predict_s: float
    num_errors: int
    lengths: Mapping[str, int] = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)

    @property
    def requests_per_s(self) -> float:
        return self.num_requests / self.wall_s

    @property
    def useful_share(self) -> float:
        """The paper's effective token ratio: real output tokens over computed decode positions."""
        return self.useful_tokens / max(1, self.computed_positions)


@dataclass(frozen=True, slots=True)
class Contender:
    """`run` answers all requests from their texts on: tokenisation and prediction are part of its time."""

    name: str
    title: str
    run: Callable[[Sequence[Request]], Sample]


@dataclass(frozen=True)
class Bench:
    """One model, one engine, one predictor, and the contenders that use them."""

    loaded: LoadedModel
    engine: TransformersEngine
    predictor: LengthPredictor
    max_tokens: int

    def contenders(self) -> dict[str, Contender]:
        size = self.engine.capabilities.max_running
        listed = [
            Contender("generate", f"model.generate, batches of {BASELINE_BATCH}, arrival order", self._generate),
            Contender("arrival", f"this engine, batches of {size}, arrival order", self._scheduled("arrival", "none")),
            Contender("paper", "this engine, the paper's scheduling", self._scheduled("paper", self.predictor)),
            Contender("grouped", f"this engine, sorted batches of {size}", self._scheduled("grouped", self.predictor)),
            Contender("refill_arrival", "default, knowing no lengths", self._scheduled("default", "none")),
            Contender("default", "default", self._scheduled("default", self.predictor)),
            Contender("oracle", "default, knowing true lengths", self._with_oracle()),
        ]
        return {contender.name: contender for contender in listed}

    def _generate(self, requests: Sequence[Request]) -> Sample:
        started_s = time.perf_counter()
        done = generate_in_batches(self.loaded, requests, BASELINE_BATCH, self.max_tokens)
        wall_s = time.perf_counter() - started_s
        lengths = {name: len(tokens) for name, tokens in done.tokens.items()}
        return Sample(wall_s, len(requests), sum(lengths.values()), done.num_row_steps, 0, 0.0, 0, lengths, done.texts)

    def _scheduled(self, scheduler: str, predictor: LengthPredictor | str) -> Callable[[Sequence[Request]], Sample]:
        return lambda requests: self._run(requests, scheduler, predictor)

    def _with_oracle(self) -> Callable[[Sequence[Request]], Sample]:
        """True lengths are those of a run in arrival order, which is not timed."""
        known: dict[str, int] = {}

        def run(requests: Sequence[Request]) -> Sample:
            if any(request.id not in known for request in requests):
                known.update(self._run(requests, "arrival", "none").lengths)
            return self._run(requests, "default", OraclePredictor(known))

        return run

    def _run(self, requests: Sequence[Request], scheduler: str, predictor: LengthPredictor | str) -> Sample:
        pipeline = Pipeline(engine=self.engine, predictor=predictor, scheduler=scheduler)
        steps_before = self.engine.num_row_steps
        started_s = time.perf_counter()
        answers = list(pipeline.stream(requests))
        wall_s = time.perf_counter() - started_s
        return Sample(
            wall_s,
            len(requests),
            pipeline.counts.completion_tokens,
            self.engine.num_row_steps - steps_before,
            pipeline.counts.recomputed_tokens,
            pipeline.counts.predict_s,
            pipeline.counts.num_failed,
            {answer.id: answer.completion_tokens for answer in answers},
            {answer.id: answer.text for answer in answers},
        )


def rounds(
    contenders: Sequence[Contender], requests: Sequence[Request], num_rounds: int
) -> Iterator[tuple[int, str, Sample]]:
    """Every contender once a round; each round begins with another one, so that drift falls on all alike. Every
    contender runs a few requests first, uncounted: the first pass through a model is slower."""
    for contender in contenders:
        contender.run(requests[: 2 * BASELINE_BATCH])
    for number in range(num_rounds):
        shift = number % len(contenders)
        for contender in [*contenders[shift:], *contenders[:shift]]:
            yield number, contender.name, contender.run(requests)
