"""The formats of prompts and answers, by name; and which one a file of prompts has.

**text**: a line is a prompt. **jsonl**: a line is an object, see `rows.py`. **openai-batch**: a line is a call of the
OpenAI API, see `batch.py`. **parquet**: a row is an object with the fields of a JSONL line.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Literal, get_args

from lengthwise.errors import InputError

InputFormat = Literal["auto", "jsonl", "text", "openai-batch", "parquet"]
OutputFormat = Literal["auto", "jsonl", "openai-batch", "parquet"]
INPUT_FORMATS: tuple[InputFormat, ...] = get_args(InputFormat)
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_FORMAT_OF_SUFFIX: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
}
_BATCH_FIELDS = {"custom_id", "method", "url"}


def format_of_lines(name: str, start: bytes, asked: InputFormat) -> InputFormat:
    """`jsonl`, `text` or `openai-batch`: as asked, else by the first line that is not blank and by the suffix.

    `start` is that first line. Raises InputError where the file is wrong as a whole: empty, UTF-16, one JSON array.
    """
    start = start.removeprefix(BOM).strip()
    suffix = PurePath(name.lower().removesuffix(".gz")).suffix
    if not start:
        raise InputError(f"{name} is empty: there is no prompt in it.")
    if start.startswith(_UTF16_BOMS):
        raise InputError(f"{name} is UTF-16; convert it to UTF-8, with `iconv -f UTF-16 -t UTF-8`, for instance.")
    if asked != "auto":
        return asked
    if suffix == ".json" and start.startswith(b"["):
        raise InputError(f"{name} is one JSON array; wanted is one object a line, as `jq -c '.[]' {name}` prints them.")
    found = _FORMAT_OF_SUFFIX.get(suffix, "jsonl" if start.startswith(b"{") else "text")
    return "openai-batch" if found == "jsonl" and _is_batch(start) else found


def _is_batch(line: bytes) -> bool:
    """A call of the API has a body, and says for whom, how or where."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and "body" in fields and not _BATCH_FIELDS.isdisjoint(fields)
