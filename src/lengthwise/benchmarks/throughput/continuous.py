"""The continuous batching of `transformers`: as it comes, and with the best of a few settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from lengthwise.benchmarks.throughput.contender import Contender
from lengthwise.benchmarks.throughput.sample import Sample
from lengthwise.benchmarks.throughput.workload import Setup
from lengthwise.errors import EngineError, typed_line
from lengthwise.types import Request

# Tried in the warm-up: tokens of a pass, in pages that waste little of the budget. A pass holds a token of each row.
TRIED = tuple({"page_size": 32, "max_batch_tokens": tokens} for tokens in (32, 64, 128, 256))
TRIED_QUICKLY = TRIED[1::2]

_START_S = 120.0  # until its cache is there: with a size that is given it takes far less than a second
_POLL_S = 1.0
_NO_TOKEN = -1  # as end of sequence: nothing ends an answer but its length

Settings = Mapping[str, int]


class ContinuousBatching(Contender):
    """First come, first served, by its own scheduler, in the budget's pages. Its manager starts before the clock does.

    `tried`: settings of which the warm-up takes the fastest; none: as it comes."""

    def __init__(self, name: str, title: str, setup: Setup, tried: Sequence[Settings] = ()) -> None:
        super().__init__(name, title)
        self._setup = setup
        self._tried = tried
        self._settings: Settings = {}
        self._rates: dict[str, float] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        config = self._config()
        chosen = {"page_size": config.page_size, "num_blocks": config.num_blocks, **self._settings}
        return {**chosen, "requests_per_s_when_tried": self._rates} if self._tried else chosen

    def warm_up(self, requests: Sequence[Request]) -> None:
        self.run(requests)
        rates: dict[str, float] = {}
        for settings in self._tried:
            self._settings = settings
            rates[str(dict(settings))] = round(self.run(requests).requests_per_s, 3)
        if rates:
            self._rates, best = rates, max(rates, key=lambda name: rates[name])
            self._settings = next(settings for settings in self._tried if str(dict(settings)) == best)

    def run(self, requests: Sequence[Request]) -> Sample:
        with self._manager() as manager:
            started_s = time.perf_counter()
            self._add(manager, requests)
            results = self._results(manager, len(requests))
            answers = {name: result.generated_tokens for name, result in results.items() if result.error is None}
            texts = {name: self._setup.text(tokens) for name, tokens in answers.items()}
            wall_s = time.perf_counter() - started_s
        lengths = {name: len(tokens) for name, tokens in answers.items()}
        spans = [tuple(moment - started_s for moment in results[name].lifespan) for name in answers]
        return Sample(
            wall_s,
            lengths,
            texts,
            recomputed_tokens=None,
            num_put_back=None,
            num_errors=len(requests) - len(answers),
            spans=spans,
        )

    def _config(self) -> Any:
        config = ContinuousBatchingConfig(**self._settings)
        config.num_blocks = self._setup.num_pages(config.page_size)
        return config

    @contextmanager
    def _manager(self) -> Iterator[Any]:
        """One that is ready. It takes hold of the model's attention, and gives it back."""
        loaded = self._setup.loaded
        eos = list(loaded.eos_token_ids) if self._setup.workload.lengths is None else []
        config = GenerationConfig(
            do_sample=False, max_new_tokens=self._setup.workload.max_tokens, eos_token_id=eos or _NO_TOKEN
        )
        try:
            with loaded.model.continuous_batching_context_manager(
                generation_config=config, continuous_batching_config=self._config(), warmup=True
            ) as manager:
                deadline_s = time.monotonic() + _START_S
                while manager.batch_processor is None and manager.is_running() and time.monotonic() < deadline_s:
                    time.sleep(0.01)
                yield manager
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"Continuous batching failed: {typed_line(error)}.") from error

    def _add(self, manager: Any, requests: Sequence[Request]) -> None:
        """In order of arrival, each with its own length where it is recorded."""
        workload = self._setup.workload
        for request, prompt in zip(requests, self._setup.encoded(requests), strict=True):
            length = workload.max_tokens if workload.lengths is None else workload.lengths[request.id]
            manager.add_request(prompt, request_id=request.id, max_new_tokens=length)

    def _results(self, manager: Any, num: int) -> dict[str, Any]:
        results: dict[str, Any] = {}
        while len(results) < num:
            result = manager.get_result(timeout=_POLL_S)
            if result is not None and result.is_finished():
                results[result.request_id] = result
            elif result is None and not manager.is_running():
                raise EngineError(f"Continuous batching ended with {num - len(results)} of {num} requests unanswered.")
        return results
