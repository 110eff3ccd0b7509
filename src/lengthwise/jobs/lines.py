"""A file → its lines, decoded; and which format it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lengthwise.errors import InputError, RequestError
from lengthwise.jobs.options import InputFormat

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_FORMAT_OF_SUFFIX: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank: its 1-based number, and its text, or why it can't be read."""

    number: int
    content: str | RequestError


@dataclass
class Lines:
    """The lines of a file, read once from front to end; blank ones are passed over but counted.

    `sha256` is that of the whole file once the lines are exhausted. A byte-order mark and carriage returns at line
    ends are dropped. A line that is no UTF-8 is an error of its own. Only `\\n` ends a line: Unicode's other
    separators stand in prompts.
    """

    path: Path
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        return str(self._digest.hexdigest())

    def __iter__(self) -> Iterator[Line]:
        with open_prompts(self.path) as file:
            for number, raw in enumerate(file, start=1):
                self._digest.update(raw)
                content = raw.removeprefix(_BOM) if number == 1 else raw
                content = content.rstrip(b"\r\n")
                if content.strip():
                    yield Line(number, _decoded(content))


def _decoded(raw: bytes) -> str | RequestError:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return RequestError("invalid_encoding", f"The line is not UTF-8: {error.reason} at its byte {error.start + 1}.")


def open_prompts(path: Path) -> IO[bytes]:
    """Raises InputError unless `path` is a file that can be read, and read again when the job is resumed."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory; give a file of prompts.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file, and a resumed job reads its prompts again; save them to one.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a file of prompts.") from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); give a file of prompts.") from error


def find_format(path: Path, asked: InputFormat) -> InputFormat:
    """`jsonl` or `text`: as asked, else by the suffix, else by the first character that is not blank.

    Raises InputError where the file is wrong as a whole: empty, UTF-16, one JSON array.
    """
    with open_prompts(path) as file:
        start = next((line for line in file if line.removeprefix(_BOM).strip()), b"").removeprefix(_BOM).lstrip()
    if not start:
        raise InputError(f"{path} is empty: there is no prompt in it.")
    if start.startswith(_UTF16_BOMS):
        raise InputError(f"{path} is UTF-16; convert it to UTF-8, with `iconv -f UTF-16 -t UTF-8`, for instance.")
    if asked != "auto":
        return asked
    if path.suffix.lower() == ".json" and start.startswith(b"["):
        raise InputError(f"{path} is one JSON array; wanted is one object a line, as `jq -c '.[]' {path}` prints them.")
    return _FORMAT_OF_SUFFIX.get(path.suffix.lower(), "jsonl" if start.startswith(b"{") else "text")
