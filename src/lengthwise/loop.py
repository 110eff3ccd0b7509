"""The main loop: estimate → decide → start → record, with any predictor, scheduler and engine."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType

import numpy as np

from lengthwise.errors import EngineError, LengthwiseError, UsageError, shown, typed_line
from lengthwise.estimates import LengthEstimates
from lengthwise.feeds import Feed as Feed
from lengthwise.feeds import ThreadedFeed as ThreadedFeed
from lengthwise.predictors.cold_start.lessons import Lessons
from lengthwise.predictors.safely import safe_observe, safe_predict, safe_revise, safe_revise_running
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.types import (
    Capabilities,
    Completion,
    Cut,
    ErrorInfo,
    Event,
    Failed,
    Finished,
    PredictedTokens,
    Prepared,
    Progress,
    PromptRead,
    Request,
    RunningRequest,
    Start,
    View,
    WaitingRequest,
)

POLL_TIMEOUT_S = 0.2  # how long progress may stand still, and how late a stop may come
MAX_LATENESS_S = 0.004  # how long who comes may stand at the door of an engine that has room
MAX_SILENCE_S = 60.0  # of an engine that was told to let its rows go: what writes on to its end reports sooner
CANCELLED = ErrorInfo("cancelled", "The request was cancelled before its answer was complete; run it again.")
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
    expected_tokens: float = 0.0  # of answers that are not finished, as estimated when their prompts were read
    predict_s: float = 0.0

    @property
    def predicted_remaining_tokens(self) -> float:
        return max(0.0, self.expected_tokens - self.written_tokens)


@dataclass(slots=True)
class Control:
    """What is asked of a run while it goes on; set from any thread or signal handler, seen at the run's next step.

    `is_stopped`: end, and cancel what runs. `is_draining`: start nothing new, and finish what was begun.
    `cancelled_ids`: requests that shall end now; those that are not in the run are passed over.
    """

    is_stopped: bool = False
    is_draining: bool = False
    cancelled_ids: deque[str] = field(default_factory=deque)


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
    """One pass over a feed of requests whose seeds are set where noise is drawn. What can't be a request stands in the
    feed as the completion that says why.

    Every request is in `tracked` from its intake to its completion, and meanwhile in exactly one of `waiting` and
    `running`. With a window memory does not grow with the number of requests; so ids must differ among those in flight
    only. Raises UsageError on a doubled id.
    """

    engine: Engine
    predictor: LengthPredictor
    scheduler: Scheduler
    feed: Feed[Request | Completion]
    counts: Counts
    control: Control
    window: int | None = None  # read on when fewer wait (or fewer than the engine runs at once), as many again; None:
    # the whole feed is read first
    clock: Callable[[], float] = time.monotonic
    tracked: dict[str, _Tracked] = field(default_factory=dict)
    waiting: dict[str, WaitingRequest] = field(default_factory=dict)
    running: dict[str, RunningRequest] = field(default_factory=dict)
    reserved_kv_tokens: int = 0  # of all that run
    ids: set[str] = field(default_factory=set)  # in flight; without a window all that were read
    cancelled: set[str] = field(default_factory=set)  # what runs and shall end
    held_back: dict[str, None] = field(default_factory=dict)  # waits, and comes into the scheduler's order later
    is_exhausted: bool = False
    feed_error: Exception | None = None  # what ended the feed; raised when all before it is answered
    lessons: Lessons = field(init=False)

    def __post_init__(self) -> None:
        self.lessons = Lessons(self.predictor)

    def completions(self) -> Iterator[Completion]:
        while not (self.control.is_stopped or self.is_done):
            yield from self._take_in()
            if not self.control.is_stopped:  # perhaps it is by now, by the caller between two of these answers
                yield from self._step()
        if self.feed_error is not None:
            raise self.feed_error

    @property
    def is_done(self) -> bool:
        """Nothing is left to read or to answer."""
        return self.is_exhausted and not self.tracked

    def _step(self) -> list[Completion]:
        """What ended: as it was asked to, or else by the engine's next work."""
        ended = self._cancel_as_asked()
        self._drop_the_unbegun_if_draining()
        if ended or not self.tracked:
            return ended
        self._order_next()
        self._decide()
        events = self._poll()
        completions = self._record(events)
        self._learn(events)
        return completions

    def cancel_running(self) -> None:
        """Leave the engine empty: a later run must not meet this one's rows. Raises EngineError if it loses them."""
        for name in self.running:
            self._cancel(name)
        may_be_silent_s = 0.0 if self.engine.capabilities.can_preempt else MAX_SILENCE_S
        heard_s = time.monotonic()
        while self.running:
            events = self._poll()
            if events:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s >= may_be_silent_s:
                raise EngineError(f"The engine lost {len(self.running)} requests: cancelled, they were not reported.")
            for event in events:
                if not isinstance(event, (Progress, PromptRead)):
                    self.running.pop(event.id, None)

    def _cancel(self, request_id: str) -> None:
        with _AS_ENGINE_ERROR:
            self.engine.cancel(request_id)

    # -- intake and estimates ----------------------------------------------------------------------------------

    def _take_in(self) -> Iterator[Completion]:
        """Read requests until enough wait, estimate them and hand them to the scheduler. Waits for the feed only while
        there is nothing else to do."""
        num_wanted = self._num_wanted
        while len(self.waiting) < num_wanted and self._reads_on:
            chunk = self._take(min(num_wanted, INTAKE_CHUNK))
            if chunk:
                yield from self._take_in_chunk(chunk)
            elif self.window is not None:
                return

    def _take(self, num: int) -> Sequence[Request | Completion]:
        """What comes next; nothing when the feed has ended, or has nothing at hand."""
        try:
            chunk = self.feed.take(num, may_wait=self.window is None or not self.tracked)
        except Exception as error:
            self._end_feed(error)
            return ()
        if chunk is None:
            self._end_feed()
            return ()
        return self._up_to_a_doubled_id(chunk)

    def _up_to_a_doubled_id(self, chunk: Sequence[Request | Completion]) -> Sequence[Request | Completion]:
        for place, item in enumerate(chunk):
            if item.id in self.ids:
                told = "ids must differ (texts and mappings without one are numbered from 0)"
                self._end_feed(UsageError(f"Two requests have the id {shown(item.id)}; {told}."))
                return chunk[:place]
            self.ids.add(item.id)
        return chunk

    def _end_feed(self, error: Exception | None = None) -> None:
        """Nothing more is read. See `Loop` for when the error is raised."""
        if error is not None and self.window is None:
            raise error
        self.is_exhausted, self.feed_error = True, error

    @property
    def _num_wanted(self) -> int:
        """How many shall wait: a window that is smaller than the engine would leave rows empty."""
        return sys.maxsize if self.window is None else max(self.window, self.engine.capabilities.max_running)

    @property
    def _reads_on(self) -> bool:
        return not (self.is_exhausted or self.control.is_stopped or self.control.is_draining)

    def _take_in_chunk(self, chunk: Sequence[Request | Completion]) -> list[Completion]:
        self.counts.num_requests += len(chunk)
        refused = [self._refused(item) for item in chunk if isinstance(item, Completion)]
        requests = [item for item in chunk if isinstance(item, Request)]
        admitted: list[tuple[Request, Prepared]] = []
        with _AS_ENGINE_ERROR:
            all_prepared = self.engine.prepare(requests)
        for request, prepared in zip(requests, all_prepared, strict=True):
            if isinstance(prepared, ErrorInfo):
                refused.append(self._failed(request, prepared))
            else:
                admitted.append((request, prepared))
        if admitted:
            self._schedule_new(admitted)
        return refused

    def _forget_id(self, request_id: str) -> None:
        if self.window is not None:
            self.ids.discard(request_id)

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
            tracked = _Tracked(request, prepared, estimates, row, predicted, mean[row], now_s)
            self.tracked[request.id] = tracked
            self.waiting[request.id] = tracked.waiting
        self.counts.expected_tokens += sum(mean)
        if self.held_back:  # what came before goes first
            self.held_back |= dict.fromkeys(request.id for request in requests)
            return
        order = self.lessons.starting_order(len(requests))
        if order is not None:
            requests, capped = [requests[row] for row in order], capped[list(order)]
        self.scheduler.add([self.waiting[request.id] for request in requests], capped)

    # -- a predictor that learns while the run goes on ---------------------------------------------------------

    def _learn(self, events: Sequence[Event]) -> None:
        """Only where all have just been told of: else what ended since would stand beside rows whose tokens are those
        of a while ago, and lengths would seem short."""
        tells_progress = self.engine.capabilities.reports_progress
        if not self.lessons.are_heard or (tells_progress and not any(isinstance(event, Progress) for event in events)):
            return
        if self.lessons.learn(self._written_tokens if tells_progress else None):
            self._estimate_anew()

    def _written_tokens(self) -> dict[str, int]:
        """Of all that was started and has not ended."""
        cut = {name: request.num_tokens for name, request in self.waiting.items() if request.num_tokens}
        return cut | {name: row.num_tokens for name, row in self.running.items()}

    def _estimate_anew(self) -> None:
        """What waits takes its place in the order again: the next of it now, the rest when its turn comes near. All at
        once would hold up the engine by seconds where much waits, and be old before it is used."""
        self.scheduler.remove(list(self.waiting))
        begun_first = sorted(self.waiting, key=lambda name: not self.waiting[name].num_cuts)
        self.held_back = dict.fromkeys(begun_first)
        ordered = self._order_next()
        started_s = time.perf_counter()
        self._estimated(list(self.running.values()))
        if self.held_back:  # the average of the others, for what is said of the time left
            expected = sum(self.tracked[one.id].expected_tokens for one in ordered) / len(ordered)
            for name in self.held_back:
                self._expect(self.tracked[name], expected)
        self.counts.predict_s += time.perf_counter() - started_s

    def _order_next(self) -> Sequence[WaitingRequest]:
        """Keep as many in the scheduler's order as are sorted together. Gives what came into it."""
        if not self.held_back or len(self.waiting) - len(self.held_back) >= INTAKE_CHUNK:
            return ()
        started_s = time.perf_counter()
        chunk = [self.waiting[name] for name in islice(self.held_back, INTAKE_CHUNK)]
        for request in chunk:
            del self.held_back[request.id]
        self.scheduler.add(chunk, self._estimated(chunk))
        self.counts.predict_s += time.perf_counter() - started_s
        return chunk

    def _estimated(self, rows: Sequence[WaitingRequest] | Sequence[RunningRequest]) -> LengthEstimates:
        """New estimates of requests that are in the run, noted and returned: within limits, given their tokens."""
        tracked = [self.tracked[row.id] for row in rows]
        estimates = safe_predict(self.predictor, [one.request for one in tracked])
        limits = [one.prepared.max_tokens for one in tracked]
        now = estimates.given([row.num_tokens for row in rows]).capped(limits)
        is_known = np.isfinite(estimates.median).tolist()
        p50, p90, mean = (column.tolist() for column in (now.quantile(0.5), now.quantile(0.9), now.mean()))
        for number, one in enumerate(tracked):
            one.estimates, one.row = estimates, number
            self._expect(one, mean[number])
            if one.request.id in self.waiting and not one.num_cuts:  # it was not begun
                one.predicted = PredictedTokens(p50[number], p90[number]) if is_known[number] else None
        return now

    # -- what is asked from outside ----------------------------------------------------------------------------

    def _cancel_as_asked(self) -> list[Completion]:
        """Those that wait end at once; those that run when the engine has let them go."""
        ended: list[Completion] = []
        while self.control.cancelled_ids:
            name = self.control.cancelled_ids.popleft()
            if name in self.waiting:
                self._drop([name])
                ended.append(self._cancelled(self._let_go(name)))
            elif name in self.running:
                self.cancelled.add(name)
                self._cancel(name)
        return ended

    def _drop_the_unbegun_if_draining(self) -> None:
        if self.control.is_draining:
            self.is_exhausted = True
            unbegun = [name for name, request in self.waiting.items() if not request.num_cuts]
            self._drop(unbegun)
            for name in unbegun:
                self._let_go(name)
            self.counts.num_requests -= len(unbegun)

    def _drop(self, ids: Sequence[str]) -> None:
        self.scheduler.remove(ids)
        for name in ids:
            self.held_back.pop(name, None)
            self.counts.written_tokens -= self.waiting.pop(name).num_tokens
            self._cancel(name)  # it does not run, but what was kept of it since `prepare` is of no use

    # -- decisions ---------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        capabilities = self.engine.capabilities
        for decision in self.scheduler.decide(self._view(capabilities)):
            if isinstance(decision, Start):
                self._start(decision, capabilities)
            else:
                self._cancel(decision.id)
        if self.waiting and not self.running:
            raise EngineError(
                f"{type(self.scheduler).__name__} starts nothing though {len(self.waiting)} requests wait and the "
                "engine is empty; a scheduler must start at least one."
            )

    def _view(self, capabilities: Capabilities) -> View:
        free_rows = max(0, capabilities.max_running - len(self.running))
        free_kv_tokens = capabilities.kv_tokens - self.reserved_kv_tokens
        memory = (free_kv_tokens, capabilities.kv_tokens, capabilities.kv_block_tokens)
        return View(self.clock(), self.waiting, self.running, free_rows, *memory)

    def _start(self, start: Start, capabilities: Capabilities) -> None:
        waiting, tracked = self.waiting.pop(start.id), self.tracked[start.id]
        if tracked.tokens and (start.restart or not capabilities.can_continue):
            tracked.recomputed_tokens += len(tracked.tokens)
            self.counts.recomputed_tokens += len(tracked.tokens)
            self.counts.written_tokens -= len(tracked.tokens)
            tracked.tokens = ()
        cap = min(start.cap, waiting.max_tokens) if capabilities.can_cut else waiting.max_tokens
        assert cap > len(tracked.tokens), f"{start.id}: a cap of {cap} leaves nothing to write"
        with _AS_ENGINE_ERROR:
            self.engine.start(tracked.request, tracked.tokens, cap, start.priority)
        if not tracked.num_cuts:
            self.lessons.begin(tracked.request)
        running = RunningRequest(start.id, waiting.prompt_tokens, cap, len(tracked.tokens), self.clock())
        self.running[start.id] = running
        self.reserved_kv_tokens += running.reserved_kv_tokens

    # -- what the engine reports -------------------------------------------------------------------------------

    def _poll(self) -> list[Event]:
        """Until something ends, which makes room. Where there is some already, somebody may come to take it."""
        has_room = not self.waiting and len(self.running) < self.engine.capabilities.max_running
        with _AS_ENGINE_ERROR:
            return self.engine.poll(MAX_LATENESS_S if self._reads_on and has_room else POLL_TIMEOUT_S)

    def _record(self, events: Sequence[Event]) -> list[Completion]:
        """All that an engine reports at once is taken in at once: whoever leaves after the first answer must not
        leave the others half-recorded."""
        completions: list[Completion] = []
        cut: list[_Tracked] = []
        for event in self._note_progress(events):
            if not isinstance(event, Cut):
                completions.append(self._complete(event))
            elif event.id in self.cancelled:
                completions.append(self._cancelled(self._end(event.id)))
            else:
                cut.append(self._put_back(event))
        if cut:
            self.scheduler.add([self.waiting[tracked.request.id] for tracked in cut], self._estimates_of_cut(cut))
        return completions

    def _estimates_of_cut(self, cut: Sequence[_Tracked]) -> LengthEstimates:
        """By what is written of them, where predictor and engine can tell; else by their tokens alone."""
        started_s = time.perf_counter()
        requests, tokens = [tracked.request for tracked in cut], [tracked.tokens for tracked in cut]
        revised = safe_revise_running(self.predictor, self.engine, requests, tokens)
        self.counts.predict_s += time.perf_counter() - started_s
        if revised is None:
            return LengthEstimates.concatenate([tracked.estimate_now() for tracked in cut])
        now = revised.given([len(tracked.tokens) for tracked in cut])
        return now.capped([tracked.prepared.max_tokens for tracked in cut])

    def _note_progress(self, events: Sequence[Event]) -> list[Finished | Failed | Cut]:
        """Gives what is no progress. Most events are, where an engine reports it of every row at every step."""
        others: list[Finished | Failed | Cut] = []
        read: list[PromptRead] = []
        running, num_written = self.running, 0
        for event in events:
            if isinstance(event, Progress):
                row = running[event.id]
                num_written += event.num_tokens - row.num_tokens
                row.num_tokens = event.num_tokens
            elif isinstance(event, PromptRead):
                read.append(event)
            else:
                others.append(event)
        self.counts.written_tokens += num_written
        self._revise(read)
        return others

    def _revise(self, read: Sequence[PromptRead]) -> None:
        """The engine has read these prompts: what waits again later, and what is left to be written, go by what its
        model made of them. What was `predicted` stays what the request was ordered by."""
        started_s = time.perf_counter()
        known = [event for event in read if event.id in self.tracked]  # others are left from a former run
        rows = [self.tracked[event.id] for event in known]
        revised = safe_revise(self.predictor, [row.request for row in rows], [event.state for event in known])
        if revised is not None:
            limits = [row.prepared.max_tokens for row in rows]
            for number, (row, mean) in enumerate(zip(rows, revised.capped(limits).mean().tolist(), strict=True)):
                row.estimates, row.row = revised, number
                self._expect(row, mean)
        self.counts.predict_s += time.perf_counter() - started_s

    def _expect(self, tracked: _Tracked, num_tokens: float) -> None:
        self.counts.expected_tokens += num_tokens - tracked.expected_tokens
        tracked.expected_tokens = num_tokens

    def _note_tokens(self, running: RunningRequest, num_tokens: int) -> None:
        self.counts.written_tokens += num_tokens - running.num_tokens
        running.num_tokens = num_tokens

    def _stopped_running(self, request_id: str, num_tokens: int) -> None:
        running = self.running.pop(request_id)
        self.reserved_kv_tokens -= running.reserved_kv_tokens
        self._note_tokens(running, num_tokens)

    def _put_back(self, cut: Cut) -> _Tracked:
        self._stopped_running(cut.id, len(cut.tokens))
        tracked = self.tracked[cut.id]
        tracked.tokens = cut.tokens
        tracked.num_cuts += 1
        self.waiting[cut.id] = tracked.waiting
        return tracked

    def _end(self, request_id: str) -> _Tracked:
        self._stopped_running(request_id, 0)
        self.cancelled.discard(request_id)
        return self._let_go(request_id)

    def _let_go(self, request_id: str) -> _Tracked:
        tracked = self.tracked.pop(request_id)
        self.counts.expected_tokens -= tracked.expected_tokens
        self._forget_id(request_id)
        return tracked

    def _complete(self, event: Finished | Failed) -> Completion:
        tracked = self._end(event.id)
        if isinstance(event, Failed):
            return self._failed(tracked.request, event.error, tracked)
        completion = Completion(
            event.id,
            event.text,
            event.finish_reason,
            tracked.prepared.prompt_tokens if event.prompt_tokens is None else event.prompt_tokens,
            event.completion_tokens,
            tracked.recomputed_tokens,
            tracked.predicted,
            metadata=tracked.request.metadata,
            tokens=event.tokens,
            response=event.response,
        )
        self.counts.num_finished += 1
        self.counts.completion_tokens += event.completion_tokens
        safe_observe(self.predictor, tracked.request, completion)
        return completion

    def _refused(self, completion: Completion) -> Completion:
        self.counts.num_finished += 1
        self.counts.num_failed += 1
        self._forget_id(completion.id)
        return completion

    def _cancelled(self, tracked: _Tracked) -> Completion:
        return self._failed(tracked.request, CANCELLED, tracked)

    def _failed(self, request: Request, error: ErrorInfo, tracked: _Tracked | None = None) -> Completion:
        self.lessons.lose(request.id)
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


class _AsEngineError:
    """Whatever breaks in an engine is an EngineError to those who drive it; its cause stands behind it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, (LengthwiseError, AssertionError)):
            raise EngineError(f"The engine failed: {typed_line(error)}.") from error


_AS_ENGINE_ERROR = _AsEngineError()
