"""A file → its lines or its JSON array; gzip and Parquet are seen by their first bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from lengthwise.errors import InputError, first_line

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that is read as text, plain or gzip: UTF-8, where bytes that are none become U+FFFD. A Parquet file is
    read as its rows would stand in JSON lines.

    Reading raises InputError where the file can't be read.
    """

    path: Path

    def lines(self) -> Iterator[tuple[int, str]]:
        """Lines that are not blank, with their numbers from 1."""
        if self._is_parquet():
            yield from enumerate(self._parquet_rows(), start=1)
            return
        try:
            with self._open() as file:
                for number, line in enumerate(file, start=1):
                    text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
                    if text:
                        yield number, text
        except (OSError, EOFError, zlib.error) as error:  # the last two: gzip that was cut off, or is none
            raise self._unreadable(error) from error

    def first_line(self) -> str | None:
        """The first line that is not blank; None in an empty file."""
        return next((line for _, line in self.lines()), None)

    def array(self) -> list[Any]:
        """The whole file as one JSON array. Raises InputError if it is none."""
        try:
            value = json.loads("\n".join(line for _, line in self.lines()))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path} is no JSON ({error}); it may have been cut off.") from error
        if not isinstance(value, list):
            raise InputError(f"{self.path} is no JSON array; wanted is one array of objects.")
        return value

    def _is_parquet(self) -> bool:
        try:
            with self.path.open("rb") as raw:
                return raw.read(len(_PARQUET)) == _PARQUET
        except OSError as error:
            raise self._unreadable(error) from error

    def _parquet_rows(self) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches():
                    for row in batch.to_pylist():
                        known = {name: value for name, value in row.items() if value is not None}
                        yield json.dumps(known, default=str)  # dates and bytes stand in no field that is read
        except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
            raise InputError(f"{self.path} can't be read as Parquet ({first_line(error)}).") from error

    def _unreadable(self, error: Exception) -> InputError:
        told = getattr(error, "strerror", None) or error
        return InputError(f"{self.path} can't be read ({told}); give a file that can be.")

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        with self.path.open("rb") as raw:
            is_gzip = raw.peek(len(_GZIP)).startswith(_GZIP)
            # Only "\n" ends a line: Unicode's other separators stand in prompts.
            content = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            yield TextIOWrapper(content, encoding="utf-8", errors="replace", newline="\n")


def parse_object(line: str) -> dict[str, Any] | None:
    """The JSON object that a line is; None where it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def whole_tokens(value: Any) -> int | None:
    """A length: a whole number of tokens, 1 or more; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None
