"""One field of a row, checked: a value of the wrong type is an error of its row, never guessed at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lengthwise.errors import RequestError, shown
from lengthwise.types import SamplingParams

Fields = Mapping[str, Any]

_NUMBERS = ("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
_COUNTS = ("top_k", "seed")
SAMPLING_FIELDS = frozenset({*_NUMBERS, *_COUNTS, "stop"})
MAX_COUNT = 2**63 - 1  # what samplers and JSON readers elsewhere can hold
MAX_LISTED = 3


def wrong(name: str, value: Any, wanted: str) -> RequestError:
    return RequestError("invalid_request", f"{name} is {shown(value)}; it must be {wanted}.")


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first ones, if they are many."""
    known = sorted(names)
    return ", ".join(map(shown, known[:MAX_LISTED])) + (", …" if len(known) > MAX_LISTED else "")


def text(fields: Fields, name: str) -> str:
    """A text that can be written as UTF-8."""
    value = fields[name]
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = error.start + 1
        raise RequestError("invalid_encoding", f"{name} has half a surrogate pair at its character {at}.") from error
    return value


def count(fields: Fields, name: str) -> int | None:
    """A whole number that 64 bits hold; None where there is none or null."""
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise wrong(name, value, "a whole number")
    if value is not None and value > MAX_COUNT:
        raise wrong(name, value, f"at most {MAX_COUNT}")
    return value


def number(fields: Fields, name: str) -> float | None:
    """A number; None where there is none or null. Its range is checked by whoever takes it."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(name, value, "a number")
    try:
        return float(value)
    except OverflowError as error:
        raise wrong(name, value, "a finite number") from error


def limit(fields: Fields, name: str) -> int | None:
    value = count(fields, name)
    if value is not None and value < 1:
        raise wrong(name, value, "1 or more")
    return value


def sampling(fields: Fields, defaults: SamplingParams) -> SamplingParams:
    """The job's sampling parameters with the row's own in their place; the very object where it has none of its own.
    Raises RequestError on a value out of range."""
    if fields.keys().isdisjoint(SAMPLING_FIELDS):
        return defaults
    own: dict[str, Any] = {name: number(fields, name) for name in _NUMBERS if name in fields}
    own |= {name: count(fields, name) for name in _COUNTS if name in fields}
    if "stop" in fields:
        own["stop"] = _stop(fields)
    given = {name: value for name, value in own.items() if value is not None}
    return _merged(defaults, tuple(_translated(given).items()))


def _translated(own: dict[str, Any]) -> dict[str, Any]:
    """What servers and the API say otherwise than SamplingParams: seeds below 0, no `top_k`, the most likely token."""
    if own.get("top_k") in (0, -1):
        own["top_k"] = None
    if own.get("top_p") == 0:
        own |= {"top_p": 1.0, "temperature": 0.0}
    if own.get("seed", 0) < -MAX_COUNT - 1:
        raise wrong("seed", own["seed"], f"from {-MAX_COUNT - 1} to {MAX_COUNT}")
    if own.get("seed", 0) < 0:
        own["seed"] &= MAX_COUNT
    return own


@lru_cache(maxsize=1024)  # rows of one file mostly give the same ones, and each is checked when it is made
def _merged(defaults: SamplingParams, own: tuple[tuple[str, Any], ...]) -> SamplingParams:
    return replace(defaults, **dict(own))


def _stop(fields: Fields) -> tuple[str, ...] | None:
    value = fields.get("stop")
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise wrong("stop", value, "a text or a list of texts")
    return tuple(texts)
