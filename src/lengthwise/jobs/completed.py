"""Answers as they are completed: files that grow line by line, and hold what the journal holds, in its order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from lengthwise.errors import JobError
from lengthwise.jobs.answers import AnswerFormat
from lengthwise.jobs.outputs import digest_at
from lengthwise.journal import Record, sync_folder


class CompletedFiles:
    """The files of one format, each with the lines of the journal that belong in it; made with their first line.

    A line stands in the journal before it is written here, so what a kill leaves is a beginning of that, which
    `catch_up` completes. Raises JobError where the disk refuses, and where a file is in the end another than the one
    that was written.
    """

    def __init__(self, answer_format: AnswerFormat, answers: Path) -> None:
        self._format = answer_format
        self._answers = answers
        self._files: dict[Path, _GrowingFile] = {}

    def catch_up(self, records: Iterable[Record]) -> None:
        """Write what the files, which hold a beginning of `records`, lack."""
        for record in records:
            self.write(record.answer, record.is_failed)

    def write(self, line: bytes, is_failed: bool) -> None:
        self._file(self._format.path_of(self._answers, is_failed)).write(line)

    def close(self) -> None:
        """Flush to the disk, all of them; may be called twice."""
        errors = []
        for file in self._files.values():
            try:
                file.close()
            except JobError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def finish(self) -> list[tuple[Path, str]]:
        """Close them. Their paths, and the digests of what stands there, which is what was written."""
        self._file(self._answers)  # it is there, though nothing was answered
        self.close()
        return [(path, file.checked()) for path, file in self._files.items()]

    def _file(self, path: Path) -> _GrowingFile:
        if path not in self._files:
            self._files[path] = _GrowingFile(path)
        return self._files[path]


class _GrowingFile:
    """One file; what it held before is passed over, and not written again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            sync_folder(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._stat = os.fstat(self._fd)
        self._num_before = self._stat.st_size

    def write(self, line: bytes) -> None:
        self._digest.update(line)
        self._num_bytes += len(line)
        num_new = self._num_bytes - self._num_before
        if num_new > 0:
            self._append(line[-num_new:])

    def close(self) -> None:
        if self._fd < 0:
            return
        descriptor, self._fd = self._fd, -1
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        finally:
            os.close(descriptor)

    def checked(self) -> str:
        """The digest of what was written. Raises JobError unless just that stands in this file's place."""
        try:
            is_there = os.path.samestat(self._stat, os.stat(self._path))
        except OSError:
            is_there = False
        if not is_there or digest_at(self._path) != self._digest.hexdigest():
            raise JobError(
                f"{self._path} was {'changed' if is_there else 'moved or removed'} while answers were added to it. All "
                "are safe in the journal: move it away if it is there, and the same command writes it again."
            )
        return self._digest.hexdigest()

    def _append(self, content: bytes) -> None:
        try:
            written = os.write(self._fd, content)
            while written < len(content):
                written += os.write(self._fd, content[written:])
        except OSError as error:
            raise _unwritable(self._path, error) from error


def _unwritable(path: Path, error: OSError) -> JobError:
    return JobError(
        f"{path} can't be written ({error.strerror}). What is finished is safe in the journal; make room and run the "
        "same command again."
    )
