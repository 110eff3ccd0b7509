"""The body of a response → an answer, or why there is none in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lengthwise.types import Finished

BYTES_A_TOKEN = 4  # of text, where the server counts nothing: English prose, most tokenizers
_BROKEN_OFF = ("abort", "error")  # vLLM, OpenRouter: the server gave up, the text is a piece

Fields = Mapping[str, Any]


class NoAnswer(Exception):
    """There is no answer in a body. `code` is the server's own, where it wrote an error with status 200."""

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.code = code


def read_answer(request_id: str, content: bytes, max_tokens: int) -> Finished:
    """The answer in a body of `chat/completions` or `completions`; of several choices the first, and all of them in
    `response`. Raises NoAnswer."""
    body = _parse(content)
    choice = _first_choice(body)
    reason = choice.get("finish_reason")
    if reason in _BROKEN_OFF:
        raise NoAnswer(f"The server broke the answer off (finish_reason {reason!r}).")
    text = _text(choice)
    prompt_tokens, completion_tokens = count_tokens(body.get("usage"))
    if completion_tokens is None:
        completion_tokens = max_tokens if reason == "length" else _guess(text, max_tokens)
    return Finished(
        request_id,
        text,
        "length" if reason == "length" else "stop",
        completion_tokens,
        prompt_tokens=prompt_tokens,
        response=body,
    )


def count_tokens(usage: object) -> tuple[int | None, int | None]:
    """Prompt tokens and completion tokens by a server's `usage`; None for what it doesn't tell.

    Thinking tokens count: they are decode steps like others. OpenAI and vLLM have them inside `completion_tokens`; xAI
    and Gemini have them beside it, inside `total_tokens` only. So the completion is the largest of what is said of it.
    """
    if not isinstance(usage, Mapping):
        return None, None
    prompt, completion, total = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    counts = [] if completion is None else [completion]
    if prompt is not None and total is not None:
        counts.append(total - prompt)
    thinking = _thinking_tokens(usage)
    if thinking is not None and (not counts or thinking > max(counts)):
        counts.append(thinking + (completion or 0))
    largest = max(counts, default=0)
    return prompt, largest if largest > 0 else None


def _thinking_tokens(usage: Fields) -> int | None:
    details = usage.get("completion_tokens_details")
    return _count(details if isinstance(details, Mapping) else usage, "reasoning_tokens")


def _count(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _guess(text: str, max_tokens: int) -> int:
    return min(max_tokens, max(1, math.ceil(len(text.encode(errors="replace")) / BYTES_A_TOKEN)))


def _parse(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"The server answered with {_kind_of(content)}.") from error
    if not isinstance(body, dict):
        raise NoAnswer("The server answered with JSON that is no object.")
    return body


def _first_choice(body: Fields) -> Fields:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    error = body.get("error")
    if error:
        code = error.get("code") if isinstance(error, Mapping) else None
        raise NoAnswer(message_of(body) or "The server answered with an error.", code)
    raise NoAnswer("The server answered without `choices`.")


def _text(choice: Fields) -> str:
    """A choice's text; empty where it has none (a tool call, or thinking up to the limit)."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if content is None and isinstance(message, Mapping):
        return ""
    if isinstance(content, list):  # parts, as some servers give them
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if not isinstance(content, str):
        raise NoAnswer("The server answered with a choice that has neither `message` nor `text`.")
    return content


def _kind_of(content: bytes) -> str:
    if is_html(content):
        return "HTML"
    if content.lstrip().startswith((b"data:", b"event:")):
        return "a stream of events, which was not asked for"
    return "no JSON" if content else "nothing"


def is_html(content: bytes) -> bool:
    return content.lstrip()[:1] == b"<"


def message_of(body: object) -> str:
    """What an error's body says, in any of the shapes that servers use; empty where it says nothing."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):  # FastAPI: a list of what is wrong
        return "; ".join(filter(None, (message_of(one) for one in body)))
    if isinstance(body, Mapping):
        for name in ("error", "message", "detail", "msg"):
            if said := message_of(body.get(name)):
                return said
    return ""
