"""Answers files of `lengthwise run`, JSON lines or Parquet, where the fields of `usage` are columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lengthwise.learning.importing.files import TextFile, parse_object, whole_tokens
from lengthwise.learning.importing.prompts import Prompts
from lengthwise.learning.importing.rows import LeftOut, LengthRow, Rows


def answer_rows(file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    """One row an answer; failed ones are left out. `limit` is the job's `--max-tokens`: it holds where a prompt has
    none of its own."""
    for number, line in file.lines():
        yield _row(f"line {number}", parse_object(line), prompts, limit)


def _row(place: str, row: Mapping[str, Any] | None, prompts: Prompts, limit: int | None) -> LengthRow | LeftOut:
    if row is None or row.get("id") is None:
        return LeftOut(place, "it is no JSON object with an id")
    if row.get("finish_reason") == "error":
        error = row.get("error")
        said = error.get("message") if isinstance(error, dict) else row.get("error_message", error)
        return LeftOut(place, f"the request failed: {said}")
    usage = row.get("usage", row)
    length = whole_tokens(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if length is None:
        return LeftOut(place, "it has no usage.completion_tokens of 1 or more")
    row_id = str(row["id"])
    prompt = prompts.of(row_id)
    if prompt is None:
        return LeftOut(place, prompts.why_missing(row_id))
    is_cut = row.get("finish_reason") == "length"
    return LengthRow(place, row_id, {"length": length}, prompt.fields, is_cut, prompt.max_tokens or limit)
