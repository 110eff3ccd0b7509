"""A file or standard input → its bytes, decompressed and hashed on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
from pathlib import Path
from typing import IO, Any, cast

from lengthwise.errors import InputError

HEAD_BYTES = 4  # enough to know gzip and the others by
BUFFER_BYTES = 2**17
_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zX": "xz", b"PK\x03\x04": "zip"}  # none of them begins a text


class Joined(io.RawIOBase):
    """`start`, which was read already, then the rest of `file`. `digest` sees all of it.

    It never waits for more than `file` has at hand, so that lines come out of a slow pipe as they come in.
    """

    def __init__(self, start: bytes, file: IO[bytes], digest: Any = None) -> None:
        self._start = memoryview(start)
        self._file: Any = file
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._start[: len(buffer)] or self._file.read1(len(buffer))  # not `readinto1`, which waits for more
        self._start = self._start[len(read) :]
        buffer[: len(read)] = read
        if self._digest is not None:
            self._digest.update(read)
        return len(read)


def buffered(start: bytes, file: IO[bytes], digest: Any = None) -> IO[bytes]:
    """`start` and the rest of `file` as one file; see Joined."""
    return io.BufferedReader(Joined(start, file, digest), BUFFER_BYTES)


def decompressed(name: str, file: IO[bytes]) -> IO[bytes]:
    """The content of `file`, whether it is gzip or not. Raises InputError for other kinds of compression."""
    head = file.read(HEAD_BYTES)
    whole = buffered(head, file)
    if head.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=whole, mode="rb"))
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            raise InputError(f"{name} is compressed by {kind}; of compressed files only gzip can be read: unpack it.")
    return whole


def open_file(path: Path) -> IO[bytes]:
    """Raises InputError unless `path` is a file that can be read, and read again when the job is resumed."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory; give a file of prompts.")
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path} is no regular file, and a resumed job reads its prompts again; save them to one, or give - "
                "and feed them to standard input."
            )
        return path.open("rb", buffering=BUFFER_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a file of prompts.") from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); give a file of prompts.") from error


def standard_input() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("Standard input is closed: there is no prompt in it; give a file of prompts.")
    # Not `sys.stdin.buffer`: Python dies when it ends while a thread that reads ahead stands in it.
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError as error:
        raise InputError(f"Standard input can't be read ({error.strerror}); feed prompts to it.") from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
