"""A file or standard input → its bytes, decompressed and hashed on the way."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zlib
from pathlib import Path
from typing import IO, Any

from lengthwise.errors import InputError

BUFFER_BYTES = 2**17
_KINDS = {  # of compression, by their first bytes; none of them begins a text
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zX": "xz",
    b"PK\x03\x04": "zip",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
}
_GZIP_WINDOW_BITS = 31  # zlib's word for: gzip's header, and the largest window


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


class Unpacked(io.RawIOBase):
    """The content of a gzip file, member after member, each byte as soon as it can be known.

    Not `gzip.GzipFile`: it waits for 128 KiB of its file. Raises EOFError where the file is cut off, zlib.error where
    it is broken.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file: Any = file
        self._packed = b""
        self._member: Any = zlib.decompressobj(_GZIP_WINDOW_BITS)
        self._is_inside = False  # a member

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not (read := self._unpack(len(buffer))):
            if not self._member.eof and not self._fill():
                return 0
        buffer[: len(read)] = read
        return len(read)

    def _unpack(self, max_bytes: int) -> bytes:
        """What is packed at hand, unpacked; nothing at the end of a member, or where more of the file is needed."""
        if self._member.eof:
            self._packed, self._member = self._member.unused_data, zlib.decompressobj(_GZIP_WINDOW_BITS)
            self._is_inside = False
        if not self._is_inside:
            self._packed = self._packed.lstrip(b"\0")  # padding, which may stand behind a member
            self._is_inside = bool(self._packed)
        read: bytes = self._member.decompress(self._packed, max_bytes)
        self._packed = self._member.unconsumed_tail
        return read

    def _fill(self) -> bool:
        """Take more of the file; False at its end."""
        self._packed = self._file.read1(BUFFER_BYTES)
        if not self._packed and self._is_inside:
            raise EOFError("it is cut off")
        return bool(self._packed)


def buffered(start: bytes, file: IO[bytes], digest: Any = None) -> IO[bytes]:
    """`start` and the rest of `file` as one file; see Joined."""
    return io.BufferedReader(Joined(start, file, digest), BUFFER_BYTES)


def decompressed(name: str, file: IO[bytes]) -> IO[bytes]:
    """The content of `file`, whether it is gzip or not. Raises InputError for other kinds of compression."""
    kind, whole = _known(file)
    if kind == "gzip":
        kind, whole = _known(io.BufferedReader(Unpacked(whole), BUFFER_BYTES))
        if kind is not None:
            raise InputError(f"{name} is gzip, and what is in it is compressed by {kind} again; unpack it once.")
    if kind is not None:
        raise InputError(f"{name} is compressed by {kind}; of compressed files only gzip can be read: unpack it.")
    return whole


def _known(file: IO[bytes]) -> tuple[str | None, IO[bytes]]:
    """How `file` is compressed, and all of it. No more is waited for than it needs to know."""
    head = b""
    while any(head != magic and magic.startswith(head) for magic in _KINDS) and (read := file.read(1)):
        head += read
    return next((kind for magic, kind in _KINDS.items() if head == magic), None), buffered(head, file)


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
        os.set_blocking(sys.stdin.fileno(), True)  # whoever shares it may have left it otherwise
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError as error:
        raise InputError(f"Standard input can't be read ({error.strerror}); feed prompts to it.") from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
