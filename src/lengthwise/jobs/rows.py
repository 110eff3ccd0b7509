"""A line of the prompts file → a request, or the error that stands in its place.

**Text**: a line is a prompt. **JSONL** and **Parquet**: `fields.py`. **OpenAI Batch**: `batch.py`. Blank lines are no
rows.

A row's id is its own, or else its line number, so blank lines don't shift ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lengthwise.errors import RequestError
from lengthwise.jobs import batch
from lengthwise.jobs import fields as own
from lengthwise.jobs.formats import InputFormat
from lengthwise.jobs.lines import Line
from lengthwise.jobs.values import Fields
from lengthwise.types import ErrorInfo, Request, SamplingParams

MAX_DEPTH = 100  # levels of a row; what writes JSON gives up at some hundreds, and no data is nested so deep


@dataclass(slots=True)  # frozen would be right, and take a microsecond more
class Row:
    """One row of the prompts file: a request, or why it can't be one. `line` counts from 1."""

    line: int
    id: str
    content: Request | ErrorInfo
    is_id_given: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def named(self, new_id: str) -> Row:
        content = replace(self.content, id=new_id) if isinstance(self.content, Request) else self.content
        return replace(self, id=new_id, content=content)


def read_row(line: Line, source_format: InputFormat, defaults: SamplingParams, prompt_field: str | None = None) -> Row:
    """The request on a line, or an ErrorInfo in its place. Raises nothing on content.

    `defaults` holds where the row says nothing; `prompt_field` is another name for the prompt.
    """
    if source_format == "text" and isinstance(line.content, str):
        number = str(line.number)
        return Row(line.number, number, Request(number, line.content, defaults), False, {})
    fields: Fields = {}
    own_id = None
    try:
        fields = _fields(line)
        own_id = _own_id(fields, source_format)
        request_id = own_id or str(line.number)
        if source_format == "openai-batch":
            request = batch.request_of(fields, request_id, defaults)
        else:
            request = own.request_of(fields, request_id, defaults, prompt_field)
    except RequestError as error:
        metadata = {} if source_format == "openai-batch" else own.metadata_of(fields, prompt_field)
        info = ErrorInfo.of(error, line.number)
        return Row(line.number, own_id or str(line.number), info, own_id is not None, metadata)
    return Row(line.number, request_id, request, own_id is not None, request.metadata)


def row_id_of(line: Line, source_format: InputFormat) -> str | None:
    """The id that a line gives itself; None where there is none to be read. What `read_row` finds, sooner."""
    content = line.content
    if source_format == "text" or isinstance(content, RequestError):
        return None
    if source_format == "jsonl" and isinstance(content, str) and '"id"' not in content and "\\u" not in content:
        return None
    try:
        return _own_id(_fields(line), source_format)
    except RequestError:
        return None


def _own_id(fields: Fields, source_format: InputFormat) -> str | None:
    return batch.custom_id(fields) if source_format == "openai-batch" else own.row_id(fields)


def _fields(line: Line) -> Fields:
    if isinstance(line.content, RequestError):
        raise line.content
    return _parse(line.content) if isinstance(line.content, str) else line.content


def _parse(content: str) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError("invalid_json", f"The line is no JSON: {error}. Wanted is one object a line.") from error
    if not isinstance(fields, dict):
        kinds = {type(None): "null", list: "a list", str: "a text", bool: "true or false"}
        kind = kinds.get(type(fields), "a number")
        raise RequestError("invalid_json", f'The line is {kind}; wanted is an object, like {{"prompt": "..."}}.')
    if content.count("[") + content.count("{") > MAX_DEPTH and _is_too_deep(fields):
        raise RequestError("invalid_json", f"The line is nested deeper than {MAX_DEPTH} levels; make it flatter.")
    return fields


def _is_too_deep(fields: Fields) -> bool:
    level: list[Any] = [fields]
    for _ in range(MAX_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
    return bool(level)
