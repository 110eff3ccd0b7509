"""Answers as they are completed: files that grow line by line, and hold what the journal holds, in its order."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NoReturn

from lengthwise.errors import JobError
from lengthwise.jobs.answers import AnswerFormat
from lengthwise.jobs.streams import BUFFER_BYTES
from lengthwise.journal import Record, sync_folder


class CompletedFiles:
    """The files of one format, each with the lines of the journal that belong in it.

    A line stands in the journal before it is written here, so what a kill leaves is a beginning of that, which
    `catch_up` completes. Raises JobError where a file holds anything else, and where the disk refuses.
    """

    def __init__(self, answer_format: AnswerFormat, answers: Path) -> None:
        self._format = answer_format
        self._answers = answers
        self._files: dict[Path, _GrowingFile] = {}
        for path in answer_format.paths(answers):
            if path.exists() or path == answers:
                self._files[path] = _GrowingFile(path)

    def catch_up(self, records: Iterable[Record]) -> None:
        """Check that the files hold the beginning of `records`, and write what is missing."""
        for record in records:
            self._file(record.is_failed).catch_up(record.answer)
        for file in self._files.values():
            file.refuse_more()

    def write(self, line: bytes, is_failed: bool) -> None:
        self._file(is_failed).write(line)

    def close(self) -> None:
        """Flush to the disk; may be called twice."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, is_failed: bool) -> _GrowingFile:
        path = self._format.path_of(self._answers, is_failed)
        if path not in self._files:
            self._files[path] = _GrowingFile(path)
        return self._files[path]


class _GrowingFile:
    """One file that is read until its end, then written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            sync_folder(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._rest: IO[bytes] | None = open(self._fd, "rb", BUFFER_BYTES, closefd=False)  # noqa: SIM115 (None: it was read)

    def catch_up(self, line: bytes) -> None:
        if self._rest is not None:
            found = self._rest.read(len(line))
            if found == line:
                return
            if not line.startswith(found):
                self._refuse()
            self._rest, line = None, line[len(found) :]
        self.write(line)

    def refuse_more(self) -> None:
        """What stands behind the journal's last line is not of this job."""
        if self._rest is not None and self._rest.read(1):
            self._refuse()
        self._rest = None

    def write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        finally:
            os.close(self._fd)

    def _refuse(self) -> NoReturn:
        raise JobError(
            f"{self._path} holds something else than what this job has completed, so nothing is added to it. Move it "
            "away, and the same command writes it anew, or use another -o."
        )


def _unwritable(path: Path, error: OSError) -> JobError:
    return JobError(
        f"{path} can't be written ({error.strerror}). What is finished is safe in the journal; make room and run the "
        "same command again."
    )
