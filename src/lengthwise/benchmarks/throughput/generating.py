"""`model.generate` in static batches, in arrival order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from lengthwise.benchmarks.baseline import generate, writing_on
from lengthwise.benchmarks.throughput.contender import Contender
from lengthwise.benchmarks.throughput.sample import Sample, Span, batch_spans
from lengthwise.benchmarks.throughput.workload import Setup, Tokens
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.types import Request


def endless(loaded: LoadedModel) -> LoadedModel:
    """The same model, for which no token ends an answer."""
    return replace(loaded, eos_token_ids=())


@dataclass
class Tally:
    """What batches wrote, and when they ran (seconds since the run began)."""

    setup: Setup
    started_s: float = field(default_factory=time.perf_counter)
    lengths: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    num_positions: int = 0

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self.started_s

    def add(self, batch: Sequence[Request], rows: Sequence[Sequence[int]], started_s: float) -> None:
        """New tokens of each row, what was computed behind its end included."""
        ended_s = self.now_s
        own = [self._own(request, row) for request, row in zip(batch, rows, strict=True)]
        steps = max(map(len, rows))
        self.num_positions += steps * len(rows)
        self.spans += batch_spans(started_s, ended_s, [len(tokens) for tokens in own], steps)
        for request, tokens in zip(batch, own, strict=True):
            self.lengths[request.id] = len(tokens)
            self.texts[request.id] = self.setup.text(tokens)

    def sample(self) -> Sample:
        return Sample(self.now_s, self.lengths, self.texts, self.num_positions, spans=self.spans)

    def _own(self, request: Request, row: Sequence[int]) -> Tokens:
        return self.setup.workload.own_tokens(request, row, self.setup.loaded.eos_token_ids)


class Generate(Contender):
    """`finds_end` False: every batch runs to the limit, as where nobody looks for the ends (the paper's worst case)."""

    def __init__(self, name: str, title: str, setup: Setup, *, finds_end: bool = True) -> None:
        super().__init__(name, title)
        self._setup = setup
        self._finds_end = finds_end

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"batch_size": self._setup.batch_rows}

    def run(self, requests: Sequence[Request]) -> Sample:
        setup, tally = self._setup, Tally(self._setup)
        is_endless = not self._finds_end or setup.workload.lengths is not None
        loaded = endless(setup.loaded) if is_endless else setup.loaded
        with self._ends(is_endless):
            for batch in batches(requests, setup.batch_rows):
                started_s = tally.now_s
                prompts = [loaded.encode_prompt(request) for request in batch]
                steps = setup.workload.longest(batch) if self._finds_end else setup.workload.max_tokens
                tally.add(batch, generate(loaded, prompts, steps), started_s)
        return tally.sample()

    def _ends(self, is_endless: bool) -> AbstractContextManager[None]:
        return writing_on(self._setup.loaded) if is_endless else nullcontext()


def batches(requests: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    for first in range(0, len(requests), size):
        yield requests[first : first + size]
