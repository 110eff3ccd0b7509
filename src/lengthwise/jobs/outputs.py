"""The places where answers go: checked before, filled in one step, emptied when they are to be made anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lengthwise.errors import JobError, UsageError
from lengthwise.jobs.streams import sha256_of
from lengthwise.journal import replacement_of, sync_folder

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip"})


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
        discard(written)


def _refuse_another(written: WrittenFile, known_sha256: str | None) -> None:
    if digest_at(written.path) not in (None, written.sha256, known_sha256):
        raise JobError(
            f"{written.path} exists and was not made by this job, so it is not written over. Move it away: the journal "
            "has all answers, and the same command writes them."
        )


def _put(written: WrittenFile) -> None:
    try:
        os.replace(written.temporary, written.path)
        sync_folder(written.path.parent)
    except OSError as error:
        raise unwritable(written.path, error) from error


def discard(written: Sequence[WrittenFile]) -> None:
    """Remove what was not put into its place."""
    for one in written:
        with suppress(OSError):  # it would hide what went wrong before
            one.temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> JobError:
    return JobError(
        f"{path} can't be written ({error.strerror}). All answers are safe in the journal; make room and run the same "
        "command again."
    )


def digest_at(path: Path) -> str | None:
    """SHA-256 of the file that stands there; None if there is none."""
    try:
        return sha256_of(path) if path.exists() else None
    except OSError as error:
        raise JobError(
            f"{path} can't be read ({error.strerror}), so nobody knows whose it is. Make it readable, move it away, "
            "or use another -o."
        ) from error


def remove(paths: Sequence[Path]) -> None:
    """Throw away answers that are to be made anew."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise JobError(f"{path} can't be removed ({error.strerror}); use another -o.") from error


def temporary_of(path: Path) -> Path:
    """Where a file is written before it is put into its place."""
    return path.with_name(f"{path.name}.journal.answers")


def check_output(prompts: Path, paths: Sequence[Path], journal: Path) -> None:
    """Raises UsageError unless answers can be written to all of `paths`, before any work is done for them."""
    for path in paths:
        try:
            _check_output(prompts, path, journal)
        except OSError as error:
            raise UsageError(f"{path} can't be written ({error.strerror}); use another -o.") from error


def _check_output(prompts: Path, answers: Path, journal: Path) -> None:
    folder = answers.parent
    if answers.suffix.lower() in _COMPRESSED:
        raise UsageError(
            f"{answers} is named like a compressed file, and answers are written as they are; use -o "
            f"{answers.with_suffix('')}, and compress it when it is there."
        )
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist, so {answers.name} can't be written there; create it.")
    with suppress(FileNotFoundError):
        temporary_of(answers).lstat()  # its name may be too long, though the shorter one of the answers is not
    if answers.exists() and not answers.is_file():
        raise UsageError(f"{answers} is no regular file, so answers can't be written there; use another -o.")
    if _is_any_of(prompts, (answers, temporary_of(answers), journal, replacement_of(journal))):
        place = "that are fed to standard input" if prompts == Path("-") else f"in {prompts}"
        raise UsageError(f"The answers would be written over the prompts {place}; use another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The folder {folder} can't be written, so {answers.name} can't be; use another -o.")


def _is_any_of(prompts: Path, paths: Sequence[Path]) -> bool:
    """Whether the prompts, or what standard input is read from, are one of these files."""
    try:
        found = os.fstat(sys.stdin.fileno()) if prompts == Path("-") else prompts.stat()
    except (OSError, ValueError, AttributeError):  # missing, or closed: whoever reads it says so
        return False
    return any(path.exists() and os.path.samestat(found, path.stat()) for path in paths)
