"""A line of an OpenAI Batch file → a request.

A line is a call of the API: `custom_id`, `method` (POST), `url` (of chat/completions or completions) and `body`. The
body's `model` is passed over: it is the job's model that answers. What a body does not say, the job's settings say.
"""

from __future__ import annotations

from typing import Any

from lengthwise.errors import RequestError
from lengthwise.jobs import api
from lengthwise.jobs.prompts import messages_of
from lengthwise.jobs.values import SAMPLING_FIELDS, Fields, listed, sampling, text, wrong
from lengthwise.types import Message, Request, SamplingParams

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_PROMPT_OF = {CHAT: "messages", COMPLETIONS: "prompt"}
_LINE_FIELDS = frozenset({"custom_id", "method", "url", "body"})
_OWN = SAMPLING_FIELDS | {"messages", "prompt", "max_tokens", "max_completion_tokens"}
# Accounts, caches and speed: nothing of it changes an answer.
_PASSED_OVER = frozenset(
    {"model", "user", "metadata", "store", "stream", "stream_options", "service_tier", "safety_identifier"}
    | {"prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)


def custom_id(line: Fields) -> str:
    """The id that the line gives itself. Raises RequestError where that is none."""
    if line.get("custom_id") is None:
        raise RequestError("invalid_request", "The line has no custom_id, so its answer could not be told from others.")
    if not isinstance(line["custom_id"], str) or not line["custom_id"]:
        raise wrong("custom_id", line["custom_id"], "a text that is not empty")
    return text(line, "custom_id")


def request_of(line: Fields, request_id: str, defaults: SamplingParams) -> Request:
    """Raises RequestError for a line that is no call which can be answered."""
    body, url = _call(line)
    _check_body(body, url)
    prompt = messages_of(body["messages"]) if url == CHAT else _text(body["prompt"])
    asked = api.asked_of(body, body.keys() - _OWN - _PASSED_OVER)
    return Request(
        request_id,
        prompt,
        sampling(body, defaults),
        api.max_tokens(body),
        is_raw=url == COMPLETIONS,
        api_fields=asked,
    )


def _call(line: Fields) -> tuple[Fields, str]:
    """The call's body and its url."""
    unknown = line.keys() - _LINE_FIELDS
    if unknown:
        raise RequestError("invalid_request", f"The line has {listed(unknown)}, which no batch line has.")
    if line.get("method") != "POST":
        raise wrong("method", line.get("method"), "POST")
    url = line.get("url")
    if not isinstance(url, str) or url not in _PROMPT_OF:
        raise wrong("url", url, f"{CHAT} or {COMPLETIONS}")
    if not isinstance(line.get("body"), dict):
        raise wrong("body", line.get("body"), "an object")
    return line["body"], url


def _check_body(body: Fields, url: str) -> None:
    wanted = _PROMPT_OF[url]
    [other] = {*_PROMPT_OF.values()} - {wanted}
    if body.get(wanted) is None:
        raise RequestError("missing_prompt", f"body has no {wanted}, and {url} takes nothing else: nothing to answer.")
    if body.get(other) is not None:
        raise RequestError("invalid_request", f"body has {other}, which {url} does not take.")
    if body.get("stream") not in (None, False):
        raise wrong("stream", body["stream"], "left out: a batch has whole answers")


def _text(prompt: Any) -> str | tuple[Message, ...]:
    """One text; the API's list of several, and its tokens, would be other requests than one text."""
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, list):
        raise wrong("prompt", prompt, "one text; give each prompt a line, and texts instead of tokens")
    read = text({"prompt": prompt}, "prompt")
    if not read or read.isspace():
        raise RequestError("missing_prompt", "prompt is empty: there is nothing to answer.")
    return read
