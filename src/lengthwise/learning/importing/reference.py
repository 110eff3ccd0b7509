"""The files of the paper's repository (github.com/zhengzangw/Sequence-Scheduling, `data/`).

`*-length.json`: an array of `id`, `L_gt` (the reference answer) and `L_t0.0`, `L_t0.3`, ... (the model's at these
temperatures), without prompts: those stand in `alpaca-train-10k.json` (conversations), or in Alpaca's own file.
`*-instruct.json`: conversations whose answer is the length to be learned: the longest of the four, rounded up to 50.
"""

from __future__ import annotations

from typing import Any, NoReturn

from lengthwise.errors import InputError
from lengthwise.learning.importing.files import TextFile, whole_tokens
from lengthwise.learning.importing.prompts import Prompts, conversation_prompt
from lengthwise.learning.importing.rows import LeftOut, LengthRow, Rows

REFERENCE = "L_gt"  # the reference answer's, which no model wrote and no limit cut
LIMIT = 512  # tokens of an answer at most; `lenpred.py --max-length`


def length_rows(file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    """One row a prompt, with all its `L_` fields. Answers were cut at the limit, a few are counted a token or two above
    it: they have the limit, which stands in `max_tokens`."""
    for number, row in enumerate(file.array(), start=1):
        yield _length_row(f"row {number}", row, prompts, limit or LIMIT)


def _length_row(place: str, row: Any, prompts: Prompts, limit: int) -> LengthRow | LeftOut:
    if not isinstance(row, dict) or row.get("id") is None:
        return LeftOut(place, "it has no id")
    row_id = str(row["id"])
    given = {name: value for name, value in row.items() if name.startswith("L_")}
    lengths = {name: tokens for name in sorted(given) if (tokens := whole_tokens(given[name])) is not None}
    if not lengths or len(lengths) < len(given):
        return LeftOut(place, f"its lengths are {given}; wanted are whole numbers of tokens, 1 or more")
    prompt = prompts.of(row_id)
    if prompt is None:
        return LeftOut(place, prompts.why_missing(row_id))
    within = {name: tokens if name == REFERENCE else min(tokens, limit) for name, tokens in lengths.items()}
    return LengthRow(place, row_id, within, prompt.fields, max_tokens=limit)


def instruct_rows(file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    """One row a prompt; `length` is the number that the file has as the answer. The question for the length, the last
    line of every prompt, is taken off."""
    rows = file.array()
    question = _question([row for row in rows if isinstance(row, dict)])
    for number, row in enumerate(rows, start=1):
        yield _instruct_row(f"row {number}", row, question)


def _instruct_row(place: str, row: Any, question: str) -> LengthRow | LeftOut:
    turns = row.get("conversations") if isinstance(row, dict) else None
    prompt = conversation_prompt(turns) if isinstance(turns, list) else None
    if prompt is None or row.get("id") is None or "prompt" not in prompt.fields:
        return LeftOut(place, "it is no conversation of one question and one answer with an id")
    told = stated_length(row)
    if told is None:
        return LeftOut(place, "its answer is no length: wanted is a whole number, 1 or more")
    text = prompt.fields["prompt"].removesuffix(question)
    return LengthRow(place, str(row["id"]), {"length": told}, {"prompt": text})


def _question(rows: list[dict[str, Any]]) -> str:
    """The last line that all prompts have in common, with the line's end before it; empty where they have none."""
    last_lines = {_last_line(row) for row in rows}
    return last_lines.pop() if len(last_lines) == 1 else ""


def _last_line(row: dict[str, Any]) -> str:
    turns = row.get("conversations")
    prompt = conversation_prompt(turns) if isinstance(turns, list) else None
    text = str(prompt.fields.get("prompt", "")) if prompt else ""
    return text[text.rindex("\n") :] if "\n" in text else ""


def stated_length(row: dict[str, Any]) -> int | None:
    """The number of tokens that a conversation's answer states; None where it is an answer in words."""
    turns = row.get("conversations")
    last = turns[-1] if isinstance(turns, list) and turns else None
    text = str(last.get("value", "")).strip() if isinstance(last, dict) else ""
    return whole_tokens(int(text)) if text.isascii() and text.isdigit() else None


def refuse_words(file: TextFile) -> NoReturn:
    raise InputError(
        f"{file.path} has prompts and answers in words, but no lengths; give it as --prompts, with the file of lengths "
        "(`*-length.json`) to be imported."
    )
