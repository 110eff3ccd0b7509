"""The question to a language model how long its own answer would be: Perception Only and Perception in Advance
(arXiv 2305.13144, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from lengthwise.predictors.terms import clip
from lengthwise.types import Message, Request

Form = Literal["po", "pia"]
"""`po`: the number alone is asked for, and no answer; `pia`: the number in the first line, then the answer."""

# Wording matters. Of eight for `po`, on 300 prompts of the bundled model, the numbers given to this one ordered lengths
# best (Kendall tau 0.55; the others 0.36 to 0.44, and one 0, which the model did not understand). `pia` has 0.42, the
# best of three that the model was not trained on (0.24, 0.33; one of its training's 0.51).
QUESTIONS: Mapping[Form, str] = {
    "po": "Only estimate how many tokens your answer would take. Do not answer: give nothing but the number.",
    "pia": (
        "Begin with a line that holds nothing but a number: how many tokens the answer below it will have, by your own "
        "estimate. Give the answer after that line."
    ),
}


def question_about(request: Request, form: Form) -> Request:
    """The same prompt with the question behind it: in a chat in the user's last message (or one more, where the last is
    somebody else's).

    Long texts go in by their beginnings and ends (8,000 characters): to read them whole would cost as much as to answer
    them. Fields that would shape an answer (tools, a JSON schema) are left out, since a number is asked for.
    """
    asked = QUESTIONS[form]
    prompt = _behind(request.prompt, asked) if isinstance(request.prompt, str) else _in_chat(request.prompt, asked)
    return replace(request, prompt=prompt, api_fields={})


def _behind(text: str, asked: str) -> str:
    return f"{clip(text)}\n\n{asked}"


def _in_chat(messages: tuple[Message, ...], asked: str) -> tuple[Message, ...]:
    shortened = [_shortened(message) for message in messages]
    last = shortened[-1] if shortened else {}
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return (*shortened[:-1], {**last, "content": f"{last['content']}\n\n{asked}"})
    if last.get("role") == "user" and isinstance(last.get("content"), list):
        return (*shortened[:-1], {**last, "content": [*last["content"], {"type": "text", "text": f"\n\n{asked}"}]})
    return (*shortened, {"role": "user", "content": asked})


def _shortened(message: Message) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": clip(content)} if isinstance(content, str) else dict(message)
