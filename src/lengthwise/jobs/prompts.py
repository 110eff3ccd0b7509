"""The fields of a row → its prompt: `prompt`, `messages`, or `instruction` and `input`.

Shared with whoever reads the same data elsewhere: `instruction_prompt` is the one place that joins the two.
"""

from __future__ import annotations

from typing import Any

from lengthwise.errors import RequestError
from lengthwise.jobs.values import Fields, text, wrong
from lengthwise.types import ROLES, Message

PROMPT_FIELDS = ("prompt", "messages", "instruction")
_PLAIN = {"role", "content"}


def prompt_of(fields: Fields, prompt_field: str | None = None) -> str | tuple[Message, ...]:
    """The row's prompt, in the field of that name, if one is named. Raises RequestError if it has none, an empty one,
    or more than one."""
    name = _given(fields) if prompt_field is None else prompt_field
    value = fields.get(name)
    if value is None:
        raise RequestError("missing_prompt", f"The row has no {name}: nothing to answer.")
    if name == "messages" or (isinstance(value, list) and name not in PROMPT_FIELDS):
        return messages_of(value, name)
    prompt = text(fields, name)
    if not prompt or prompt.isspace():
        raise RequestError("missing_prompt", f"{name} is empty: there is nothing to answer.")
    return instruction_prompt(prompt, _input(fields)) if name == "instruction" else prompt


def _given(fields: Fields) -> str:
    given = [name for name in PROMPT_FIELDS if fields.get(name) is not None]
    if not given:
        raise RequestError("missing_prompt", "The row has no prompt, messages or instruction: nothing to answer.")
    if len(given) > 1:
        raise RequestError("invalid_request", f"The row has {' and '.join(given)}: which is the prompt? Keep one.")
    return given[0]


def instruction_prompt(instruction: str, input: str = "") -> str:
    """An instruction and the text that it is about, as the paper's data joins them: on the next line."""
    return f"{instruction}\n{input}" if input else instruction


def _input(fields: Fields) -> str:
    return "" if fields.get("input") is None else text(fields, "input")


def messages_of(value: Any, name: str = "messages") -> tuple[Message, ...]:
    """Chat messages, each a text. Raises RequestError for what can't be honoured: images, calls of tools."""
    if not isinstance(value, list) or not value:
        raise wrong(name, value, "a list of messages, at least one")
    messages = tuple(_message(message, f"{name}[{index}]") for index, message in enumerate(value))
    if not any(message["content"].strip() for message in messages):
        raise RequestError("missing_prompt", "All messages are empty: there is nothing to answer.")
    return messages


def _message(message: Any, name: str) -> Message:
    if not isinstance(message, dict):
        raise wrong(name, message, "an object with role and content")
    given = message if message.keys() == _PLAIN else _said_in(message)
    unsupported = sorted(given.keys() - {"role", "content", "name"})
    if unsupported:
        raise RequestError("unsupported_parameter", f"{name} has {', '.join(unsupported)}, which can't be honoured.")
    if message.get("role") not in ROLES:
        raise wrong(f"{name}.role", message.get("role"), "system, developer, user or assistant")
    if "name" in given:
        text({f"{name}.name": given["name"]}, f"{name}.name")
    return {**given, "content": _content(message.get("content"), f"{name}.content")}


def _said_in(message: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in message.items() if value not in (None, [], {})}


def _content(content: Any, name: str) -> str:
    """A text, or the API's list of parts, if all are texts."""
    if not isinstance(content, list):
        return text({name: content}, name)
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise RequestError("unsupported_parameter", f"{name} has a part of type {kind!r}; only texts can be read.")
    return "".join(text({f"{name}.text": part.get("text")}, f"{name}.text") for part in content)
