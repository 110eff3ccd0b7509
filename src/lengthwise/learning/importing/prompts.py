"""Files that hold prompts, by the ids that the lengths have.

JSON lines: prompts files of `lengthwise run` (`prompt`, `messages`, `instruction`), OpenAI Batch requests. One JSON
array: conversations of the reference repository (`conversations` of `human` and `gpt`), and Alpaca's own
(`instruction`, `input`), where a row without an id has its place, from 1, as the reference counts them. Text: a line
is a prompt, and its number the id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError
from lengthwise.learning.importing.files import TextFile, parse_object, whole_tokens

_ROLES = {"human": "user", "user": "user", "system": "system"}
_FIELDS = ("prompt", "messages", "instruction")
_TEXT_SUFFIXES = (".txt", ".text")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's fields as given, and the limit that its row asked for."""

    fields: Mapping[str, Any]
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts by id, in the order of their file. Without a file: nothing is known of any id."""

    file: TextFile | None = None
    by_id: Mapping[str, Prompt] = field(default_factory=dict)

    @property
    def are_given(self) -> bool:
        return self.file is not None

    def of(self, row_id: str) -> Prompt | None:
        """None where a file was given that lacks this id; without a file, a prompt that has nothing."""
        return self.by_id.get(row_id) if self.are_given else Prompt({})

    def why_missing(self, row_id: str) -> str:
        assert self.file is not None, "nothing is missing where no prompts were given"
        return f"{self.file.path.name} has no prompt for the id {row_id!r}"


_Row = tuple[str | None, int, Prompt]  # its own id, if it has one; its place from 1


def read_prompts(file: TextFile) -> Prompts:
    """Raises InputError if there is no prompt in the file. Rows without one are passed over: an answer to them is
    told of when it comes up. The first row of an id counts."""
    rows = list(_rows_of(file)(file))
    own = {row_id for row_id, _, _ in rows if row_id is not None}
    by_id: dict[str, Prompt] = {}
    for row_id, number, prompt in rows:
        place = f"line-{number}" if str(number) in own else str(number)  # as `lengthwise run` names them
        by_id.setdefault(row_id if row_id is not None else place, prompt)
    if not by_id:
        raise InputError(
            f"{file.path} holds no prompts: wanted are JSON lines or an array with {', '.join(_FIELDS)}, "
            "or a .txt file with a prompt a line."
        )
    return Prompts(file, by_id)


def _rows_of(file: TextFile) -> Callable[[TextFile], Iterator[_Row]]:
    if Path(file.path.name.lower().removesuffix(".gz")).suffix in _TEXT_SUFFIXES:
        return _text_rows
    first = file.first_line() or ""
    if first.startswith("["):
        return _array_rows
    return _line_rows if first.startswith("{") else _text_rows


def _text_rows(file: TextFile) -> Iterator[_Row]:
    for number, line in file.lines():
        yield None, number, Prompt({"prompt": line})


def _array_rows(file: TextFile) -> Iterator[_Row]:
    for number, row in enumerate(file.array(), start=1):
        if isinstance(row, dict) and (prompt := prompt_of(row)):
            yield _own_id(row), number, prompt


def _line_rows(file: TextFile) -> Iterator[_Row]:
    for number, line in file.lines():
        if (row := parse_object(line)) and (prompt := prompt_of(row)):
            yield _own_id(row), number, prompt


def _own_id(row: Mapping[str, Any]) -> str | None:
    value = row.get("custom_id", row.get("id"))
    return None if value is None else str(value)


def prompt_of(row: Mapping[str, Any]) -> Prompt | None:
    """The prompt of a row of any of the formats; None where there is none."""
    if isinstance(row.get("conversations"), list):
        return conversation_prompt(row["conversations"])
    given = row["body"] if isinstance(row.get("body"), dict) else row
    name = next((name for name in _FIELDS if given.get(name)), None)
    if name is None:
        return None
    fields = {name: given[name]}
    if name == "instruction" and given.get("input") is not None:
        fields["input"] = given["input"]
    return Prompt(fields, whole_tokens(given.get("max_completion_tokens", given.get("max_tokens"))))


def conversation_prompt(turns: list[Any]) -> Prompt | None:
    """All before the first answer: a text if one person said it, else messages."""
    messages = []
    for turn in turns:
        role = _ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        if role is None:
            break
        messages.append({"role": role, "content": str(turn.get("value", ""))})
    if not messages:
        return None
    is_text = [message["role"] for message in messages] == ["user"]
    return Prompt({"prompt": messages[0]["content"]} if is_text else {"messages": messages})
