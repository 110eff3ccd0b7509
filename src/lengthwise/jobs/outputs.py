"""The places where answers go: checked before, filled in one step, emptied when they are to be made anew."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lengthwise.errors import JobError, UsageError
from lengthwise.jobs.streams import sha256_of
from lengthwise.journal import sync_folder


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is whole, on disk, and not yet in its place."""

    temporary: Path
    path: Path
    sha256: str


def publish(written: Sequence[WrittenFile], known: Mapping[str, str]) -> None:
    """Put the written files into their places, each in one step, in order: the answers come last.

    Raises JobError if another file stands in one of the places by now, or if they can't be put there. Files of the
    `known` digests, by their names, are former answers of the same job and are replaced.
    """
    try:
        for one in written:
            _refuse_another(one, known.get(one.path.name))
        for one in written:
            _put(one)
    finally:
        for one in written:
            one.temporary.unlink(missing_ok=True)


def _refuse_another(written: WrittenFile, known_sha256: str | None) -> None:
    try:
        is_another = written.path.exists() and sha256_of(written.path) not in (written.sha256, known_sha256)
    except OSError as error:
        raise unwritable(written.path, error) from error
    if is_another:
        refuse_foreign(written.path)


def _put(written: WrittenFile) -> None:
    try:
        os.replace(written.temporary, written.path)
        sync_folder(written.path.parent)
    except OSError as error:
        raise unwritable(written.path, error) from error


def unwritable(path: Path, error: OSError) -> JobError:
    return JobError(
        f"{path} can't be written ({error.strerror}). All answers are safe in the journal; make room and run the same "
        "command again."
    )


def refuse_foreign(path: Path) -> NoReturn:
    raise JobError(
        f"{path} exists and was not made by this job, so it is not written over. Use another -o, move it away, "
        "or throw it away with --overwrite."
    )


def remove(paths: Sequence[Path]) -> None:
    """Throw away answers that are to be made anew."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise JobError(f"{path} can't be removed ({error.strerror}); use another -o.") from error


def check_output(prompts: Path, paths: Sequence[Path], journal: Path) -> None:
    """Raises UsageError unless answers can be written to all of `paths`, before any work is done for them."""
    for path in paths:
        try:
            _check_output(prompts, path, journal)
        except OSError as error:
            raise UsageError(f"{path} can't be written ({error.strerror}); use another -o.") from error


def _check_output(prompts: Path, answers: Path, journal: Path) -> None:
    folder = answers.parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist, so {answers.name} can't be written there; create it.")
    if answers.exists() and not answers.is_file():
        raise UsageError(f"{answers} is no regular file, so answers can't be written there; use another -o.")
    if prompts.exists() and any(path.exists() and path.samefile(prompts) for path in (answers, journal)):
        raise UsageError(f"The answers would be written over the prompts in {prompts}; use another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The folder {folder} can't be written, so {answers.name} can't be; use another -o.")
