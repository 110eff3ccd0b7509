"""A row of a log → its prompt and the lengths of its answers.

**Prompt**: `prompt`, `messages`, or `instruction` (with `input` or without). **Lengths**, the first of these that a row
has: `length` (a number, or a list of samples), `L_t...` (the paper's: one sample a temperature, cut at 512),
`completion_tokens`, `usage.completion_tokens`. `L_gt` is a reference answer's. An answer whose `finish_reason` is
`length`, or that fills its row's `max_tokens`, was cut. Sampling parameters and what else changes lengths (`tools`,
`response_format`, thinking) are carried in the request; all further fields are metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.errors import InputError, RequestError, first_line
from lengthwise.estimates import MAX_TOKENS
from lengthwise.learning.data import LengthData
from lengthwise.types import Request, SamplingParams, instruction_prompt

PAPER_LIMIT = 512  # what the paper's answers were cut at; a few of its rows say 513 or 514
PAPER_SAMPLES = "L_t"
REFERENCE = "L_gt"

_PROMPTS = ("prompt", "messages", "instruction")
_SAMPLING = frozenset(field.name for field in fields_of(SamplingParams))
_THINKING = frozenset({"reasoning", "reasoning_effort", "chat_template_kwargs"})
_API_FIELDS = frozenset({"tools", "tool_choice", "response_format", "n"}) | _THINKING
_SAMPLED = {"temperatures", "model", "error"}  # how answers were collected
_ANSWER = {"length", "completion_tokens", "usage", "finish_reason", "text", *_SAMPLED}  # not for a predictor's eyes
_OWN = {*_PROMPTS, "input", "id", "max_tokens", *_SAMPLING, *_API_FIELDS, *_ANSWER}

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Example:
    request: Request
    lengths: list[float]
    is_cut: list[bool]
    reference: float
    texts: tuple[str | None, ...]


class _RowError(Exception):
    """What is wrong with one row; its reader adds the place."""


def read_file(path: Path) -> LengthData:
    """All rows of a JSONL or Parquet file. Raises InputError with the line, or the row, that is wrong."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    examples, is_paper = [], False
    models: set[str | None] = set()
    for place, number, fields in rows:
        is_paper = is_paper or any(name.startswith(PAPER_SAMPLES) for name in fields)
        try:
            examples.append(_example(fields, str(number)))
            models.add(_identity(fields))
        except (_RowError, RequestError) as error:
            raise InputError(f"{path}, {place}: {error} Mend the row, or leave it out.") from error
    if not examples:
        raise InputError(f"{path} holds no rows; wanted are a prompt and a length in each.")
    data = replace(_table(examples), model=models.pop() if len(models) == 1 else None)
    return data.within(PAPER_LIMIT) if is_paper else data


def _json_rows(path: Path) -> Iterator[tuple[str, int, Fields]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"line {number}", number, _parsed(path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as JSON lines ({first_line(error)}).") from error


def _parsed(path: Path, number: int, line: str) -> Fields:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number} is no JSON ({error}); wanted is one object a line.") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}, line {number} is no object; wanted is one with a prompt and a length.")
    return fields


def _parquet_rows(path: Path) -> Iterator[tuple[str, int, Fields]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            for number, fields in enumerate(rows, start=1):
                yield f"row {number}", number, {name: value for name, value in fields.items() if value is not None}
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} can't be read as Parquet ({first_line(error)}).") from error


def _table(examples: list[_Example]) -> LengthData:
    """Rows of unequal length side by side, the rest missing."""
    num_samples = max(len(example.lengths) for example in examples)
    lengths = np.full((len(examples), num_samples), np.nan)
    is_cut = np.zeros(lengths.shape, bool)
    for row, example in enumerate(examples):
        lengths[row, : len(example.lengths)] = example.lengths
        is_cut[row, : len(example.is_cut)] = example.is_cut
    reference = np.array([example.reference for example in examples])
    requests = tuple(example.request for example in examples)
    texts = tuple(example.texts for example in examples)
    return LengthData(
        requests,
        lengths,
        is_cut,
        reference=None if np.isnan(reference).all() else reference,
        texts=texts if any(any(row) for row in texts) else None,
    )


# -- one row ---------------------------------------------------------------------------------------------------


