"""`Pipeline`: engine, predictor and scheduler put together by name; answers as they finish or in order."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
)
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from lengthwise.errors import EngineError, UsageError
from lengthwise.feeds import AsyncFeed, Feed
from lengthwise.intake import Item, Items, Order, Requests, as_feed
from lengthwise.loop import Control, Counts, Loop
from lengthwise.loop.ordering import INTAKE_CHUNK
from lengthwise.protocols import (
    Backbone,
    Engine,
    LengthPredictor,
    PromptPooling,
    PromptReviser,
    Scheduler,
    Timed,
    Watcher,
)
from lengthwise.scheduling import named
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.types import Completion, Request

log = logging.getLogger("lengthwise")

SERVED = "served:"  # identities of models behind a server begin with it: nobody can look at their weights


class Pipeline:
    """Prompts in, answers out, scheduled by predicted length.

        with Pipeline() as pipeline:
            for answer in pipeline.stream(["Give three tips for a good night's sleep."]):
                print(answer.text)

    `model` is a hub id or a folder (None or "bundled": the bundled model), opened with its defaults and
    `max_tokens` as the limit of answers whose request gives none; for anything else give an `engine`. `predictor`
    is "auto" (what is known for this model, else one that learns from the pipeline's own answers: until it has
    learned, requests that are taken in together, 4,096 at most, start in a random order, drawn by `seed`), "none",
    a folder, or an object; one that learned from another model is not used (what a server runs is not checked:
    there a predictor that was asked for is taken at its word), which is said. `scheduler` is "default", another of
    `scheduling.named.NAMES`, or an object, which then serves one run. `window` bounds how many requests wait: when
    fewer do, as many again are read (at least as many as the engine runs at once), and memory does not grow with
    the number of requests; None: all are read before the first starts.

    One run at a time, in one thread. `counts` may be read and `stop`, `drain` and `cancel` called from any thread and
    from signal handlers.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        engine: Engine | None = None,
        predictor: LengthPredictor | str = "auto",
        scheduler: Scheduler | str = "default",
        max_tokens: int = 512,
        seed: int = 0,
        window: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if model is not None and engine is not None:
            raise UsageError("Give a model or an engine, not both: an engine has its model.")
        if window is not None and window < 1:
            raise UsageError(f"window is {window}; it must be 1 or more, or None.")
        if isinstance(scheduler, str):
            named.check_name(scheduler)
        self.engine = engine or _open(model, max_tokens)
        chosen = _automatic(self.engine, scheduler, seed) if predictor == "auto" else predictor
        self.predictor = _reading_prompts(_usable(chosen, self.engine), self.engine)
        self.counts = Counts()
        self.watcher: Watcher | None = None  # is shown all that a run decides and answers
        self._scheduler = scheduler
        self._seed = seed
        self._window = window
        self._clock = clock
        self._control = Control()
        self._run: weakref.ref[Generator[Completion]] | None = None
        self._is_closed = False
        self._at_work = threading.RLock()  # held while a thread takes a step for an async caller

    def stream(self, requests: Items, in_order: bool = False) -> Iterator[Completion]:
        """Answers as they finish, each request exactly once; `in_order`: in the order of the requests, each as soon as
        it and all before it are there (what is finished meanwhile is held). `requests` is read ahead by `window` (all
        of it if None), and waits hold up nothing when it is a `Feed`.

        Texts become requests, and mappings with the fields of Request, `messages` for a prompt of messages, and those
        of SamplingParams (`temperature`, ...); None is as good as left out. What has no id gets its number, from 0:
        give all of them ids, or none. What can't be a request ends as an error (`invalid_request`), and stops no other;
        a Completion is passed through.

        Raises UsageError on an id that another request in flight has (without a window: any other) and whatever the
        source raises: when what was read before is answered (without a window at once, nothing is begun by then).
        Raises EngineError when the engine broke, UsageError when the pipeline was closed. Closing the iterator cancels
        what runs.
        """
        return self._begin(as_feed(requests), in_order)

    def _begin(self, feed: Feed[Item], in_order: bool, fills_gaps: bool = False) -> Generator[Completion]:
        """From here on `stop` and `drain` mean this run."""
        if self._is_closed:
            raise UsageError("This pipeline is closed; open another.")
        self._refuse_a_second_run()
        self.counts, self._control = Counts(), Control()
        source = Requests(feed, self._seed)
        order = Order(source, fills_gaps) if in_order else None
        answers = order.restore(self._stream(order)) if order else self._stream(source)
        self._run = weakref.ref(answers)
        return answers

    def _refuse_a_second_run(self) -> None:
        """Two would take each other's events. An `async for` that was left has ended only when it is closed."""
        former = self._run and self._run()
        if former and inspect.getgeneratorstate(former) != inspect.GEN_CLOSED:
            raise UsageError(
                "A run of this pipeline still goes on, and there is one at a time: use its answers up, close it "
                "(`close`, or `aclose` of an asynchronous one), or open another pipeline."
            )

    def _stream(self, source: Feed[Request | Completion]) -> Generator[Completion]:
        watcher = self.watcher
        scheduler = (
            make_scheduler(self._scheduler, self.engine) if isinstance(self._scheduler, str) else self._scheduler
        )
        loop = Loop(
            self.engine,
            self.predictor,
            scheduler if watcher is None else watcher.watched(scheduler, self._clock),
            source,
            self.counts,
            self._control,
            self._window,
            self._clock,
        )
        try:
            yield from loop.completions() if watcher is None else watcher.noted(loop.completions())
        except GeneratorExit:
            self._leave_empty(loop)
            raise
        except BaseException:
            with suppress(EngineError):  # what is raised already says more
                self._leave_empty(loop)
            raise
        self._leave_empty(loop)
        if self._is_closed and not loop.is_done:
            raise UsageError("This pipeline was closed before its run had ended; use the answers up first.")

    def _leave_empty(self, loop: Loop) -> None:
        if not self._is_closed:  # a closed engine has no rows to give back
            loop.cancel_running()

    def run(self, requests: Items) -> list[Completion]:
        """All answers, in the order of the requests. When the run is stopped or drained, requests without an answer end
        as errors (`cancelled`) in their places; only what was not read by then (see `window`) is missing, at the end.
        """
        return list(self._begin(as_feed(requests), in_order=True, fills_gaps=True))

    def astream(self, requests: Items | AsyncIterable[Item], in_order: bool = False) -> AsyncIterator[Completion]:
        """`stream` for async callers: the engine works in a thread, one step at a time. A caller that is cancelled
        stops the run. `requests` may be asynchronous: it is read in the event loop, and what runs does not wait."""
        return self._abegin(requests, in_order)

    async def arun(self, requests: Items | AsyncIterable[Item]) -> list[Completion]:
        """`run` for async callers."""
        return [answer async for answer in self._abegin(requests, in_order=True, fills_gaps=True)]

    def _abegin(
        self, requests: Items | AsyncIterable[Item], in_order: bool, fills_gaps: bool = False
    ) -> AsyncIterator[Completion]:
        if not isinstance(requests, AsyncIterable):
            return self._astream(self._begin(as_feed(requests), in_order, fills_gaps), self._control)
        feed: AsyncFeed[Item] = AsyncFeed(INTAKE_CHUNK)
        answers = self._begin(feed, in_order, fills_gaps)
        return _reading(feed, requests, self._astream(answers, self._control))

    async def _astream(self, answers: Generator[Completion], control: Control) -> AsyncGenerator[Completion]:
        try:
            while (answer := await asyncio.to_thread(self._step, answers)) is not None:
                yield answer
        finally:
            control.is_stopped = True
            await _surely(asyncio.get_running_loop().run_in_executor(None, self._end, answers))

    def _step(self, answers: Iterator[Completion]) -> Completion | None:
        with self._at_work:
            return next(answers, None)

    def _end(self, answers: Generator[Completion]) -> None:
        """After the step that is being taken: an iterator can't be closed while a thread is in it."""
        with self._at_work:
            answers.close()

    def stop(self) -> None:
        """End the run at its next step: what is finished was given out, the rest is cancelled and gets no answer (in
        `run` an error)."""
        self._control.is_stopped = True

    def drain(self) -> None:
        """Read and start nothing new, finish what was begun; the run ends then. Requests that never began get no
        answer (in `run` an error)."""
        self._control.is_draining = True

    def cancel(self, request_id: str) -> None:
        """End a request that waits or runs, as an error (`cancelled`), at the run's next step. An id that is not in
        the run (not yet read, or ended) is passed over."""
        self._control.cancelled_ids.append(request_id)

    def close(self) -> None:
        """Close the engine, after the step that an async caller's thread is in, and wait for what learns in a thread. A
        run that still goes on ends: whoever asks for its next answer gets a UsageError."""
        self._end_run()
        with self._at_work:
            try:
                self.engine.close()
            finally:
                _end_learning(self.predictor)

    def _end_run(self) -> None:
        self._is_closed = self._control.is_stopped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._end_run()
        await _surely(asyncio.get_running_loop().run_in_executor(None, self.close))


