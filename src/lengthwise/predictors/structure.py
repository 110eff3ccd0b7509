"""What a request looks like beside its words: numbers for trees to split on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from lengthwise.estimates import Floats
from lengthwise.predictors.terms import clip, prompt_text
from lengthwise.types import Request, message_text

NAMES = (
    "first_line_characters",
    "first_line_words",
    "other_characters",
    "other_words",
    "other_lines",
    "commas",
    "full_stops",
    "quotes",
    "capitals",
    "digits",
    "is_question",
    "ends_in_colon",
    "num_numbers",
    "first_number",
    "largest_number",
    "foreign_bytes",
    "num_messages",
    "system_characters",
    "history_characters",
    "num_tools",
    "has_response_format",
    "thinking",
)

# `max_tokens` is left out: estimates are natural lengths, which a limit does not change.
_NUMBER_WORDS = {
    word: number
    for number, word in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=2)
}
# How much is thought before the answer is written, where it is asked for: off, unsaid, on, or an effort.
_EFFORTS = {"none": -1.0, "minimal": 1.0, "low": 2.0, "medium": 3.0, "high": 4.0, "xhigh": 5.0}
_SWITCHES = ("enable_thinking", "thinking")  # of chat templates: Qwen's and SmolLM's, DeepSeek's and Granite's
_find_numbers = re.compile(r"\b(?:\d{1,4}|" + "|".join(_NUMBER_WORDS) + r")\b").findall
_count_capitals = re.compile("[A-Z]").findall
_count_digits = re.compile("[0-9]").findall


def structure(requests: Sequence[Request]) -> Floats:
    """n × len(NAMES), float32."""
    rows = [_text_row(clip(prompt_text(request))) + _chat_row(request) for request in requests]
    return np.array(rows, np.float32).reshape(len(requests), len(NAMES))


def _text_row(text: str) -> list[float]:
    first, _, rest = text.strip().partition("\n")
    numbers = [_NUMBER_WORDS.get(word) or int(word) for word in _find_numbers(first.lower())]
    return [
        len(first),
        first.count(" ") + 1,
        len(rest),
        rest.count(" "),
        rest.count("\n"),
        text.count(","),
        text.count("."),
        text.count('"'),
        len(_count_capitals(first)),
        len(_count_digits(text)),
        first.endswith("?"),
        first.endswith(":"),
        len(numbers),
        numbers[0] if numbers else 0,
        max(numbers, default=0),
        0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - len(text),
    ]


def _chat_row(request: Request) -> list[float]:
    fields = request.api_fields
    tools = fields.get("tools")
    num_tools = len(tools) if isinstance(tools, list) else 0
    about_fields = [num_tools, bool(fields.get("response_format")), _thinking(request)]
    if isinstance(request.prompt, str):
        return [0, 0, 0, *about_fields]
    sizes = [(message.get("role"), len(message_text(message))) for message in request.prompt]
    system = sum(size for role, size in sizes if role in ("system", "developer"))
    history = sum(size for _, size in sizes[:-1]) - (system if sizes and sizes[-1][0] != "system" else 0)
    return [len(sizes), system, max(history, 0), *about_fields]


def _thinking(request: Request) -> float:
    """By the fields of the API, or by the words that switch it in the last message (Qwen's)."""
    fields = request.api_fields
    reasoning = fields.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, Mapping) else fields.get("reasoning_effort")
    if isinstance(effort, str) and effort in _EFFORTS:
        return _EFFORTS[effort]
    template = fields.get("chat_template_kwargs")
    switches = [template.get(name) for name in _SWITCHES] if isinstance(template, Mapping) else []
    for is_on in switches:
        if isinstance(is_on, bool):
            return 1.0 if is_on else -1.0
    prompt = request.prompt
    last = prompt if isinstance(prompt, str) else message_text(prompt[-1]) if prompt else ""
    ending = last[-200:].rstrip()
    return -1.0 if ending.endswith("/no_think") else float(ending.endswith("/think"))
