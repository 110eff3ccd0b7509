"""This package's engines, with a note of when each row ran, and with lengths that are given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from lengthwise.benchmarks.throughput.generating import endless
from lengthwise.benchmarks.throughput.sample import Span, batch_spans
from lengthwise.benchmarks.throughput.workload import Setup, Workload
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine
from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.types import Cut, ErrorInfo, Event, Failed, Finished, Prepared, Request


class RecordedPrompts(Prompts):
    """Each answer has as many tokens as recorded. Whoever schedules is told the common limit, and not that length."""

    def __init__(self, loaded: LoadedModel, workload: Workload) -> None:
        super().__init__(loaded, workload.max_tokens)
        assert workload.lengths is not None, "lengths are recorded"
        self._limit, self._lengths = workload.max_tokens, workload.lengths

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        found = super().prepare(requests)
        return [replace(one, max_tokens=self._limit) if isinstance(one, Prepared) else one for one in found]

    def max_tokens(self, request: Request, prompt_tokens: int) -> int:
        return min(super().max_tokens(request, prompt_tokens), self._lengths[request.id])


class Watch:
    """When rows ran (moments of `time.perf_counter`), and how many were put back."""

    def __init__(self, max_tokens: int) -> None:
        self.spans: list[Span] = []
        self.num_put_back = 0
        self._max_tokens = max_tokens
        self._started: dict[str, tuple[float, int]] = {}

    def start(self, request_id: str, num_tokens: int) -> None:
        self._started[request_id] = (time.perf_counter(), num_tokens)

    def seen(self, events: Sequence[Event], *, is_batch: bool = False) -> list[Event]:
        """Events, noted. `is_batch`: they end rows of one batch, which had ended at their own steps. A recorded length
        is where the model would have ended, though the engine knows it as a limit."""
        ended = [event for event in events if isinstance(event, Cut | Finished | Failed)]
        now_s = time.perf_counter()
        if is_batch and ended:
            new_tokens = [max(1, num_tokens(event) - self._started[event.id][1]) for event in ended]
            begun_s = min(self._started[event.id][0] for event in ended)
            self.spans += batch_spans(begun_s, now_s, new_tokens, max(new_tokens))
        else:
            self.spans += [(self._started[event.id][0], now_s) for event in ended]
        self.num_put_back += sum(isinstance(event, Cut) and event.reason != "cancelled" for event in ended)
        return [self._as_ended(event) for event in events]

    def _as_ended(self, event: Event) -> Event:
        if isinstance(event, Finished) and event.completion_tokens < self._max_tokens:
            return replace(event, finish_reason="stop")
        return event


def num_tokens(event: Cut | Finished | Failed) -> int:
    return 0 if isinstance(event, Failed) else len(event.tokens)


class WatchedRows(TransformersEngine):
    """The engine for rows of their own length. `watch` notes what it does."""

    def __init__(self, setup: Setup, max_rows: int) -> None:
        config = RowEngineConfig(max_running=max_rows, kv_tokens=setup.kv_tokens)
        super().__init__(_loaded(setup), _prompts(setup), config)
        self.watch = Watch(setup.workload.max_tokens)

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        self.watch.start(request.id, len(tokens_so_far))
        super().start(request, tokens_so_far, cap, priority)

    def poll(self, timeout_s: float) -> list[Event]:
        return self.watch.seen(super().poll(timeout_s))


class WatchedGenerate(GenerateEngine):
    """`model.generate` behind this package's schedulers."""

    def __init__(self, setup: Setup, max_rows: int) -> None:
        super().__init__(_loaded(setup), _prompts(setup), max_rows, setup.kv_tokens)
        self.watch = Watch(setup.workload.max_tokens)

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        self.watch.start(request.id, len(tokens_so_far))
        super().start(request, tokens_so_far, cap, priority)

    def poll(self, timeout_s: float) -> list[Event]:
        return self.watch.seen(super().poll(timeout_s), is_batch=True)


WatchedEngine = WatchedRows | WatchedGenerate


def _loaded(setup: Setup) -> LoadedModel:
    return setup.loaded if setup.workload.lengths is None else endless(setup.loaded)


def _prompts(setup: Setup) -> Prompts:
    if setup.workload.lengths is None:
        return Prompts(setup.loaded, setup.workload.max_tokens)
    return RecordedPrompts(setup.loaded, setup.workload)