async def _surely(work: asyncio.Future[None]) -> None:
    """Wait for what a thread does and can't leave half-way, however often the caller is cancelled; that counts then."""
    is_cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    work.result()


def make_scheduler(name: str, engine: Engine) -> Scheduler:
    """A fresh scheduler by its name; what the engine can't do is left out, which is said."""
    capabilities = engine.capabilities
    if name != "arrival" and not (capabilities.can_cut and capabilities.can_continue):
        log.info("This engine can't cut answers and continue them: what is known of lengths decides their order only.")
    return named.make(name, capabilities, engine.step_cost if isinstance(engine, Timed) else None)


def _automatic(engine: Engine, scheduler: Scheduler | str, seed: int) -> LengthPredictor:
    """What is known for this model; where nothing is, what learns in the run, unless lengths are of no use there."""
    from lengthwise.predictors import saved
    from lengthwise.predictors.cold_start.predictor import ColdStartConfig, ColdStartPredictor
    from lengthwise.predictors.unknown import UnknownPredictor

    known = saved.default_predictor(engine.model)
    if not isinstance(known, UnknownPredictor) or scheduler == "arrival" or isinstance(scheduler, ArrivalScheduler):
        return known
    return ColdStartPredictor(engine.model, ColdStartConfig(in_background=engine.model.startswith(SERVED)), seed)


