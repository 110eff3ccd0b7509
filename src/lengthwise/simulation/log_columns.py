"""Which columns of a log say what, and what their values must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lengthwise.errors import InputError, shown
from lengthwise.simulation.prefixes import BLOCK_TOKENS

CHARACTERS_A_TOKEN = 4  # of a prompt whose tokens nobody counted; said where it is used

Parse = Callable[[Any], float]


def number(value: Any) -> float:
    """Raises ValueError on what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(value)
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(value)
    return found


def milliseconds(value: Any) -> float:
    return number(value) / 1000


def moment(value: Any) -> float:
    """Seconds of a date and time (any number of decimals; without a zone it is UTC), or a number of seconds."""
    try:
        return number(value)
    except ValueError:
        text = str(value).strip().replace("Z", "+00:00")
        head, dot, tail = text.partition(".")
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}{dot}{tail[: min(digits, 6)].ljust(6, '0') if dot else ''}{tail[digits:]}"
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=_UTC)).timestamp()


_UTC = datetime.fromisoformat("2000-01-01T00:00:00+00:00").tzinfo

# role → names that are looked for, in this order, and how their values are read. `a.b` is b in the object a.
ARRIVAL: dict[str, Parse] = {
    "arrival_s": number,
    "arrival": moment,
    "arrival_time": moment,
    "TIMESTAMP": moment,  # Azure
    "created": moment,
    "timestamp": moment,
}
PROMPT: dict[str, Parse] = {
    "prompt_tokens": number,
    "input_tokens": number,  # ServeGen
    "input_length": number,  # Mooncake
    "ContextTokens": number,  # Azure
    "usage.prompt_tokens": number,
}
OUTPUT: dict[str, Parse] = {
    "output_tokens": number,
    "completion_tokens": number,
    "output_length": number,
    "GeneratedTokens": number,
    "usage.completion_tokens": number,
}
LIMIT: dict[str, Parse] = {"max_tokens": number}
TEXT = "prompt"
PREFIX = "hash_ids"  # Mooncake


@dataclass(frozen=True)
class Columns:
    """Where a log's values stand, settled by its first row. `arrival` or `limit` None: there are none."""

    arrival: tuple[str, Parse] | None
    prompt: tuple[str, Parse]
    output: tuple[str, Parse]
    limit: tuple[str, Parse] | None

    @classmethod
    def of(cls, place: str, row: Mapping[str, Any]) -> Columns:
        """Raises InputError where something is missing."""
        arrival, prompt, output = _find(row, ARRIVAL), _find(row, PROMPT), _find(row, OUTPUT)
        if arrival == ("timestamp", moment) and "input_length" in row:
            arrival = ("timestamp", milliseconds)  # Mooncake
        if prompt is None and isinstance(row.get(TEXT), str):
            prompt = (TEXT, _text_tokens)
        if output is None:
            raise InputError(f"{place} has no output tokens: one of {', '.join(OUTPUT)} is needed; {_names(row)}")
        if prompt is None:
            raise InputError(
                f"{place} has neither a prompt nor its tokens: one of {TEXT}, {', '.join(PROMPT)} is needed; "
                f"{_names(row)}"
            )
        return cls(arrival, prompt, output, _find(row, LIMIT))

    def arrival_s(self, place: str, row: Mapping[str, Any]) -> float:
        return 0.0 if self.arrival is None else _value(place, row, self.arrival, 0)

    def prompt_tokens(self, place: str, row: Mapping[str, Any]) -> int:
        return _count(place, row, self.prompt, 0)

    def prefix(self, place: str, row: Mapping[str, Any], prompt_tokens: int) -> tuple[int | str, ...]:
        """The ids of the blocks that the prompt fills, from its beginning. Raises InputError."""
        found = row.get(PREFIX)
        if found is None:
            raise InputError(
                f"{place} has no {PREFIX}: a prefix cache (--prefix-cache-tokens) needs JSON lines that say what "
                f"prompts begin with, an id for each {BLOCK_TOKENS} tokens. Leave it out, or take such a log; "
                f"{_names(row)}"
            )
        if not isinstance(found, list) or not all(type(one) in (int, str) for one in found):
            raise InputError(f"{place}: {PREFIX} is {shown(found)}; a list of whole numbers or texts was expected.")
        if len(found) > -(-prompt_tokens // BLOCK_TOKENS):
            raise InputError(
                f"{place} has {len(found)} {PREFIX} for {prompt_tokens} prompt tokens; one for each {BLOCK_TOKENS} "
                "was expected."
            )
        return tuple(found[: prompt_tokens // BLOCK_TOKENS])

    def output_tokens(self, place: str, row: Mapping[str, Any]) -> int:
        return _count(place, row, self.output, 0)

    def max_tokens(self, place: str, row: Mapping[str, Any]) -> int:
        """0: the row gives no limit."""
        if self.limit is None or row.get(self.limit[0]) in (None, ""):
            return 0
        return _count(place, row, self.limit, 1)


def _find(row: Mapping[str, Any], names: Mapping[str, Parse]) -> tuple[str, Parse] | None:
    return next(((name, parse) for name, parse in names.items() if _at(row, name) is not None), None)


def _at(row: Mapping[str, Any], name: str) -> Any:
    head, dot, tail = name.partition(".")
    inner = row.get(head)
    if not dot:
        return inner
    return inner.get(tail) if isinstance(inner, Mapping) else None


def _value(place: str, row: Mapping[str, Any], column: tuple[str, Parse], least: float) -> float:
    name, parse = column
    raw = _at(row, name)
    if raw is None or raw == "":
        raise InputError(
            f"{place} has no {name}, which the rows before it have; is it of another format? {_names(row)}"
        )
    try:
        found = parse(raw)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{place}: {name} is {shown(raw)}, which can't be read as a number or a time.") from error
    if found < least:
        raise InputError(f"{place}: {name} is {shown(raw)}; {least:g} or more was expected.")
    return found


def _count(place: str, row: Mapping[str, Any], column: tuple[str, Parse], least: int) -> int:
    found = _value(place, row, column, least)
    if found != int(found) or found > 2**40:
        raise InputError(f"{place}: {column[0]} is {found!r}; a whole number of tokens was expected.")
    return int(found)


def _text_tokens(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError(value)
    return 1 + len(value) // CHARACTERS_A_TOKEN


def _names(row: Iterable[str]) -> str:
    names = sorted(map(str, row))
    return f"its columns: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}."
