"""Where prompts come from: a file of lines, standard input, a Parquet file.

source = open_source(path, "auto")
for line in source.lines():
    row = read_row(line, source.format, defaults)   # rows.py
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol

from lengthwise.errors import InputError, UsageError
from lengthwise.jobs.formats import InputFormat, format_of_lines
from lengthwise.jobs.lines import Line, read_lines
from lengthwise.jobs.parquet import ParquetFile, is_parquet
from lengthwise.jobs.streams import buffered, decompressed, open_file, standard_input

STANDARD_INPUT = Path("-")


class Source(Protocol):
    """Prompts that can be read from front to end."""

    name: str  # for messages: the path, or "standard input"
    format: InputFormat  # what it is, never `auto`
    is_repeatable: bool  # False for standard input, which can be read once only

    def lines(self) -> Iterator[Line]:
        """Its lines, from the first one at each call. Raises InputError where it turns out wrong as a whole."""
        ...

    @property
    def sha256(self) -> str:
        """Of what was read, once `lines` was exhausted: a file's content, decompressed; a Parquet file as it is."""
        ...


def open_source(prompts: Path, asked: InputFormat = "auto", prompt_field: str | None = None) -> Source:
    """The prompts at `prompts`; `-` is standard input.

    Reads no more than is needed to know the format. Raises InputError for what is no file of prompts, UsageError for a
    `prompt_field` where there are no fields to choose from.
    """
    source = _source(prompts, asked, prompt_field)
    if prompt_field is not None and source.format not in ("jsonl", "parquet"):
        raise UsageError(
            f"--prompt-field {prompt_field} names a field, and {source.name} is read as {source.format}, which has "
            "none to choose from; leave it out, or say --input-format."
        )
    return source


def _source(prompts: Path, asked: InputFormat, prompt_field: str | None) -> Source:
    if prompts == STANDARD_INPUT:
        return StandardInput(asked)
    is_named_so = prompts.suffix.lower() == ".parquet"
    if asked == "parquet" or (asked == "auto" and (is_named_so or is_parquet(prompts))):
        return ParquetFile(prompts, prompt_field)
    return LineFile(prompts, asked)


class LineFile:
    """A file of lines, compressed by gzip or not."""

    is_repeatable = True

    def __init__(self, path: Path, asked: InputFormat) -> None:
        self.name = str(path)
        self._path = path
        self._digest = hashlib.sha256()
        with closing(self.lines()) as lines:
            self.format = format_of_lines(self.name, lines, asked)

    def lines(self) -> Generator[Line, None, None]:
        self._digest = digest = hashlib.sha256()
        with open_file(self._path) as file:
            yield from _lines(self.name, file, digest)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class StandardInput:
    """What is fed to the process: read once. Nothing of it is held but the line that is at hand, and before those are
    asked for the first ones, by which its format is known."""

    is_repeatable = False
    name = "standard input"

    def __init__(self, asked: InputFormat) -> None:
        self._digest = hashlib.sha256()
        if asked == "parquet":
            raise InputError(
                "A Parquet file can't be read from standard input: its end says what is in it. Name the file."
            )
        self._lines = _lines(self.name, standard_input(), self._digest)
        self._head: list[Line] = []
        self.format = format_of_lines(self.name, self._looked_at(), asked)

    def lines(self) -> Iterator[Line]:
        head, self._head = self._head, []
        return chain(head, self._lines)

    def _looked_at(self) -> Iterator[Line]:
        for line in self._lines:
            self._head.append(line)
            yield line

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _lines(name: str, file: IO[bytes], digest: Any) -> Iterator[Line]:
    """The lines of a file's content, which `digest` sees. Raises InputError where it can't be read on."""
    number = 0
    try:
        for line in read_lines(buffered(b"", decompressed(name, file), digest)):
            number = line.number
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(name, number, error) from error


def _broken(name: str, number: int, error: Exception) -> InputError:
    before = f"after its line {number:,}" if number else "from its start"
    if isinstance(error, (EOFError, zlib.error)):
        return InputError(f"{name} is gzip and can't be unpacked {before}: {error}. Copy or compress it again.")
    return InputError(f"{name} can't be read {before}: {error}.")
