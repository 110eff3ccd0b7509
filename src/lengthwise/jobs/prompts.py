"""The fields of a row → its prompt: `prompt`, `messages`, or `instruction` and `input`.

How the last two are joined is `types.instruction_prompt`, for all who read such data.
"""

from __future__ import annotations

from typing import Any

from lengthwise.errors import RequestError
from lengthwise.jobs.values import Fields, text, wrong
from lengthwise.types import ROLES, Message, instruction_prompt, message_text

PROMPT_FIELDS = ("prompt", "messages", "instruction")
_ROLES = (*ROLES, "tool", "function")
_PLAIN = {"role", "content"}
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "audio", "refusal")


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


def _input(fields: Fields) -> str:
    return "" if fields.get("input") is None else text(fields, "input")


def messages_of(value: Any, name: str = "messages") -> tuple[Message, ...]:
    """Chat messages as they were given: images and calls of tools too, which it is for the engine to honour or to
    refuse. What says nothing (`"refusal": null`) is left out. Raises RequestError for what is no chat."""
    if not isinstance(value, list) or not value:
        raise wrong(name, value, "a list of messages, at least one")
    messages = tuple(_message(message, f"{name}[{index}]") for index, message in enumerate(value))
    if not any(message_text(message).strip() or _has_more(message) for message in messages):
        raise RequestError("missing_prompt", "All messages are empty: there is nothing to answer.")
    return messages


def _message(message: Any, name: str) -> Message:
    if not isinstance(message, dict):
        raise wrong(name, message, "an object with role and content")
    if message.get("role") not in _ROLES:
        raise wrong(f"{name}.role", message.get("role"), f"{', '.join(_ROLES[:-1])} or {_ROLES[-1]}")
    if message.get("name") is not None:
        text({f"{name}.name": message["name"]}, f"{name}.name")
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(part, f"{name}.content[{index}]")
    elif content is not None or not _has_more(message):
        text({f"{name}.content": content}, f"{name}.content")
    return message if message.keys() == _PLAIN else _said_in(message)


def _check_part(part: Any, name: str) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise wrong(name, part, "an object with a type")
    if part["type"] == "text":
        text({f"{name}.text": part.get("text")}, f"{name}.text")


def _said_in(message: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in message.items() if field == "content" or value not in (None, [], {})}


def _has_more(message: Message) -> bool:
    """Whether it says more than a text: a call of a tool, an image."""
    content = message.get("content")
    has_parts = isinstance(content, list) and any(part["type"] != "text" for part in content)
    return has_parts or any(message.get(field) for field in _INSTEAD_OF_CONTENT)
