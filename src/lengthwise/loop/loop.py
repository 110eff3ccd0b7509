"""The main loop: estimate → decide → start → record, with any predictor, scheduler and engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from lengthwise.errors import EngineError, LengthwiseError, typed_line
from lengthwise.feeds import Feed
from lengthwise.loop.completing import CANCELLED, completed, failed
from lengthwise.loop.counts import Control, Counts
from lengthwise.loop.feeding import Feeding
from lengthwise.loop.flight import Flight, Tracked
from lengthwise.loop.ordering import INTAKE_CHUNK, Ordering
from lengthwise.predictors.cold_start.lessons import Lessons
from lengthwise.predictors.safely import safe_observe
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.types import (
    Capabilities,
    Completion,
    Cut,
    ErrorInfo,
    Event,
    Failed,
    Finished,
    Prepared,
    Progress,
    PromptRead,
    Request,
    Start,
    View,
)

POLL_TIMEOUT_S = 0.2  # how long progress may stand still, and how late a stop may come
MAX_LATENESS_S = 0.004  # how long who comes may stand at the door of an engine that has room
MAX_SILENCE_S = 60.0  # of an engine that was told to let its rows go: what writes on to its end reports sooner


@dataclass
class Loop:
    """One pass over a feed of requests whose seeds are set where noise is drawn. What can't be a request stands in the
    feed as the completion that says why. With a window memory does not grow with the number of requests. Raises
    UsageError on a doubled id (see `Feeding`).
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
    cancelled: set[str] = field(default_factory=set)  # what runs and shall end
    feeding: Feeding = field(init=False)
    flight: Flight = field(init=False)
    lessons: Lessons = field(init=False)
    ordering: Ordering = field(init=False)

    def __post_init__(self) -> None:
        self.feeding = Feeding(self.feed, self.window is not None)
        self.flight = Flight(self.counts)
        self.lessons = Lessons(self.predictor)
        self.ordering = Ordering(self.predictor, self.scheduler, self.flight, self.lessons)

    def completions(self) -> Iterator[Completion]:
        while not (self.control.is_stopped or self.is_done):
            yield from self._take_in()
            if not self.control.is_stopped:  # perhaps it is by now, by the caller between two of these answers
                yield from self._step()
        if self.feeding.error is not None:
            raise self.feeding.error

    @property
    def is_done(self) -> bool:
        """Nothing is left to read or to answer."""
        return self.feeding.is_exhausted and not self.flight.tracked

    def _step(self) -> list[Completion]:
        """What ended: as it was asked to, or else by the engine's next work."""
        ended = self._cancel_as_asked()
        self._drop_the_unbegun_if_draining()
        if ended or not self.flight.tracked:
            return ended
        self.ordering.go_on()
        self._decide()
        events = self._poll()
        completions = self._record(events)
        self._learn(events)
        return completions

    def cancel_running(self) -> None:
        """Leave the engine empty: a later run must not meet this one's rows. Raises EngineError if it loses them."""
        running = self.flight.running
        for name in running:
            self._cancel(name)
        may_be_silent_s = 0.0 if self.engine.capabilities.can_preempt else MAX_SILENCE_S
        heard_s = time.monotonic()
        while running:
            events = self._poll()
            if events:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s >= may_be_silent_s:
                raise EngineError(f"The engine lost {len(running)} requests: cancelled, they were not reported.")
            for event in events:
                if not isinstance(event, (Progress, PromptRead)):
                    running.pop(event.id, None)

    def _cancel(self, request_id: str) -> None:
        with _AS_ENGINE_ERROR:
            self.engine.cancel(request_id)

    # -- intake ------------------------------------------------------------------------------------------------

    def _take_in(self) -> Iterator[Completion]:
        """Read requests until enough wait, estimate them and hand them to the scheduler. Waits for the feed only while
        there is nothing else to do."""
        num_wanted = self._num_wanted
        while len(self.flight.waiting) < num_wanted and self._reads_on:
            may_wait = self.window is None or not self.flight.tracked
            chunk = self.feeding.take(min(num_wanted, INTAKE_CHUNK), may_wait)
            if chunk:
                yield from self._take_in_chunk(chunk)
            elif self.window is not None:
                return

    @property
    def _num_wanted(self) -> int:
        """How many shall wait: a window that is smaller than the engine would leave rows empty."""
        return sys.maxsize if self.window is None else max(self.window, self.engine.capabilities.max_running)

    @property
    def _reads_on(self) -> bool:
        return not (self.feeding.is_exhausted or self.control.is_stopped or self.control.is_draining)

    def _take_in_chunk(self, chunk: Sequence[Request | Completion]) -> list[Completion]:
        """What ended before it began."""
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
            self.ordering.enter(admitted, self.clock())
        return refused

    # -- what is asked from outside ----------------------------------------------------------------------------

    def _cancel_as_asked(self) -> list[Completion]:
        """Those that wait end at once; those that run when the engine has let them go."""
        ended: list[Completion] = []
        while self.control.cancelled_ids:
            name = self.control.cancelled_ids.popleft()
            if name in self.flight.waiting:
                ended += [self._cancelled(tracked) for tracked in self._drop([name])]
            elif name in self.flight.running:
                self.cancelled.add(name)
                self._cancel(name)
        return ended

    def _drop_the_unbegun_if_draining(self) -> None:
        if self.control.is_draining:
            self.feeding.is_exhausted = True
            unbegun = [name for name, request in self.flight.waiting.items() if not request.num_cuts]
            self.counts.num_requests -= len(self._drop(unbegun))

    def _drop(self, ids: Sequence[str]) -> list[Tracked]:
        """They wait no more. They do not run, but what the engine kept of them since `prepare` is of no use."""
        self.ordering.drop(ids)
        for name in ids:
            self._cancel(name)
        return [self._end(name) for name in ids]

    # -- decisions ---------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        capabilities = self.engine.capabilities
        for decision in self.scheduler.decide(self._view(capabilities)):
            if isinstance(decision, Start):
                self._start(decision, capabilities)
            else:
                self._cancel(decision.id)
        if self.flight.waiting and not self.flight.running:
            raise EngineError(
                f"{type(self.scheduler).__name__} starts nothing though {len(self.flight.waiting)} requests wait and "
                "the engine is empty; a scheduler must start at least one."
            )

    def _view(self, capabilities: Capabilities) -> View:
        flight = self.flight
        free_rows = max(0, capabilities.max_running - len(flight.running))
        free_kv_tokens = capabilities.kv_tokens - flight.reserved_kv_tokens
        memory = (free_kv_tokens, capabilities.kv_tokens, capabilities.kv_block_tokens)
        return View(self.clock(), flight.waiting, flight.running, free_rows, *memory)

    def _start(self, start: Start, capabilities: Capabilities) -> None:
        waiting, tracked = self.flight.waiting[start.id], self.flight.tracked[start.id]
        if tracked.tokens and (start.restart or not capabilities.can_continue):
            self.flight.forget_tokens(tracked)
        cap = min(start.cap, waiting.max_tokens) if capabilities.can_cut else waiting.max_tokens
        assert cap > len(tracked.tokens), f"{start.id}: a cap of {cap} leaves nothing to write"
        with _AS_ENGINE_ERROR:
            self.engine.start(tracked.request, tracked.tokens, cap, start.priority)
        if not tracked.num_cuts:
            self.lessons.begin(tracked.request)
        self.flight.run(start.id, cap, self.clock())

    # -- what the engine reports -------------------------------------------------------------------------------

    def _poll(self) -> list[Event]:
        """Until something ends, which makes room. Where there is some already, somebody may come to take it."""
        has_room = not self.flight.waiting and len(self.flight.running) < self.engine.capabilities.max_running
        with _AS_ENGINE_ERROR:
            return self.engine.poll(MAX_LATENESS_S if self._reads_on and has_room else POLL_TIMEOUT_S)

    def _record(self, events: Sequence[Event]) -> list[Completion]:
        """All that an engine reports at once is taken in at once: whoever leaves after the first answer must not
        leave the others half-recorded."""
        completions: list[Completion] = []
        cut: list[Tracked] = []
        news = self.flight.note_progress(events)
        self.ordering.revise([event for event in news if isinstance(event, PromptRead)])
        for event in news:
            if isinstance(event, (Finished, Failed)):
                completions.append(self._complete(event))
            elif isinstance(event, Cut) and event.id in self.cancelled:
                completions.append(self._cancelled(self._end(event.id)))
            elif isinstance(event, Cut):
                cut.append(self.flight.put_back(event))
        if cut:
            self.ordering.put_back(cut, self.engine)
        return completions

    def _complete(self, event: Finished | Failed) -> Completion:
        tracked = self._end(event.id)
        if isinstance(event, Failed):
            return self._failed(tracked.request, event.error, tracked)
        completion = completed(tracked, event)
        self.counts.num_finished += 1
        self.counts.completion_tokens += event.completion_tokens
        safe_observe(self.predictor, tracked.request, completion)
        return completion

    def _end(self, request_id: str) -> Tracked:
        self.cancelled.discard(request_id)
        self.feeding.forget(request_id)
        return self.flight.end(request_id)

    def _cancelled(self, tracked: Tracked) -> Completion:
        return self._failed(tracked.request, CANCELLED, tracked)

    def _failed(self, request: Request, error: ErrorInfo, tracked: Tracked | None = None) -> Completion:
        self.lessons.lose(request.id)
        return self._refused(failed(request, error, tracked))

    def _refused(self, completion: Completion) -> Completion:
        self.counts.num_finished += 1
        self.counts.num_failed += 1
        self.feeding.forget(completion.id)
        return completion

    def _learn(self, events: Sequence[Event]) -> None:
        """Only where all have just been told of: else what ended since would stand beside rows whose tokens are those
        of a while ago, and lengths would seem short."""
        tells_progress = self.engine.capabilities.reports_progress
        if not self.lessons.are_heard or (tells_progress and not any(isinstance(event, Progress) for event in events)):
            return
        if self.lessons.learn(self.flight.written_tokens if tells_progress else None):
            self.ordering.start_anew()


class _AsEngineError:
    """Whatever breaks in an engine is an EngineError to those who drive it; its cause stands behind it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, (LengthwiseError, AssertionError)):
            raise EngineError(f"The engine failed: {typed_line(error)}.") from error


_AS_ENGINE_ERROR = _AsEngineError()
