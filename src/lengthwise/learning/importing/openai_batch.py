"""Output files of the OpenAI Batch API, and of what speaks it (`vllm run-batch`, `lengthwise run`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lengthwise.learning.importing.files import TextFile, parse_object, whole_tokens
from lengthwise.learning.importing.prompts import Prompts
from lengthwise.learning.importing.rows import LeftOut, LengthRow, Rows


def batch_rows(file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    """One row an answer; failed requests are left out. `limit` holds where the request gave none."""
    for number, line in file.lines():
        yield _row(f"line {number}", parse_object(line), prompts, limit)


def _row(place: str, row: Mapping[str, Any] | None, prompts: Prompts, limit: int | None) -> LengthRow | LeftOut:
    if row is None or row.get("custom_id") is None:
        return LeftOut(place, "it is no JSON object with a custom_id")
    body = _body(row)
    if body is None:
        return LeftOut(place, f"the request failed: {_error(row)}")
    choices, usage = body.get("choices"), body.get("usage")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return LeftOut(place, "it has not one answer, and its usage counts the tokens of all")
    length = whole_tokens(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if length is None:
        return LeftOut(place, "its usage has no completion_tokens")
    row_id = str(row["custom_id"])
    prompt = prompts.of(row_id)
    if prompt is None:
        return LeftOut(place, prompts.why_missing(row_id))
    is_cut = choices[0].get("finish_reason") == "length"
    model = body.get("model")
    return LengthRow(
        place,
        row_id,
        {"length": length},
        prompt.fields,
        is_cut,
        prompt.max_tokens or limit,
        model if isinstance(model, str) else None,
    )


def _body(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The response's body where the request went well."""
    response = row.get("response")
    if not isinstance(response, dict) or response.get("status_code") != 200:
        return None
    body = response.get("body")
    return body if isinstance(body, dict) else None


def _error(row: Mapping[str, Any]) -> str:
    """The message, wherever it stands: in `error`, in vLLM's `error.error`, in the body of a refused request."""
    response = row.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    for place in (row.get("error"), body):
        while isinstance(place, dict) and isinstance(place.get("error"), dict):
            place = place["error"]
        if isinstance(place, dict) and place.get("message"):
            return str(place["message"])
    return "no message was kept"
