"""`Pipeline`: engine, predictor and scheduler put together by name; answers as they finish or in order."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lengthwise.errors import EngineError, RequestError, UsageError
from lengthwise.loop import Counts, Loop
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.scheduling import named
from lengthwise.types import Completion, ErrorInfo, Request, SamplingParams

log = logging.getLogger("lengthwise")

SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))


class Pipeline:
    """Prompts in, answers out, scheduled by predicted length.

        with Pipeline() as pipeline:
            for answer in pipeline.stream(["Give three tips for a good night's sleep."]):
                print(answer.text)

    `model` is a hub id or a folder (None: the bundled model), opened with its defaults and `max_tokens` as the limit
    of answers whose request gives none; for anything else give an `engine`. `predictor` is "auto" (what is known for
    this model, else nothing), "none", a folder, or an object; one that learned from another model is not used.
    `scheduler` is "default", another of `scheduling.named.NAMES`, or an object, which then serves one run. `window`
    bounds how many requests wait: when fewer do, as many again are read (None: all are read before the first starts).
    Not thread-safe, one run at a time; `counts` may be read and `stop` called from anywhere.
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
        self._is_stopped = False
        self._is_closed = False

    def stream(self, requests: Iterable[Request | str | Mapping[str, Any]]) -> Iterator[Completion]:
        """Answers as they finish, each request exactly once. `requests` is read ahead by `window` (all of it if None).

        Texts become requests, and mappings with the fields of Request, `messages` for a prompt of messages, and those
        of SamplingParams (`temperature`, ...); ids count from 0. What can't be one ends as an error
        (`invalid_request`), and stops no other. Raises UsageError on a doubled id, EngineError when the
        engine broke. Closing the iterator cancels what runs.
        """
        yield from self._stream(_requests(requests, self._seed))

    def _stream(self, source: Iterator[Request | Completion]) -> Iterator[Completion]:
        if self._is_closed:
            raise UsageError("This pipeline is closed; open another.")
        self.counts = Counts()
        self._is_stopped = False
        loop = Loop(
            self.engine,
            self.predictor,
            make_scheduler(self._scheduler, self.engine) if isinstance(self._scheduler, str) else self._scheduler,
            source,
            self.counts,
            lambda: self._is_stopped,
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

    def run(self, requests: Iterable[Request | str | Mapping[str, Any]]) -> list[Completion]:
        """All answers, in the order of the requests."""
        ids: list[str] = []
        answers = {answer.id: answer for answer in self._stream(_noting_ids(_requests(requests, self._seed), ids))}
        return [answers[name] for name in ids if name in answers]

    async def astream(self, requests: Iterable[Request | str | Mapping[str, Any]]) -> AsyncIterator[Completion]:
        """`stream` for async callers: the engine works in a thread, one step at a time. A caller that is cancelled
        stops the run."""
        iterator = self.stream(requests)
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, iterator, None))
            try:
                answer = await asyncio.shield(step)
                if answer is None:
                    return
                yield answer
            except BaseException:
                self.stop()
                # An iterator can't be closed while a thread is in it.
                await asyncio.gather(step, return_exceptions=True)
                await asyncio.to_thread(iterator.close)  # type: ignore[attr-defined]
                raise

    def stop(self) -> None:
        """End the run at its next step: what is finished was given out, the rest is cancelled."""
        self._is_stopped = True

    def close(self) -> None:
        self._is_closed = True
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def make_scheduler(name: str, engine: Engine) -> Scheduler:
    """A fresh scheduler by its name; what the engine can't do is left out, which is said."""
    capabilities = engine.capabilities
    if name != "arrival" and not (capabilities.can_cut and capabilities.can_continue):
        log.warning("This engine can't cut and continue answers: no caps, order only.")
    return named.make(name, capabilities)


def _usable(predictor: LengthPredictor | str, model: str) -> LengthPredictor:
    """The predictor, or one that knows nothing where it learned from another model."""
    from lengthwise.predictors import saved

    found = saved.resolve(predictor, model) if isinstance(predictor, str) else predictor
    if found.model in (None, model):
        return found
    log.warning("The predictor learned from %s, the model is %s: not used, arrival order.", found.model, model)
    return saved.resolve("none", model)


def _open(model: str | Path | None, max_tokens: int) -> Engine:
    from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine

    return open_engine(ModelOptions(model=None if model is None else str(model)), RunOptions(max_tokens=max_tokens))


def _requests(items: Iterable[Request | str | Mapping[str, Any]], seed: int) -> Iterator[Request | Completion]:
    """Requests with ids that are all different and seeds that are set; a Completion for what can't be a request."""
    if isinstance(items, (str, Mapping)):
        raise UsageError(f"The requests are {items!r}; they must be a list of texts, mappings or requests.")
    seen: set[str] = set()
    for index, item in enumerate(items):
        request = _request(item, index)
        if request.id in seen:
            raise UsageError(f"Two requests have the id {request.id!r}; ids must differ.")
        seen.add(request.id)
        if isinstance(request, Request) and request.sampling.seed is None:
            request = request.with_seed(request_seed(seed, request.id))
        yield request


def _request(item: Request | str | Mapping[str, Any], index: int) -> Request | Completion:
    if isinstance(item, Request):
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


def _noting_ids(items: Iterator[Request | Completion], ids: list[str]) -> Iterator[Request | Completion]:
    for item in items:
        ids.append(item.id)
        yield item


def request_seed(job_seed: int, request_id: str) -> int:
    """A request's seed where it gave none: the same for the same job seed and id, whatever runs beside it."""
    return int.from_bytes(hashlib.blake2b(f"{job_seed}/{request_id}".encode(), digest_size=7).digest(), "little")