def _example(fields: Fields, default_id: str) -> _Example:
    request = _request(fields, default_id)
    lengths = _lengths(fields)
    if request.max_tokens and (beyond := np.nanmax(lengths)) > request.max_tokens:
        raise _RowError(f"the length {beyond:g} lies beyond the row's max_tokens of {request.max_tokens}.")
    reasons = _reasons(fields, len(lengths))
    is_cut = [
        reason == "length" or length == request.max_tokens for reason, length in zip(reasons, lengths, strict=True)
    ]
    reference = _length(REFERENCE, fields[REFERENCE]) if fields.get(REFERENCE) is not None else math.nan
    return _Example(request, lengths, is_cut, reference, _texts(fields, len(lengths)))


def _identity(fields: Fields) -> str | None:
    """Of the model, where its answers were collected; logs have names, which say nothing sure of weights."""
    model = fields.get("model") if "temperatures" in fields else None
    return model if isinstance(model, str) else None


def _texts(fields: Fields, num_samples: int) -> tuple[str | None, ...]:
    """The samples' texts; one text alone is the first one's."""
    given = fields.get("text")
    texts = given if isinstance(given, list) else [given]
    return tuple(text if isinstance(text, str) else None for text in texts[:num_samples])


def _request(fields: Fields, default_id: str) -> Request:
    sampling = {name: fields[name] for name in _SAMPLING & fields.keys() if fields[name] is not None}
    stop = sampling.get("stop")
    if isinstance(stop, str | list):  # all else is refused by SamplingParams
        sampling["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    return Request(
        str(fields.get("id") or default_id),
        _prompt(fields),
        SamplingParams(**sampling),
        fields.get("max_tokens"),
        metadata={name: value for name, value in fields.items() if name not in _OWN and not name.startswith("L_")},
        api_fields={name: fields[name] for name in _API_FIELDS & fields.keys() if fields[name]},
    )


def _prompt(fields: Fields) -> str | tuple[Any, ...]:
    given = [name for name in _PROMPTS if fields.get(name) is not None]
    if not given:
        raise _RowError(
            f"it has none of {', '.join(_PROMPTS)}; where prompts stand in another file, `lengthwise import FILE "
            "--prompts PROMPTS` joins the two."
        )
    if len(given) != 1:
        raise _RowError(f"it has {' and '.join(given)}; exactly one of {', '.join(_PROMPTS)} is wanted.")
    value = fields[given[0]]
    if given == ["messages"] and isinstance(value, list):
        return tuple(value)
    if given == ["messages"] or not isinstance(value, str):
        raise _RowError(f"{given[0]} is {value!r:.60}; a text (or a list of messages) was expected.")
    return instruction_prompt(value, fields.get("input") or "") if given == ["instruction"] else value


def _lengths(fields: Fields) -> list[float]:
    """The row's samples. `usage` counts as its `completion_tokens`."""
    usage = fields.get("usage")
    found = {**fields, **(usage if isinstance(usage, dict) else {})}
    for name in ("length", "completion_tokens"):
        if name in found:
            value = found[name]
            return _samples(name, value) if isinstance(value, list) else [_length(name, value)]
        if samples := [name for name in fields if name.startswith(PAPER_SAMPLES)]:
            return [_length(name, fields[name]) for name in sorted(samples)]
    raise _RowError("it has no length; `length`, `completion_tokens` or `usage.completion_tokens` is wanted.")


def _samples(name: str, values: list[Any]) -> list[float]:
    if not values:
        raise _RowError(f"{name} is an empty list; at least one sample is wanted.")
    if all(value is None for value in values):
        raise _RowError(f"{name} has only null in its list; at least one sample is wanted.")
    return [math.nan if value is None else _length(name, value) for value in values]


def _reasons(fields: Fields, num_samples: int) -> list[Any]:
    """Why each sample ended."""
    given = fields.get("finish_reason")
    reasons = given if isinstance(given, list) else [given] * num_samples
    if len(reasons) != num_samples:
        raise _RowError(f"it has {num_samples} lengths and {len(reasons)} finish reasons; each needs its own.")
    return reasons


def _length(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= MAX_TOKENS:
        raise _RowError(f"{name} is {value!r:.60}; it must be a number of tokens, from 1 to {MAX_TOKENS:,}.")
    return float(value)
