"""`Pipeline`: engine, predictor and scheduler put together by name; answers as they finish or in order."""

from __future__ import annotations

import asyncio
import hashlib
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
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from lengthwise.errors import EngineError, LengthwiseError, RequestError, UsageError
from lengthwise.feeds import AsyncFeed, Feed, IterableFeed
from lengthwise.loop import INTAKE_CHUNK, Control, Counts, Loop
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.scheduling import named
from lengthwise.types import Completion, ErrorInfo, Request, SamplingParams

log = logging.getLogger("lengthwise")

Item: TypeAlias = Request | Completion | str | Mapping[str, Any]  # what a run takes for a request
Items: TypeAlias = Iterable[Item] | Feed[Item]

SERVED = "served:"  # identities of models behind a server begin with it: nobody can look at their weights

SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))


class Pipeline:
    """Prompts in, answers out, scheduled by predicted length.

        with Pipeline() as pipeline:
            for answer in pipeline.stream(["Give three tips for a good night's sleep."]):
                print(answer.text)

    `model` is a hub id or a folder (None: the bundled model), opened with its defaults and `max_tokens` as the limit
    of answers whose request gives none; for anything else give an `engine`. `predictor` is "auto" (what is known for
    this model, else nothing), "none", a folder, or an object; one that learned from another model is not used (what a
    server runs is not checked: there a predictor that was asked for is taken at its word). `scheduler` is "default",
    another of `scheduling.named.NAMES`, or an object, which then serves one run. `window` bounds how many requests
    wait: when fewer do, as many again are read (at least as many as the engine runs at once), and memory does not grow
    with the number of requests; None: all are read before the first starts.

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
        self.predictor = _usable(predictor, self.engine.model)
        self.counts = Counts()
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
        of SamplingParams (`temperature`, ...); ids count from 0. What can't be one ends as an error
        (`invalid_request`), and stops no other; a Completion is passed through. Raises UsageError on an id that another
        request in flight has (without a window: any other), EngineError when the engine broke. Closing the iterator
        cancels what runs.
        """
        return self._begin(_as_feed(requests), in_order)

    def _begin(self, feed: Feed[Item], in_order: bool) -> Generator[Completion]:
        """From here on `stop` and `drain` mean this run."""
        if self._is_closed:
            raise UsageError("This pipeline is closed; open another.")
        self._refuse_a_second_run()
        self.counts, self._control = Counts(), Control()
        source = _Requests(feed, self._seed)
        order = _Order(source) if in_order else None
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
        loop = Loop(
            self.engine,
            self.predictor,
            make_scheduler(self._scheduler, self.engine) if isinstance(self._scheduler, str) else self._scheduler,
            source,
            self.counts,
            self._control,
            self._window,
            self._clock,
        )
        try:
            yield from loop.completions()
        except EngineError:
            with suppress(EngineError):
                loop.cancel_running()  # as far as it still answers
            loop.running.clear()
            raise
        finally:
            if not self._is_closed:
                loop.cancel_running()

    def run(self, requests: Items) -> list[Completion]:
        """All answers, in the order of the requests."""
        return list(self.stream(requests, in_order=True))

    def astream(self, requests: Items | AsyncIterable[Item], in_order: bool = False) -> AsyncIterator[Completion]:
        """`stream` for async callers: the engine works in a thread, one step at a time. A caller that is cancelled
        stops the run. `requests` may be asynchronous: it is read in the event loop, and what runs does not wait."""
        if not isinstance(requests, AsyncIterable):
            return self._astream(self._begin(_as_feed(requests), in_order), self._control)
        feed: AsyncFeed[Item] = AsyncFeed(INTAKE_CHUNK)
        return _reading(feed, requests, self._astream(self._begin(feed, in_order), self._control))

    async def _astream(self, iterator: Generator[Completion], control: Control) -> AsyncGenerator[Completion]:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(self._step, iterator))
            try:
                answer = await asyncio.shield(step)
                if answer is None:
                    return
                yield answer
            except BaseException:
                control.is_stopped = True
                # An iterator can't be closed while a thread is in it.
                await asyncio.gather(step, return_exceptions=True)
                await asyncio.to_thread(iterator.close)
                raise

    def _step(self, iterator: Iterator[Completion]) -> Completion | None:
        with self._at_work:
            return next(iterator, None)

    async def arun(self, requests: Items | AsyncIterable[Item]) -> list[Completion]:
        """`run` for async callers."""
        return [answer async for answer in self.astream(requests, in_order=True)]

    def stop(self) -> None:
        """End the run at its next step: what is finished was given out, the rest is cancelled."""
        self._control.is_stopped = True

    def drain(self) -> None:
        """Read and start nothing new, finish what was begun; the run ends then. Requests that never began get no
        answer."""
        self._control.is_draining = True

    def cancel(self, request_id: str) -> None:
        """End a request that waits or runs, as an error (`cancelled`), at the run's next step. An id that is not in
        the run (not yet read, or ended) is passed over."""
        self._control.cancelled_ids.append(request_id)

    def close(self) -> None:
        self._is_closed = True
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.to_thread(self._close_after_step)

    def _close_after_step(self) -> None:
        with self._at_work:
            self.close()