def _end_learning(predictor: LengthPredictor) -> None:
    from lengthwise.predictors.cold_start.predictor import ColdStartPredictor

    if isinstance(predictor, ColdStartPredictor):
        predictor.close()


def _usable(predictor: LengthPredictor | str, engine: Engine) -> LengthPredictor:
    """The predictor, or one that knows nothing where it learned from another model.

    What a server runs, or ran when it was learned from, can't be compared: then a predictor that was asked for is used,
    which is said, as it is where a trained one doesn't tell whose answers it learned from.
    """
    from lengthwise.predictors import saved

    model = engine.model
    found = _named(predictor, engine) if isinstance(predictor, str) else predictor
    if found.model is None and getattr(getattr(found, "inner", found), "learned_from", None) is not None:
        log.info("The predictor doesn't tell whose answers it learned from; %s's are taken for granted.", model)
    if found.model in (None, model):
        return found
    if model.startswith(SERVED) or found.model.startswith(SERVED):
        log.warning("The predictor learned from %s; that %s is this model is taken for granted.", found.model, model)
        return found
    log.warning("The predictor learned from %s, the model is %s: not used, arrival order.", found.model, model)
    return saved.resolve("none", model)


def _named(predictor: str, engine: Engine) -> LengthPredictor:
    """By its name or folder; one that asks a language model, or looks into one, gets the engine's own."""
    from lengthwise.predictors import saved

    backbone_of: Callable[[], Backbone] | None = getattr(engine, "backbone", None)
    backbone = backbone_of() if backbone_of is not None and saved.needs_backbone(predictor) else None
    return saved.resolve(predictor, engine.model, backbone)


def _reading_prompts(predictor: LengthPredictor, engine: Engine) -> LengthPredictor:
    """Who reads the prompts for a predictor that looks into the model. Where it looks into the engine's own, and the
    engine can tell: the engine does, when an answer begins, and the estimate is revised then. Else the predictor does,
    before anything starts. Which of both is said."""
    from_prefill = getattr(predictor, "from_prefill", None)
    revising = predictor if isinstance(predictor, PromptReviser) else from_prefill and from_prefill(engine.model)
    pooling = revising.wants_states if revising else None
    can_tell = isinstance(engine, PromptPooling) and engine.pool_prompts(pooling)
    if revising and can_tell:
        log.info("Lengths are estimated anew when the engine has read a prompt; no prompt is read beforehand.")
        return revising
    if from_prefill:
        log.info("All prompts are read beforehand for their lengths: the engine doesn't tell what it makes of them.")
    return predictor


def _open(model: str | Path | None, max_tokens: int) -> Engine:
    from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine

    return open_engine(ModelOptions(model=None if model is None else str(model)), RunOptions(max_tokens=max_tokens))


async def _reading(
    feed: AsyncFeed[Item], items: AsyncIterable[Item], answers: AsyncGenerator[Completion]
) -> AsyncIterator[Completion]:
    """The answers, while `items` are read into the feed."""
    reading = asyncio.ensure_future(feed.read(items))
    try:
        async for answer in answers:
            yield answer
    finally:
        reading.cancel()
        await answers.aclose()
        await asyncio.gather(reading, return_exceptions=True)
