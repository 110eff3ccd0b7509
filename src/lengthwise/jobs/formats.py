"""The formats of prompts and answers, by name; and which one a file of prompts has.

**text**: a line is a prompt. **jsonl**: a line is an object, see `rows.py`. **openai-batch**: a line is a call of the
OpenAI API, see `batch.py`. **parquet**: a row is an object with the fields of a JSONL line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, Literal, get_args

from lengthwise.errors import InputError
from lengthwise.jobs.lines import Line
from lengthwise.jobs.prompts import PROMPT_FIELDS

InputFormat = Literal["auto", "jsonl", "text", "openai-batch", "parquet"]
OutputFormat = Literal["auto", "jsonl", "openai-batch", "parquet"]
INPUT_FORMATS: tuple[InputFormat, ...] = get_args(InputFormat)
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

MAX_HEAD_LINES, MAX_HEAD_CHARS = 64, 2**20  # looked at to find a line that says what its file is
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_COLUMNS = {"PAR1": "Parquet", "ARROW1": "Arrow", "FEA1": "Feather"}
_FORMAT_OF_SUFFIX: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
}
# None of these has a prompt on each of its lines, and as text they would be answered line by line all the same.
_OTHER_SUFFIXES = frozenset(
    {".csv", ".tsv", ".xls", ".xlsx", ".ods", ".arrow", ".feather", ".ipc", ".orc", ".avro"}
    | {".xml", ".html", ".htm", ".yaml", ".yml", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".pkl", ".npy", ".db"}
)
_ARRAY = re.compile(r"\[\s*(\{\s*(\"|\}|$)|$)")  # of objects, on one line or more
_CALL_FIELDS = {"custom_id", "method", "url"}


def format_of_lines(name: str, lines: Iterable[Line], asked: InputFormat) -> InputFormat:
    """`jsonl`, `text` or `openai-batch`: as asked, else by the suffix and the first lines.

    Of `lines`, from the file's start, no more are taken than it needs to know. Raises InputError where the file is
    wrong as a whole: empty, UTF-16, a table, a JSON array.
    """
    head = iter(lines)
    first = next(head, None)
    if first is None:
        raise InputError(f"{name} is empty: there is no prompt in it.")
    start = _start_of(first)
    suffix = PurePath(name.lower().removesuffix(".gz")).suffix
    if first.start.lstrip().startswith(_UTF16_BOMS):
        raise InputError(f"{name} is UTF-16; convert it to UTF-8, with `iconv -f UTF-16 -t UTF-8`, for instance.")
    if asked == "text" or (asked == "auto" and _FORMAT_OF_SUFFIX.get(suffix) == "text"):
        return "text"
    _refuse_others(name, start, suffix)
    if asked != "auto":
        return asked
    if suffix in _OTHER_SUFFIXES:
        raise InputError(
            f"{name} ends in {suffix}, which can't be read; convert it to JSONL or Parquet, or say --input-format text "
            "if each of its lines is a prompt."
        )
    found = _FORMAT_OF_SUFFIX.get(suffix, "jsonl" if start.startswith("{") else "text")
    return "openai-batch" if found == "jsonl" and _is_call(_first_object(first, head)) else found


def _start_of(line: Line) -> str:
    """How it begins, whether it can be read or not."""
    start = line.content if isinstance(line.content, str) else line.start.decode(errors="replace")
    return start.removeprefix("\ufeff").lstrip()


def _refuse_others(name: str, start: str, suffix: str) -> None:
    for magic, kind in _COLUMNS.items():
        if start.startswith(magic):
            raise InputError(
                f"{name} is {kind}; give a Parquet file by its name, not compressed, or say --input-format text if it "
                "is a text that only begins so."
            )
    if _ARRAY.match(start) or (suffix == ".json" and start.startswith("[")):
        raise InputError(
            f"{name} is one JSON array; wanted is one object a line, as `jq -c '.[]'` prints them. If each line is a "
            "prompt all the same, say --input-format text."
        )


def _first_object(first: Line, others: Iterable[Line]) -> dict[str, Any]:
    """The fields of the first line that is a JSON object: bad ones before it say nothing. None of them, if there is
    none soon."""
    num_chars = 0
    for line in chain([first], islice(others, MAX_HEAD_LINES - 1)):
        fields = _object(line.content)
        if fields is not None:
            return fields
        num_chars += len(line.content) if isinstance(line.content, str) else 0
        if num_chars > MAX_HEAD_CHARS:
            break
    return {}


def _object(content: object) -> dict[str, Any] | None:
    try:
        fields = json.loads(content) if isinstance(content, str) else None
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _is_call(fields: dict[str, Any]) -> bool:
    """A call of the API has a body, or should have: it says for whom, how or where. A row of our own has a prompt."""
    said = _CALL_FIELDS & fields.keys()
    has_body = "body" in fields or ("custom_id" in said and len(said) > 1)
    return bool(said) and has_body and fields.keys().isdisjoint(PROMPT_FIELDS)
