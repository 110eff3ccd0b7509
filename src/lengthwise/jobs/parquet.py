"""A Parquet file → its rows, with the fields of a JSONL line. pyarrow is loaded when such a file is read.

Null is like left out. What JSON does not have becomes what it has: times, dates and decimals are texts, durations whole
numbers in their column's unit, bytes texts (base64 where they are no UTF-8), maps objects.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError, RequestError, first_line
from lengthwise.jobs import api
from lengthwise.jobs.formats import InputFormat
from lengthwise.jobs.lines import Line
from lengthwise.jobs.prompts import PROMPT_FIELDS
from lengthwise.jobs.streams import open_file, sha256_of
from lengthwise.jobs.values import SAMPLING_FIELDS

MAGIC = b"PAR1"
BATCH_ROWS = 1024  # decoded at once
READ_BYTES = 2**20  # read of a column at once: a row group need not fit into memory
# Settings that are numbers; tables with gaps in a column of whole ones store it as floats.
_WHOLE = frozenset({"id", "max_tokens", "max_completion_tokens", "seed", "top_k", "n", "min_tokens", "top_logprobs"})
_NUMBERS = _WHOLE - {"id"} | SAMPLING_FIELDS - {"stop"} | {"min_p"}
_SAID = api.FIELDS | {"messages"}  # what an engine gets as it is


def is_parquet(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(len(MAGIC)) == MAGIC


class ParquetFile:
    """Raises InputError for what is no Parquet file, is cut off, or has no column that could be the prompt."""

    format: InputFormat = "parquet"
    is_repeatable = True

    def __init__(self, path: Path, prompt_field: str | None) -> None:
        self.name = str(path)
        self._path = path
        self._sha256 = ""
        self._said = _SAID | {prompt_field}
        with self._opened() as file:
            self._check(file, prompt_field)

    def lines(self) -> Iterator[Line]:
        with self._opened() as file:
            batches = file.iter_batches(BATCH_ROWS, use_threads=False)
            contents = (content for batch in batches for content in self._contents(batch))
            for number, content in enumerate(contents, start=1):
                yield Line(number, content)
            self._sha256 = sha256_of(self._path)

    @property
    def sha256(self) -> str:
        return self._sha256

    def _check(self, file: Any, prompt_field: str | None) -> None:
        wanted = PROMPT_FIELDS if prompt_field is None else (prompt_field,)
        there = file.schema_arrow.names
        if not file.metadata.num_rows:
            raise InputError(f"{self.name} is empty: there is no prompt in it.")
        if not any(name in there for name in wanted):
            raise InputError(
                f"{self.name} has no column {' or '.join(wanted)}, so there is nothing to answer; it has "
                f"{', '.join(there)}. Name the one with the prompts by --prompt-field."
            )

    def _contents(self, batch: Any) -> Iterator[dict[str, Any] | RequestError]:
        """The rows of a batch. One whose text is no UTF-8 is an error and leaves the others alone."""
        names = batch.schema.names
        try:
            columns = [_values(name, column) for name, column in zip(names, batch.columns, strict=True)]
        except UnicodeDecodeError as error:
            if batch.num_rows == 1:
                yield RequestError("invalid_encoding", f"The row has a text that is not UTF-8: {error.reason}.")
                return
            for index in range(batch.num_rows):
                yield from self._contents(batch.slice(index, 1))
            return
        columns = [
            [_without_gaps(value) for value in column] if name in self._said else column
            for name, column in zip(names, columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            yield {name: value for name, value in zip(names, values, strict=True) if value is not None}

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow
        from pyarrow import parquet

        open_file(self._path).close()  # for its errors
        try:
            with parquet.ParquetFile(self._path, pre_buffer=False, buffer_size=READ_BYTES) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"{self.name} can't be read as Parquet ({first_line(error)}); copy or write it again."
            ) from error


def _values(name: str, column: Any) -> list[Any]:
    """One column's values, as JSON has them."""
    from pyarrow import types

    is_number = name in _NUMBERS and types.is_decimal(column.type)
    kind = column.type if is_number else _json_kind(column.type)
    values: list[Any] = (column if kind == column.type else column.cast(kind, safe=False)).to_pylist()
    if is_number or (name in _WHOLE and types.is_floating(kind)):
        return [_number(value, name in _WHOLE) for value in values]
    return values if _is_json(kind) else [_json_value(value, kind) for value in values]


def _number(value: float | Decimal | None, is_whole: bool) -> float | None:
    """A setting that is stored as another kind of number; a table's gap, which may be NaN, is none."""
    if value is None or value != value:
        return None
    return int(value) if is_whole and math.isfinite(value) and value == int(value) else float(value)


def _json_kind(kind: Any) -> Any:
    """The type that a column is read as: one whose values are nearer to JSON's."""
    import pyarrow
    from pyarrow import types

    if types.is_duration(kind):
        return pyarrow.int64()
    if types.is_temporal(kind) or types.is_decimal(kind):
        return pyarrow.string()
    if types.is_map(kind):
        return pyarrow.map_(pyarrow.string(), _json_kind(kind.item_type))
    if types.is_struct(kind):
        return pyarrow.struct([(field.name, _json_kind(field.type)) for field in kind])
    if types.is_large_list(kind):
        return pyarrow.large_list(_json_kind(kind.value_type))
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return pyarrow.list_(_json_kind(kind.value_type))
    return _json_kind(kind.value_type) if types.is_dictionary(kind) else kind


def _is_json(kind: Any) -> bool:
    from pyarrow import types

    simple: tuple[Callable[[Any], bool], ...] = (
        types.is_string,
        types.is_large_string,
        types.is_integer,
        types.is_float32,
        types.is_float64,
        types.is_boolean,
        types.is_null,
    )
    if types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_json(kind.value_type)
    return any(is_kind(kind) for is_kind in simple)


def _json_value(value: Any, kind: Any) -> Any:
    from pyarrow import types

    if value is not None and types.is_map(kind):
        return {name: _json_value(one, kind.item_type) for name, one in value}
    if isinstance(value, bytes):
        return _text_of(value)
    if isinstance(value, dict):
        return {name: _json_value(one, kind.field(name).type) for name, one in value.items()}
    if isinstance(value, list):
        return [_json_value(one, getattr(kind, "value_type", kind)) for one in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _without_gaps(value: Any) -> Any:
    """A table has every field of a struct in every row; a field that is null was left out."""
    if isinstance(value, dict):
        return {name: _without_gaps(one) for name, one in value.items() if one is not None}
    return [_without_gaps(one) for one in value] if isinstance(value, list) else value


def _text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
