"""Lines → files: written beside their places, so that each is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lengthwise.errors import JobError
from lengthwise.jobs.outputs import WrittenFile, temporary_of, unwritable
from lengthwise.jobs.streams import sha256_of

BUFFER_BYTES = 2**20


class Temporary:
    """A file that is being written beside its place. What fails is a JobError; whoever holds it aborts then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_of(path)
        with self.guarded():
            self.file = self._temporary.open("wb", buffering=BUFFER_BYTES)

    def write(self, line: bytes) -> None:
        try:
            self.file.write(line)
        except OSError as error:
            raise unwritable(self._temporary, error) from error

    def finish(self) -> WrittenFile:
        with self.guarded():
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            return WrittenFile(self._temporary, self._path, sha256_of(self._temporary))

    def abort(self) -> None:
        with suppress(OSError):  # its last bytes may not fit
            self.file.close()
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What writes to the file stands in here."""
        try:
            yield
        except OSError as error:
            raise unwritable(self._temporary, error) from error


class LinesSink:
    """Answer lines into one file; failed ones into another where there is a path for it, made with the first one."""

    def __init__(self, answers: Path, errors: Path | None = None) -> None:
        self._files = {answers: Temporary(answers)}
        self._answers = answers
        self._errors = answers if errors is None else errors

    def write(self, line: bytes, is_failed: bool) -> None:
        try:
            self._file(self._errors if is_failed else self._answers).write(line)
        except JobError:
            self.abort()
            raise

    def finish(self) -> list[WrittenFile]:
        try:
            return [self._files[path].finish() for path in reversed(self._files)]
        except JobError:
            self.abort()
            raise

    def abort(self) -> None:
        for file in self._files.values():
            file.abort()

    def _file(self, path: Path) -> Temporary:
        if path not in self._files:
            self._files[path] = Temporary(path)
        return self._files[path]
