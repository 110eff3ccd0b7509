"""Logs of requests → a workload: traces as they are published, or JSON lines and CSV with columns of these names."""

from __future__ import annotations

import csv
import gzip
import io
import json
from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lengthwise.errors import InputError, first_line, shown
from lengthwise.simulation.log_columns import CHARACTERS_A_TOKEN, TEXT, Columns
from lengthwise.simulation.prefixes import Prefix
from lengthwise.simulation.workload import Workload

MAX_ROWS = 1_000_000  # are read: 40 MB of columns; more than any run here takes

_GZIP = b"\x1f\x8b"
Numbered = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True, eq=False)
class Log:
    """A log as a workload. `prompts` by the workload's `rows`, where they were asked for and the log has them; `notes`
    say what was done to it, a sentence each."""

    workload: Workload
    prompts: list[str] | None
    notes: tuple[str, ...]


@dataclass
class _Columns:
    """What was read so far, 8 bytes a value."""

    arrival_s: array[float] = field(default_factory=lambda: array("d"))
    prompt_tokens: array[int] = field(default_factory=lambda: array("q"))
    output_tokens: array[int] = field(default_factory=lambda: array("q"))
    max_tokens: array[int] = field(default_factory=lambda: array("q"))
    prompts: list[str] = field(default_factory=list)
    prefixes: list[Prefix] = field(default_factory=list)
    numbers: dict[int | str, int] = field(default_factory=dict)  # of blocks, by their ids
    num_empty: int = 0


def read_log(path: Path, *, keeps_prompts: bool = False, keeps_prefixes: bool = False, max_rows: int = MAX_ROWS) -> Log:
    """A file of CSV or JSON lines, gzip or not, as far as `max_rows`. Its first row settles the columns; prompts and
    prefixes are kept where they are asked for.

    Rows without an output token are left out, unordered ones sorted, both said. Raises InputError, with the line, on
    what can't be read: no file, no rows, a value that is missing, negative or no number, a row of another format, no
    prompts or prefixes where they are asked for.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP
            raw.seek(0)
            text = io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if is_gzip else raw, encoding="utf-8-sig", newline="")
            with closing(text):
                return _read(path, text, keeps_prompts, keeps_prefixes, max_rows)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as CSV or JSON lines ({first_line(error)}).") from error


def _read(path: Path, file: TextIO, keeps_prompts: bool, keeps_prefixes: bool, max_rows: int) -> Log:
    rows = _rows(path, file)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path} has no rows; a log needs a row for each request.")
    columns, found = Columns.of(f"{path}, line {first[0]}", first[1]), _Columns()
    for number, row in islice(chain([first], rows), max_rows):
        _take(f"{path}, line {number}", row, columns, found, keeps_prompts, keeps_prefixes)
    notes = _notes(path, columns, found, has_more=next(rows, None) is not None, max_rows=max_rows)
    return Log(_workload(path, found), found.prompts if keeps_prompts and found.prompts else None, tuple(notes))


def _take(
    place: str, row: dict[str, Any], columns: Columns, found: _Columns, keeps_prompts: bool, keeps_prefixes: bool
) -> None:
    values = columns.arrival_s(place, row), columns.prompt_tokens(place, row), columns.max_tokens(place, row)
    output = columns.output_tokens(place, row)
    if not output:
        found.num_empty += 1
        return
    found.arrival_s.append(values[0])
    found.prompt_tokens.append(values[1])
    found.max_tokens.append(values[2])
    found.output_tokens.append(output)
    if keeps_prompts:
        if not isinstance(row.get(TEXT), str):
            raise InputError(f"{place} has no {TEXT} text, which a predictor that reads prompts needs.")
        found.prompts.append(row[TEXT])
    if keeps_prefixes:
        numbers, ids = found.numbers, columns.prefix(place, row, values[1])
        found.prefixes.append(tuple(numbers.setdefault(one, len(numbers)) for one in ids))


def _workload(path: Path, found: _Columns) -> Workload:
    outputs = np.array(found.output_tokens, np.int64)
    if not len(outputs):
        raise InputError(f"{path}: no row has an output token; there is nothing to simulate.")
    limits = np.array(found.max_tokens, np.int64)
    general = 2 ** int(outputs.max()).bit_length()  # as in Workload.of
    limits = np.where(limits > 0, limits, general)
    arrivals = np.array(found.arrival_s)
    prompts = np.array(found.prompt_tokens, np.int64)
    return Workload.of(arrivals - arrivals.min(), prompts, outputs, limits, prefixes=found.prefixes or None)


def _notes(path: Path, columns: Columns, found: _Columns, *, has_more: bool, max_rows: int) -> Iterator[str]:
    if has_more:
        yield f"Only the first {max_rows:,} rows were read; there are more."
    if found.num_empty:
        yield f"{found.num_empty:,} rows without an output token were left out."
    if columns.arrival is None:
        yield "The log has no times: all requests come at once."
    elif (np.diff(np.array(found.arrival_s)) < 0).any():
        yield "The rows were not in order of their times, and were sorted."
    if columns.prompt[0] == TEXT:
        yield f"The log has no prompt tokens: characters ÷ {CHARACTERS_A_TOKEN} stand for them."


def _rows(path: Path, file: TextIO) -> Numbered:
    """Rows with the lines on which they end."""
    line = next((line for line in file if line.strip()), "")
    if line.lstrip().startswith("{"):
        file.seek(0)
        return _json_rows(path, file)
    file.seek(0)
    return _csv_rows(path, file)


def _json_rows(path: Path, file: TextIO) -> Numbered:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number} is no JSON, as the lines before it are: {shown(line)}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is {shown(row)}; each line must be an object.")
        yield number, row


def _csv_rows(path: Path, file: TextIO) -> Numbered:
    reader = csv.reader(file)
    header: list[str] | None = None
    for cells in reader:
        if not cells:
            continue
        if header is None:
            header = [name.strip() for name in cells]
        elif len(cells) != len(header):
            what = f"{len(cells)} values for {len(header)} columns ({', '.join(header[:8])})"
            raise InputError(f"{path}, line {reader.line_num} has {what}.")
        else:
            yield reader.line_num, dict(zip(header, cells, strict=True))
