"""Bytes → lines, decoded; none is ever held that is longer than a line may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from lengthwise.errors import RequestError

BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 16 * 2**20  # the longest contexts are some millions of tokens, at about 4 bytes
START_BYTES = 64  # kept of a line that can't be read
_SKIPPED_BYTES = 2**16  # held at once of what is passed over


@dataclass(slots=True)  # frozen would be right, and take half a microsecond more
class Line:
    """One line that is not blank, or one row of a Parquet file: its 1-based number, and its text, its fields, or why
    it can't be read; then `start` is how it begins."""

    number: int
    content: str | Mapping[str, Any] | RequestError
    start: bytes = b""


def read_lines(file: IO[bytes]) -> Iterator[Line]:
    """The lines of a file; blank ones are passed over but counted.

    Byte-order marks at line starts (files may have been put together) and carriage returns at line ends are dropped. A
    line that is no UTF-8, or too long, is an error of its own. Only `\\n` ends a line: Unicode's other separators stand
    in prompts.
    """
    for number, raw in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), start=1):
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            yield Line(number, _too_long(len(raw) + _skip_line(file)), raw[:START_BYTES])
            continue
        content = raw.removeprefix(BOM).rstrip(b"\r\n")
        if content and not content.isspace():
            yield _decoded(number, content)


def _skip_line(file: IO[bytes]) -> int:
    """Read to the line's end; how many bytes it had."""
    num_bytes = 0
    while raw := file.readline(_SKIPPED_BYTES):
        num_bytes += len(raw.removesuffix(b"\n"))
        if raw.endswith(b"\n"):
            break
    return num_bytes


def _too_long(num_bytes: int) -> RequestError:
    message = f"The line has {num_bytes:,} bytes, and a line may have {MAX_LINE_BYTES:,}; shorten it or split it."
    return RequestError("line_too_long", message)


def _decoded(number: int, raw: bytes) -> Line:
    try:
        return Line(number, raw.decode())
    except UnicodeDecodeError as error:
        message = f"The line is not UTF-8: {error.reason} at its byte {error.start + 1}."
        return Line(number, RequestError("invalid_encoding", message), raw[:START_BYTES])
