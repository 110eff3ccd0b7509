"""A request → where it is posted, and the body of its POST."""

from __future__ import annotations

import json
from typing import Any

from lengthwise.engines.openai.options import ServerOptions
from lengthwise.errors import RequestError
from lengthwise.types import ErrorInfo, Prepared, Request, SamplingParams

CHAT, COMPLETIONS = "/chat/completions", "/completions"
MAX_SEED = 2**31 - 1  # servers hold seeds in 32 bits, some with a sign

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def path_of(request: Request) -> str:
    return COMPLETIONS if request.is_raw else CHAT


def prepare(request: Request, options: ServerOptions) -> Prepared | ErrorInfo:
    """About how long the prompt is, and the answer's limit; how long it is the server tells with the answer only."""
    if request.is_raw and not isinstance(request.prompt, str):
        return ErrorInfo("invalid_request", "Messages can't be continued as they are; only a text can.")
    if "stream" in request.api_fields:
        return ErrorInfo("unsupported_parameter", "stream can't be honoured: an answer is taken as a whole.")
    return Prepared(1 + len(request.text) // 4, request.max_tokens or options.max_tokens)


def body_of(request: Request, model: str, options: ServerOptions, priority: float | None) -> bytes:
    """The JSON that is posted. Raises RequestError for what JSON can't hold.

    Temperature and `top_p` are always said: some servers have defaults of their own for each model. What is no field of
    OpenAI's (`top_k`, `repetition_penalty`) is said only when it is asked for.
    """
    body: dict[str, Any] = {**request.api_fields, "model": model, **_prompt(request), **_sampling(request.sampling)}
    body[options.max_tokens_field] = request.max_tokens or options.max_tokens
    if priority is not None and options.is_lower_priority_sooner is not None:
        body["priority"] = round(-priority if options.is_lower_priority_sooner else priority)
    try:
        return _encode(body).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError("invalid_request", f"The request can't be written as JSON: {error}.") from error


def _prompt(request: Request) -> dict[str, Any]:
    if request.is_raw:
        return {"prompt": request.prompt}
    if isinstance(request.prompt, str):
        return {"messages": [{"role": "user", "content": request.prompt}]}
    return {"messages": list(request.prompt)}


def _sampling(sampling: SamplingParams) -> dict[str, Any]:
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.seed is not None and not sampling.is_greedy:  # greedy answers draw nothing
        fields["seed"] = sampling.seed if sampling.seed <= MAX_SEED else sampling.seed & MAX_SEED
    if sampling.top_k is not None:
        fields["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1:
        fields["repetition_penalty"] = sampling.repetition_penalty
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(sampling, name):
            fields[name] = value
    return fields
