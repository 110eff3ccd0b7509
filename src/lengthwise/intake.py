"""What a pipeline is given → requests with ids and seeds, and their answers put into order."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from lengthwise.errors import RequestError, UsageError, shown
from lengthwise.feeds import Feed, IterableFeed
from lengthwise.loop.completing import CANCELLED
from lengthwise.types import Completion, ErrorInfo, Request, SamplingParams

Item: TypeAlias = Request | Completion | str | Mapping[str, Any]  # what a run takes for a request
Items: TypeAlias = Iterable[Item] | Feed[Item]

SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))
FIELDS = frozenset(field.name for field in fields(Request)) | {"messages"} | SAMPLING_FIELDS  # of a mapping


def as_feed(items: Items) -> Feed[Item]:
    """Raises UsageError for what can't be read as requests, one after the other."""
    if isinstance(items, Iterable) and not isinstance(items, (str, bytes, Mapping)):
        return IterableFeed(items)  # first: arrays have a `take` of their own
    if isinstance(items, Feed):
        return items
    if isinstance(items, AsyncIterable):
        raise UsageError("The requests are asynchronous: use astream or arun.")
    raise UsageError(f"The requests are {shown(items)}; they must be a list of texts, mappings or requests.")


class Requests:
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


class Order:
    """A feed that notes the order of what is taken, and puts answers into it. By places, not by ids: an id may come
    again when its first answer is there, and that answer may have to wait for others."""

    def __init__(self, feed: Feed[Request | Completion], fills_gaps: bool) -> None:
        self._feed = feed
        self._fills_gaps = fills_gaps
        self._num_taken = 0
        self._in_flight: dict[str, tuple[int, Request | Completion]] = {}  # with their places
        self._held: dict[int, Completion] = {}

    def take(self, num: int, may_wait: bool) -> Sequence[Request | Completion] | None:
        items = self._feed.take(num, may_wait)
        for place, item in enumerate(items or (), self._num_taken):
            self._in_flight.setdefault(item.id, (place, item))  # a doubled id ends the run; the first one's place holds
        self._num_taken += len(items or ())
        return items

    def restore(self, answers: Generator[Completion]) -> Generator[Completion]:
        """Each answer when all before it are out; when the run ends before its requests do, also those behind gaps."""
        next_place = 0
        try:
            for answer in answers:
                place, _ = self._in_flight.pop(answer.id)
                self._held[place] = answer
                while next_place in self._held:
                    yield self._held.pop(next_place)
                    next_place += 1
        except Exception:
            yield from self._rest()
            raise
        finally:
            answers.close()
        if self._fills_gaps:
            self._held |= {place: _cancelled(item) for place, item in self._in_flight.values()}
        yield from self._rest()

    def _rest(self) -> Iterator[Completion]:
        for place in sorted(self._held):
            yield self._held.pop(place)


def _cancelled(item: Request | Completion) -> Completion:
    return Completion(item.id, "", "error", error=CANCELLED, metadata=item.metadata)


def _request(item: Item, index: int) -> Request | Completion:
    if isinstance(item, (Request, Completion)):
        return item
    name = str(index)
    try:
        given = _given(item)
        name = str(given.pop("id", name))
        sampling = {field: given.pop(field) for field in SAMPLING_FIELDS & given.keys()}
        if sampling:
            given["sampling"] = SamplingParams(**sampling)
        prompt = given.pop("messages", None) or given.pop("prompt", None)
        return Request(name, tuple(prompt) if isinstance(prompt, list) else prompt, **given)
    except RequestError as error:
        return Completion(name, "", "error", error=ErrorInfo.of(error))


def _given(item: object) -> dict[str, Any]:
    """Fields and their values; those that are None are left out, and stop texts a tuple."""
    if isinstance(item, str):
        return {"prompt": item}
    if not isinstance(item, Mapping):
        raise RequestError("invalid_request", f"A request is {shown(item)}; it must be a text, a mapping or a Request.")
    if unknown := sorted(map(str, item.keys() - FIELDS)):
        known = ", ".join(sorted(FIELDS - {"id", "prompt", "messages", "sampling"}))
        raise RequestError(
            "invalid_request",
            f"A request has no field {shown(unknown[0])}; it has id, prompt or messages, and {known}. What is to be "
            "carried along belongs into metadata.",
        )
    given = {field: value for field, value in item.items() if value is not None}
    stop = given.get("stop")
    if isinstance(stop, (str, list)):
        given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    return given


def request_seed(job_seed: int, request_id: str) -> int:
    """A request's seed where it gave none: the same for the same job seed and id, whatever runs beside it."""
    return int.from_bytes(hashlib.blake2b(f"{job_seed}/{request_id}".encode(), digest_size=7).digest(), "little")
