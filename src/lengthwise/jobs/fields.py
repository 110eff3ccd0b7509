"""The fields of a JSONL line or a Parquet row → a request.

One of `prompt`, `messages`, `instruction` (with `input` or without) is the prompt; `id`, `max_tokens`, the fields of
SamplingParams and those of the OpenAI API (`api.py`) are the row's own settings, null like left out; all further
fields are metadata and come back in the answer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from lengthwise.jobs import api
from lengthwise.jobs.prompts import PROMPT_FIELDS, prompt_of
from lengthwise.jobs.values import SAMPLING_FIELDS, Fields, limit, sampling, text, wrong
from lengthwise.types import Request, SamplingParams

_SETTINGS = SAMPLING_FIELDS | {"id", "max_tokens"}


def row_id(fields: Fields) -> str | None:
    """A row's own id, as text; None where it gives none."""
    value = fields.get("id")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise wrong("id", value, "a text or a whole number")
    return text(fields, "id")


def request_of(fields: Fields, request_id: str, defaults: SamplingParams, prompt_field: str | None = None) -> Request:
    """Raises RequestError for a row that is no request."""
    is_data = _is_data(fields, prompt_field)
    return Request(
        request_id,
        prompt_of(fields, prompt_field),
        sampling(fields, defaults),
        limit(fields, "max_tokens") if is_data else api.max_tokens(fields),
        metadata_of(fields, prompt_field),
        False,
        {} if is_data else api.asked_of(fields, api.FIELDS),
    )


def metadata_of(fields: Fields, prompt_field: str | None = None) -> dict[str, Any]:
    """What a row has beside its prompt and its settings."""
    known = _known(prompt_field, _is_data(fields, prompt_field))
    if fields.keys() <= known:
        return {}
    return {name: value for name, value in fields.items() if name not in known}


@cache
def _known(prompt_field: str | None, is_data: bool) -> frozenset[str]:
    prompts = {*PROMPT_FIELDS} if prompt_field is None else {prompt_field}
    return _SETTINGS | prompts | ({"input"} if is_data else api.FIELDS)


def _is_data(fields: Fields, prompt_field: str | None) -> bool:
    """Rows with an instruction are data, not calls of the API: all their further fields are metadata."""
    return prompt_field in (None, "instruction") and fields.get("instruction") is not None
