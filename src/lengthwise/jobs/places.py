"""The places of one job's answers: which files there are its own, and how they are filled and emptied.

A file is the job's own if the journal says so: its digest was noted before it was put there, or it is a beginning of
what the journal holds, as a file that grows leaves it. All others are foreign: never written over, never removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from lengthwise.errors import JobError
from lengthwise.jobs.answers import AnswerFormat, make_format
from lengthwise.jobs.outputs import WrittenFile, digest_at, discard, publish, remove, temporary_of
from lengthwise.jobs.streams import BUFFER_BYTES
from lengthwise.journal import Journal

Digests = Mapping[str, str]  # of files, by their roles: a job's files may be renamed together


class Places:
    """All files that may be written for answers that go to `answers`. Raises JobError where one can't be read."""

    def __init__(self, answer_format: AnswerFormat, answers: Path, journal: Journal) -> None:
        self.paths = answer_format.paths(answers)
        self._answers = answers
        self._errors = answer_format.path_of(answers, is_failed=True)
        self._journal = journal
        self._own: dict[Path, str] = {}  # digests of files that were found to be this job's

    @property
    def is_any_missing(self) -> bool:
        """Of the files with which the job was done."""
        return any(self.role(path) in self._done and not path.exists() for path in self.paths)

    def role(self, path: Path) -> str:
        return "answers" if path == self._answers else "errors"

    def digests(self, files: Iterable[tuple[Path, str]]) -> Digests:
        return {self.role(path): sha256 for path, sha256 in files}

    def refuse_foreign(self) -> None:
        """Raise JobError where a file stands that is not this job's own."""
        for path in self.paths:
            digest = digest_at(path)
            if digest is None:
                continue
            if not self._is_own(path, digest):
                self._refuse(path)
            self._own[path] = digest

    def have_grown(self) -> bool:
        """What is there is as the journal has it in turn, so that it can grow."""
        return all(self._is_beginning(path) for path in self.paths if path.exists())

    def know(self, files: Digests) -> None:
        """These are this job's own, too."""
        self._own |= {path: files[self.role(path)] for path in self.paths if self.role(path) in files}

    def publish(self, written: Sequence[WrittenFile]) -> Digests:
        """Put written files into their places, each in one step: the answers come last. Own files that are not among
        them are removed. Nothing temporary is left, whatever happens."""
        files = self.digests((one.path, one.sha256) for one in written)
        try:
            self._journal.note_publishing(files)
        except BaseException:
            discard(written)
            raise
        publish(written, {path.name: sha256 for path, sha256 in self._own.items()})
        remove([path for path in self._own if self.role(path) not in files])
        return files

    def tidy(self) -> None:
        """Remove what a killed run has left half written, also of files that no longer come into being."""
        for path in self.paths:
            with suppress(OSError):  # nothing depends on it
                temporary_of(path).unlink(missing_ok=True)

    # -- overwriting -------------------------------------------------------------------------------------------

    def refuse_answers_of_others(self) -> None:
        """Raise JobError where errors would be written over the answers of another job, which nobody named."""
        for path in self.paths:
            if path != self._answers and path.with_name(path.name + ".journal").exists():
                raise JobError(
                    f"{path} has a journal: it is the answers of another job, and the errors of this one would be "
                    "written over them. Use another -o."
                )

    def clear(self) -> None:
        """Remove what is there; the answers first, since without them a job counts as not done."""
        remove([*reversed(self.paths), *self._former_files()])

    def _former_files(self) -> Iterator[Path]:
        """Of the job that is overwritten, where it was of another format."""
        former = self._journal.overwritten
        if former is None or former.fingerprint.get("output_format") != "openai-batch":
            return
        errors = make_format("openai-batch", self._answers, "jsonl").path_of(self._answers, is_failed=True)
        files = former.outcome.get("files", {})
        if errors not in self.paths and files.get("errors") == digest_at(errors) is not None:
            yield errors

    # -- whose file it is --------------------------------------------------------------------------------------

    @property
    def _done(self) -> Digests:
        outcome = self._journal.outcome
        return outcome["files"] if outcome is not None else {}

    def _is_own(self, path: Path, digest: str) -> bool:
        role = self.role(path)
        if self._journal.is_done:
            return digest == self._done.get(role)
        known = (files.get(role) for files in [self._done, *self._journal.published])
        return digest in known or self._is_beginning(path)

    def _is_beginning(self, path: Path) -> bool:
        if self._journal.header is None:
            return False
        is_one_file = len(self.paths) == 1
        records = self._journal.in_turn()
        lines = (one.answer for one in records if is_one_file or one.is_failed == (path == self._errors))
        return is_beginning(path, lines)

    def _refuse(self, path: Path) -> NoReturn:
        if self._journal.header is None:
            raise JobError(
                f"{path} exists and was not made by this job, so it is not written over. Use another -o, move it away, "
                "or throw it away with --overwrite."
            )
        told = "was changed since this job was done" if self._journal.is_done else "was not made by this job"
        if self._journal.has_records:
            raise JobError(
                f"{path} {told}, so it is left alone. Move it away: the journal has this job's answers, and the same "
                "command writes them."
            )
        raise JobError(
            f"{path} {told}, so it is left alone. Use another -o, or make the answers again with --overwrite."
        )


def is_beginning(path: Path, lines: Iterable[bytes]) -> bool:
    """Whether a file holds the first bytes of `lines`, all or some of them or none, and nothing else."""
    with path.open("rb", BUFFER_BYTES) as file:
        for line in lines:
            found = file.read(len(line))
            if found != line:
                return line.startswith(found)
        return not file.read(1)