def make_scheduler(name: str, engine: Engine) -> Scheduler:
    """A fresh scheduler by its name; what the engine can't do is left out, which is said."""
    capabilities = engine.capabilities
    if name != "arrival" and not (capabilities.can_cut and capabilities.can_continue):
        log.warning("This engine can't cut and continue answers: no caps, order only.")
    return named.make(name, capabilities)


def _usable(predictor: LengthPredictor | str, model: str) -> LengthPredictor:
    """The predictor, or one that knows nothing where it learned from another model.

    What a server runs can't be compared with it, and a server is never cut short, so that a wrong order costs some time
    and nothing else: there a predictor that was asked for is used, which is said. "auto" takes none there.
    """
    from lengthwise.predictors import saved

    found = saved.resolve(predictor, model) if isinstance(predictor, str) else predictor
    if found.model in (None, model):
        return found
    if model.startswith(SERVED):
        log.warning("The predictor learned from %s; that %s is this model is taken for granted.", found.model, model)
        return found
    log.warning("The predictor learned from %s, the model is %s: not used, arrival order.", found.model, model)
    return saved.resolve("none", model)


def _open(model: str | Path | None, max_tokens: int) -> Engine:
    from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine

    return open_engine(ModelOptions(model=None if model is None else str(model)), RunOptions(max_tokens=max_tokens))


def _as_feed(items: Items) -> Feed[Item]:
    if isinstance(items, (str, Mapping)):
        raise UsageError(f"The requests are {items!r}; they must be a list of texts, mappings or requests.")
    if isinstance(items, Iterable):  # first: arrays have a `take` of their own
        return IterableFeed(items)
    return items


class _Requests:
    """A feed of whatever is given, as requests whose seeds are set where noise is drawn; a Completion for what can't be
    a request."""

    def __init__(self, feed: Feed[Item], seed: int) -> None:
        self._feed = feed
        self._seed = seed
        self._num_taken = 0

    def take(self, num: int, may_wait: bool) -> list[Request | Completion] | None:
        items = self._feed.take(num, may_wait)
        if items is None:
            return None
        first, self._num_taken = self._num_taken, self._num_taken + len(items)
        return [self._with_seed(_request(item, index)) for index, item in enumerate(items, first)]

    def _with_seed(self, item: Request | Completion) -> Request | Completion:
        if isinstance(item, Completion) or item.sampling.is_greedy or item.sampling.seed is not None:
            return item
        return item.with_seed(request_seed(self._seed, item.id))


class _Order:
    """A feed that notes the order of what is taken, and puts answers into it. By places, not by ids: an id may come
    again when its first answer is there, and that answer may have to wait for others."""

    def __init__(self, feed: Feed[Request | Completion]) -> None:
        self._feed = feed
        self._num_taken = 0
        self._place_of: dict[str, int] = {}  # in flight
        self._held: dict[int, Completion] = {}

    def take(self, num: int, may_wait: bool) -> Sequence[Request | Completion] | None:
        items = self._feed.take(num, may_wait)
        for item in items or ():
            self._place_of[item.id] = self._num_taken
            self._num_taken += 1
        return items

    def restore(self, answers: Generator[Completion]) -> Generator[Completion]:
        """Each answer when all before it are out; when the run ends before its requests do, also those behind gaps."""
        next_place = 0
        try:
            for answer in answers:
                self._held[self._place_of.pop(answer.id)] = answer
                while next_place in self._held:
                    yield self._held.pop(next_place)
                    next_place += 1
        except LengthwiseError:
            yield from self._rest()
            raise
        finally:
            answers.close()
        yield from self._rest()

    def _rest(self) -> Iterator[Completion]:
        for place in sorted(self._held):
            yield self._held.pop(place)


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


def _request(item: Item, index: int) -> Request | Completion:
    if isinstance(item, (Request, Completion)):
        return item
    name = str(index)
    try:
        given: dict[str, Any] = {"id": name, **({"prompt": item} if isinstance(item, str) else item)}
        name = str(given.pop("id"))
        sampling = {field: given.pop(field) for field in SAMPLING_FIELDS & given.keys()}
        if "stop" in sampling:
            sampling["stop"] = (sampling["stop"],) if isinstance(sampling["stop"], str) else tuple(sampling["stop"])
        if sampling:
            given["sampling"] = SamplingParams(**sampling)
        prompt = given.pop("messages", None) or given.pop("prompt", None)
        return Request(name, tuple(prompt) if isinstance(prompt, list) else prompt, **given)
    except (RequestError, TypeError) as error:  # TypeError: no mapping, or a field that there is not
        told = error if isinstance(error, RequestError) else RequestError("invalid_request", f"Item {index}: {error}.")
        return Completion(name, "", "error", error=ErrorInfo.of(told))


def request_seed(job_seed: int, request_id: str) -> int:
    """A request's seed where it gave none: the same for the same job seed and id, whatever runs beside it."""
    return int.from_bytes(hashlib.blake2b(f"{job_seed}/{request_id}".encode(), digest_size=7).digest(), "little")
