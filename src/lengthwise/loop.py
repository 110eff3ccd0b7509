"""The main loop: estimate → decide → start → record, with any predictor, scheduler and engine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from lengthwise.errors import EngineError, LengthwiseError, typed_line
from lengthwise.estimates import LengthEstimates
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.types import (
    Completion,
    Cut,
    Decision,
    ErrorInfo,
    Event,
    Failed,
    Finished,
    PredictedTokens,
    Preempt,
    Prepared,
    Progress,
    Request,
    RunningRequest,
    Start,
    View,
    WaitingRequest,
)

log = logging.getLogger("lengthwise")

POLL_TIMEOUT_S = 0.2  # how long progress may stand still, and how late a stop may come
INTAKE_CHUNK = 4096  # requests estimated together: enough for columns to pay, 1 MiB of curves


@dataclass(slots=True)
class Counts:
    """Where a run stands; read by progress displays, from any thread. Times in seconds."""

    num_requests: int = 0
    num_finished: int = 0
    num_failed: int = 0
    completion_tokens: int = 0
    recomputed_tokens: int = 0
    written_tokens: int = 0  # of answers that are not finished
    expected_tokens: float = 0.0  # of answers that are not finished, by their first estimates
    predict_s: float = 0.0

    @property
    def predicted_remaining_tokens(self) -> float:
        return max(0.0, self.expected_tokens - self.written_tokens)


@dataclass(slots=True)
class _Tracked:
    """A request between its intake and its end."""

    request: Request
    prepared: Prepared
    estimates: LengthEstimates  # of the whole chunk it came with
    row: int
    predicted: PredictedTokens | None  # None where nothing is known
    expected_tokens: float
    arrival_s: float
    tokens: tuple[int, ...] = ()
    num_cuts: int = 0
    recomputed_tokens: int = 0

    @property
    def waiting(self) -> WaitingRequest:
        return WaitingRequest(
            self.request.id,
            self.prepared.prompt_tokens,
            self.prepared.max_tokens,
            len(self.tokens),
            self.arrival_s,
            self.num_cuts,
        )

    def estimate_now(self) -> LengthEstimates:
        return self.estimates[self.row].given(len(self.tokens)).capped(self.prepared.max_tokens)


@dataclass
class Loop:
    """One pass over a stream of requests, whose ids differ and whose seeds are set. What can't be a request stands in
    the stream as the completion that says why.

    Every request is in `tracked` from its intake to its completion, and meanwhile in exactly one of `waiting` and
    `running`.
    """

    engine: Engine
    predictor: LengthPredictor
    scheduler: Scheduler
    source: Iterator[Request | Completion]
    counts: Counts
    is_stopped: Callable[[], bool]
    window: int | None = None  # read on when fewer wait, as many again; None: the whole source is read first
    clock: Callable[[], float] = time.monotonic
    tracked: dict[str, _Tracked] = field(default_factory=dict)
    waiting: dict[str, WaitingRequest] = field(default_factory=dict)
    running: dict[str, RunningRequest] = field(default_factory=dict)
    is_exhausted: bool = False

    def completions(self) -> Iterator[Completion]:
        while not self.is_stopped():
            yield from self._take_in()
            if not self.tracked:
                return
            for decision in self.scheduler.decide(self._view()):
                self._apply(decision)
            self._check_that_something_runs()
            yield from self._record(self._poll())

    def cancel_running(self) -> None:
        """Leave the engine empty: a later run must not meet this one's rows."""
        for name in self.running:
            self.engine.cancel(name)
        while self.running:
            events = self._poll()
            if not events and self.engine.capabilities.can_preempt:
                raise EngineError(f"The engine lost {len(self.running)} requests: cancelled, they were not reported.")
            for event in events:
                if not isinstance(event, Progress):
                    self.running.pop(event.id, None)

    # -- intake and estimates ----------------------------------------------------------------------------------

    def _take_in(self) -> Iterator[Completion]:
        """Read requests until the window is full, estimate them and hand them to the scheduler."""
        while not (self.is_exhausted or self.is_stopped()) and len(self.waiting) < (self.window or math.inf):
            chunk = list(islice(self.source, INTAKE_CHUNK if self.window is None else min(self.window, INTAKE_CHUNK)))
            self.is_exhausted = not chunk
            if chunk:
                yield from self._take_in_chunk(chunk)

    def _take_in_chunk(self, chunk: list[Request | Completion]) -> Iterator[Completion]:
        self.counts.num_requests += len(chunk)
        refused = [self._refused(item) for item in chunk if isinstance(item, Completion)]
        requests = [item for item in chunk if isinstance(item, Request)]
        admitted: list[tuple[Request, Prepared]] = []
        with _as_engine_error():
            all_prepared = self.engine.prepare(requests)
        for request, prepared in zip(requests, all_prepared, strict=True):
            if isinstance(prepared, ErrorInfo):
                refused.append(self._failed(request, prepared))
            else:
                admitted.append((request, prepared))
        if admitted:
            self._schedule_new(admitted)
        yield from refused

    def _schedule_new(self, admitted: list[tuple[Request, Prepared]]) -> None:
        requests = [request for request, _ in admitted]
        started_s = time.perf_counter()
        estimates = safe_predict(self.predictor, requests)
        capped = estimates.capped([prepared.max_tokens for _, prepared in admitted])
        p50, p90, mean = (column.tolist() for column in (capped.quantile(0.5), capped.quantile(0.9), capped.mean()))
        is_known = np.isfinite(estimates.median).tolist()
        self.counts.predict_s += time.perf_counter() - started_s
        now_s = self.clock()
        for row, (request, prepared) in enumerate(admitted):
            predicted = PredictedTokens(p50[row], p90[row]) if is_known[row] else None
            self.tracked[request.id] = _Tracked(request, prepared, estimates, row, predicted, mean[row], now_s)
            self.waiting[request.id] = self.tracked[request.id].waiting
        self.counts.expected_tokens += sum(mean)
        self.scheduler.add([self.waiting[request.id] for request in requests], capped)

    # -- decisions ---------------------------------------------------------------------------------------------

    def _view(self) -> View:
        capabilities = self.engine.capabilities
        reserved = sum(request.reserved_kv_tokens for request in self.running.values())
        free_rows = max(0, capabilities.max_running - len(self.running))
        return View(self.clock(), self.waiting, self.running, free_rows, capabilities.kv_tokens - reserved)

    def _apply(self, decision: Decision) -> None:
        if isinstance(decision, Preempt):
            self.engine.cancel(decision.id)
        else:
            self._start(decision)

    def _start(self, start: Start) -> None:
        waiting, tracked = self.waiting.pop(start.id), self.tracked[start.id]
        capabilities = self.engine.capabilities
        if tracked.tokens and (start.restart or not capabilities.can_continue):
            tracked.recomputed_tokens += len(tracked.tokens)
            self.counts.recomputed_tokens += len(tracked.tokens)
            self.counts.written_tokens -= len(tracked.tokens)
            tracked.tokens = ()
        cap = min(start.cap, waiting.max_tokens) if capabilities.can_cut else waiting.max_tokens
        assert cap > len(tracked.tokens), f"{start.id}: a cap of {cap} leaves nothing to write"
        with _as_engine_error():
            self.engine.start(tracked.request, tracked.tokens, cap, start.priority)
        self.running[start.id] = RunningRequest(start.id, waiting.prompt_tokens, cap, len(tracked.tokens), self.clock())

    def _check_that_something_runs(self) -> None:
        if self.waiting and not self.running:
            raise EngineError(
                f"{type(self.scheduler).__name__} starts nothing though {len(self.waiting)} requests wait and the "
                "engine is empty; a scheduler must start at least one."
            )

    # -- what the engine reports -------------------------------------------------------------------------------

    def _poll(self) -> list[Event]:
        with _as_engine_error():
            return self.engine.poll(POLL_TIMEOUT_S)

    def _record(self, events: Sequence[Event]) -> list[Completion]:
        """All that an engine reports at once is taken in at once: whoever leaves after the first answer must not
        leave the others half-recorded."""
        completions: list[Completion] = []
        cut: list[_Tracked] = []
        for event in events:
            if isinstance(event, Progress):
                self._note_tokens(self.running[event.id], event.num_tokens)
            elif isinstance(event, Cut):
                cut.append(self._put_back(event))
            else:
                completions.append(self._complete(event))
        if cut:
            rows = LengthEstimates.concatenate([tracked.estimate_now() for tracked in cut])
            self.scheduler.add([self.waiting[tracked.request.id] for tracked in cut], rows)
        return completions

    def _note_tokens(self, running: RunningRequest, num_tokens: int) -> None:
        self.counts.written_tokens += num_tokens - running.num_tokens
        running.num_tokens = num_tokens

    def _put_back(self, cut: Cut) -> _Tracked:
        running, tracked = self.running.pop(cut.id), self.tracked[cut.id]
        self._note_tokens(running, len(cut.tokens))
        tracked.tokens = cut.tokens
        tracked.num_cuts += 1
        self.waiting[cut.id] = tracked.waiting
        return tracked

    def _complete(self, event: Finished | Failed) -> Completion:
        self._note_tokens(self.running.pop(event.id), 0)
        tracked = self.tracked.pop(event.id)
        self.counts.expected_tokens -= tracked.expected_tokens
        if isinstance(event, Failed):
            return self._failed(tracked.request, event.error, tracked)
        completion = Completion(
            event.id,
            event.text,
            event.finish_reason,
            tracked.prepared.prompt_tokens,
            event.completion_tokens,
            tracked.recomputed_tokens,
            tracked.predicted,
            metadata=tracked.request.metadata,
            tokens=event.tokens,
        )
        self.counts.num_finished += 1
        self.counts.completion_tokens += event.completion_tokens
        safe_observe(self.predictor, tracked.request, completion)
        return completion

    def _refused(self, completion: Completion) -> Completion:
        self.counts.num_finished += 1
        self.counts.num_failed += 1
        return completion

    def _failed(self, request: Request, error: ErrorInfo, tracked: _Tracked | None = None) -> Completion:
        completion = Completion(
            request.id,
            "",
            "error",
            tracked.prepared.prompt_tokens if tracked else 0,
            recomputed_tokens=tracked.recomputed_tokens if tracked else 0,
            predicted=tracked.predicted if tracked else None,
            error=error,
            metadata=request.metadata,
        )
        return self._refused(completion)


def safe_predict(predictor: LengthPredictor, requests: Sequence[Request]) -> LengthEstimates:
    """Estimates, one row a request; "nothing is known" where a predictor fails: that costs time, never an answer."""
    try:
        estimates = predictor.predict(requests)
        if len(estimates) == len(requests):
            return estimates
        log.warning("%s gave %d estimates for %d requests; not used.", predictor, len(estimates), len(requests))
    except Exception:
        log.warning("%s failed; going on without estimates.", type(predictor).__name__, exc_info=True)
    return LengthEstimates.unknown(len(requests))


def safe_observe(predictor: LengthPredictor, request: Request, completion: Completion) -> None:
    """A predictor that fails to learn costs accuracy, never an answer."""
    try:
        predictor.observe([request], [completion])
    except Exception:
        log.warning("%s could not learn from %s; going on.", type(predictor).__name__, request.id, exc_info=True)


@contextmanager
def _as_engine_error() -> Iterator[None]:
    """Whatever breaks in an engine is an EngineError to those who drive it; its cause stands behind it."""
    try:
        yield
    except (LengthwiseError, AssertionError):
        raise
    except Exception as error:
        raise EngineError(f"The engine failed: {typed_line(error)}.") from error
