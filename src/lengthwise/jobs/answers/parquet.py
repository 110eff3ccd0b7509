"""An answer a row of a Parquet file. pyarrow is loaded when the file is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lengthwise.errors import JobError
from lengthwise.jobs.answers.contract import AnswerSink
from lengthwise.jobs.answers.jsonl import JsonlFormat
from lengthwise.jobs.answers.sinks import Temporary
from lengthwise.jobs.formats import OutputFormat
from lengthwise.jobs.outputs import WrittenFile

# One row group: enough rows for columns to compress well, few enough to be held as Python objects.
MAX_GROUP_ROWS = 16_384
MAX_GROUP_BYTES = 32 * 2**20

_TEXTS = ("id", "text", "finish_reason")
_COUNTS = ("prompt_tokens", "completion_tokens", "recomputed_tokens", "predicted_p50", "predicted_p90")
_ERROR = ("error_type", "error_message", "error_line")
_JSON = ("metadata", "response")  # each row may have others in them, so they are JSON in a text


class ParquetFormat(JsonlFormat):
    """The columns of a JSONL line, flat; see SCHEMA. A file can't grow, so it is written when all answers are there."""

    name: OutputFormat = "parquet"
    can_append = False

    def open(self, answers: Path) -> AnswerSink:
        return ParquetSink(answers)


class ParquetSink:
    """Collects the rows of a row group, then writes it."""

    def __init__(self, answers: Path) -> None:
        import pyarrow.parquet

        self._schema = _schema()
        self._temporary = Temporary(answers)
        self._writer = pyarrow.parquet.ParquetWriter(self._temporary.file, self._schema, compression="zstd")
        self._group: list[bytes] = []
        self._num_bytes = 0

    def write(self, line: bytes, is_failed: bool) -> None:
        self._group.append(line)
        self._num_bytes += len(line)
        if len(self._group) == MAX_GROUP_ROWS or self._num_bytes >= MAX_GROUP_BYTES:
            self._write_group()

    def finish(self) -> list[WrittenFile]:
        if self._group:
            self._write_group()
        with self._guarded():
            self._writer.close()
            return [self._temporary.finish()]

    def abort(self) -> None:
        self._writer.is_open = False  # or it would write its end when it is collected, and complain
        self._temporary.abort()

    def _write_group(self) -> None:
        import pyarrow

        rows = [_flat(json.loads(line)) for line in self._group]
        columns = [_column([row[field.name] for row in rows], field.type) for field in self._schema]
        with self._guarded():
            self._writer.write_table(pyarrow.table(columns, schema=self._schema))
        self._group, self._num_bytes = [], 0

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._temporary.guarded():
                yield
        except JobError:
            self.abort()
            raise


def _schema() -> Any:
    import pyarrow

    text, count = pyarrow.string(), pyarrow.int64()
    kinds = {**dict.fromkeys((*_TEXTS, *_ERROR, *_JSON), text), **dict.fromkeys((*_COUNTS, "error_line"), count)}
    return pyarrow.schema([(name, kinds[name]) for name in (*_TEXTS, *_COUNTS, *_ERROR, *_JSON)])


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    """One row of the table from one line."""
    predicted, error = answer["predicted_tokens"] or {}, answer.get("error", {})
    return {
        **{name: answer[name] for name in _TEXTS},
        **answer["usage"],
        "predicted_p50": predicted.get("p50"),
        "predicted_p90": predicted.get("p90"),
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "error_line": error.get("line"),
        **{name: _json(answer.get(name)) for name in _JSON},
    }


def _json(value: Any) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False)
    return text if _is_utf8(text) else json.dumps(value)


def _column(values: list[Any], kind: Any) -> Any:
    import pyarrow

    try:
        return pyarrow.array(values, kind)
    except UnicodeEncodeError:  # half a surrogate pair, which a server may send and no UTF-8 can hold
        return pyarrow.array([None if one is None else one.encode(errors="replace").decode() for one in values], kind)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
