"""What a format of answers promises, and the sink that takes its lines."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lengthwise.jobs.formats import OutputFormat
from lengthwise.jobs.outputs import WrittenFile
from lengthwise.jobs.rows import Row
from lengthwise.types import Completion


class AnswerSink(Protocol):
    """Takes answer lines in order. It writes beside the files that it makes, so that none of them is ever half there.
    Raises JobError where writing fails; nothing temporary is left then."""

    def write(self, line: bytes, is_failed: bool) -> None: ...

    def finish(self) -> list[WrittenFile]:
        """What was written, down to the disk: for `Places.publish`. The answers are the last one."""
        ...

    def abort(self) -> None:
        """Throw away what was written; may be called at any time, and twice."""
        ...


class AnswerFormat(Protocol):
    """How answers are written. It keeps no state: the same lines give the same files, byte for byte."""

    @property
    def name(self) -> OutputFormat:
        """What it is, never `auto`."""
        ...

    @property
    def can_append(self) -> bool:
        """A file may grow line by line, as answers are completed: the lines are the file."""
        ...

    def encode(self, row: Row, completion: Completion, model: str) -> bytes:
        """One line of JSON in UTF-8, its line feed included. `model` is the name that response bodies give."""
        ...

    def paths(self, answers: Path) -> list[Path]:
        """All files that may be written where the answers go to `answers`; that one is the last."""
        ...

    def path_of(self, answers: Path, is_failed: bool) -> Path:
        """The file that a line belongs in."""
        ...

    def open(self, answers: Path) -> AnswerSink:
        """A sink for all lines. Raises JobError where nothing can be written."""
        ...
