"""A line of the prompts file → a request, or the error that stands in its place.

**Text**: a line is a prompt. **JSONL**: a line is an object with one of `prompt`, `messages`, `instruction` (with
`input` or without); `id`, `max_tokens` and the fields of SamplingParams are the row's own settings, null like left
out; all further fields are metadata and come back in the answer line. Blank lines are no rows in both formats.

A row's id is its own, or else its line number, so blank lines don't shift ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lengthwise.errors import RequestError
from lengthwise.jobs.lines import Line, Lines
from lengthwise.jobs.options import InputFormat
from lengthwise.jobs.prompts import PROMPT_FIELDS, prompt_of
from lengthwise.jobs.values import SAMPLING_FIELDS, Fields, max_tokens, row_id, sampling, wrong
from lengthwise.types import ErrorInfo, Request, SamplingParams

# Fields of the OpenAI API that change an answer and that no engine here honours, with the values that ask for
# nothing. Ignoring them would give other answers than were asked for.
UNSUPPORTED_FIELDS: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "max_completion_tokens": (),
    "max_new_tokens": (),
    "min_p": (0,),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
MAX_DEPTH = 100  # levels of a row; what writes JSON gives up at some hundreds, and no data is nested so deep
_SAID_OTHERWISE = {"max_completion_tokens": "max_tokens", "max_new_tokens": "max_tokens"}


@dataclass(frozen=True, slots=True)
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


def read_rows(lines: Lines, input_format: InputFormat, defaults: SamplingParams) -> Iterator[Row]:
    """The rows of a file, one after the other, in order. Bad lines become rows with an ErrorInfo.

    `input_format` is `jsonl` or `text` (`lines.find_format`). Ids may still be doubled: see `ids.resolve_ids`.
    """
    for line in lines:
        if isinstance(line.content, RequestError):
            yield _error_row(line, line.content)
        elif input_format == "text":
            yield Row(line.number, str(line.number), Request(str(line.number), line.content, defaults))
        else:
            yield _json_row(line, line.content, defaults)


def _json_row(line: Line, content: str, defaults: SamplingParams) -> Row:
    fields: dict[str, Any] = {}
    try:
        fields = _parse(content)
        own_id = row_id(fields)
    except RequestError as error:
        return _error_row(line, error, fields)
    try:
        request = _request(fields, own_id or str(line.number), defaults)
    except RequestError as error:
        return _error_row(line, error, fields, own_id)
    return Row(line.number, request.id, request, own_id is not None, request.metadata)


def _error_row(line: Line, error: RequestError, fields: Fields | None = None, own_id: str | None = None) -> Row:
    info = ErrorInfo.of(error, line.number)
    return Row(line.number, own_id or str(line.number), info, own_id is not None, metadata_of(fields or {}))


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


def _request(fields: Fields, request_id: str, defaults: SamplingParams) -> Request:
    _refuse_unsupported(fields)
    return Request(
        request_id, prompt_of(fields), sampling(fields, defaults), max_tokens(fields), metadata=metadata_of(fields)
    )


def _refuse_unsupported(fields: Fields) -> None:
    """Rows with an instruction are data, not calls of the API: all their further fields are metadata."""
    if fields.get("instruction") is not None:
        return
    for name in sorted(fields.keys() & UNSUPPORTED_FIELDS.keys()):
        value = fields[name]
        if value is not None and value not in UNSUPPORTED_FIELDS[name]:
            if name in _SAID_OTHERWISE:
                raise wrong(name, value, f"given as {_SAID_OTHERWISE[name]}")
            raise RequestError("unsupported_parameter", f"{name} is {value!r}, which can't be honoured; leave it out.")


def metadata_of(fields: Fields) -> dict[str, Any]:
    """What a row has beside its prompt and its settings."""
    own = SAMPLING_FIELDS | {"id", "max_tokens"} | _prompt_fields(fields)
    return {name: value for name, value in fields.items() if name not in own}


def _prompt_fields(fields: Fields) -> set[str]:
    return {*PROMPT_FIELDS, "input"} if fields.get("instruction") is not None else set(PROMPT_FIELDS)
