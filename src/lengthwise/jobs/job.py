"""A job: a file of prompts is answered into a file, and goes on where it was killed.

The answers file appears at the end, whole, in one step; until then all that is finished stands in the journal. A
kill at any moment leaves one of four states, and `run` goes on from each:

| journal          | answers | what `run` does                                                    |
|------------------|---------|--------------------------------------------------------------------|
| none, or no header | no    | begins                                                             |
| open             | no      | answers what is not in the journal, then assembles                 |
| open, all there  | yes     | assembles again, finds the same, marks the journal done            |
| done             | yes     | nothing: the job is done                                           |

Any other answers file is foreign and is refused before any work. A done journal whose answers were removed is
void: the job begins again. `overwrite` throws away what is there, but not before `run` has a model to begin with.

Rows are held in memory, about 0.6 KB each beside their text; finished answers are not. `_unfinished` and `_pairs`
walk the rows in order and ask for nothing else, so that a window over the file can take the list's place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lengthwise.errors import EngineError, JobError
from lengthwise.jobs.answers import check_output, publish, refuse_foreign, remove, sha256_of, write_answers
from lengthwise.jobs.ids import resolve_ids
from lengthwise.jobs.lines import Lines, find_format
from lengthwise.jobs.options import InputFormat, JobOptions
from lengthwise.jobs.rows import Row, read_rows
from lengthwise.journal import Fingerprint, Journal, fingerprint
from lengthwise.pipeline import Pipeline
from lengthwise.types import Completion, ErrorInfo, Request


@dataclass(frozen=True, slots=True)
class JobResult:
    """Where a job stands when `run` returns. `num_resumed` requests were finished before; `num_failed` and
    `num_finished` include rows that were no requests."""

    status: Literal["done", "already_done", "interrupted"]
    num_requests: int
    num_finished: int
    num_failed: int
    num_resumed: int


class Job:
    """One file of prompts on its way to one file of answers.

        with Job.open(options) as job, Pipeline(...) as pipeline:
            result = job.run(pipeline)

    `open` does all that can be refused before a model is loaded, and holds the job's lock until `close`. `stop` may
    be called from a signal handler or another thread.
    """

    def __init__(self, options: JobOptions, rows: list[Row], journal: Journal, parts: dict[str, Any]) -> None:
        self.options = options
        self._rows = rows
        self._journal = journal
        self._parts = parts
        self._num_bad_rows = sum(isinstance(row.content, ErrorInfo) for row in rows)
        self._pipeline: Pipeline | None = None
        self._is_stopped = False

    @classmethod
    def open(cls, options: JobOptions) -> Self:
        """Read the prompts and lock the job. Raises InputError, UsageError or JobError for whatever is wrong as a
        whole: files that can't be read or written, doubled ids, answers or a journal that belong to something else."""
        if os.path.islink(options.answers):  # write where it points, keep the link
            options = replace(options, answers=Path(os.path.realpath(options.answers)))
        input_format = find_format(options.prompts, options.input_format)
        check_output(options.prompts, options.answers, options.journal)
        lines = Lines(options.prompts)
        rows = resolve_ids(list(read_rows(lines, input_format, options.sampling)), options.prompts)
        journal = Journal.open(options.journal, options.overwrite)
        try:
            job = cls(options, rows, journal, _parts(options, lines.sha256, input_format))
            job._settle_what_is_there()
        except BaseException:
            journal.close()
            raise
        return job

    def run(self, pipeline: Pipeline) -> JobResult:
        """Answer what is not answered yet, recording each completion, then put the answers file into its place.

        Raises JobError if the journal belongs to another model, EngineError if the engine broke: what is finished
        is safe in the journal.
        """
        parts = {**self._parts, "model": pipeline.engine.model}
        self._journal.check(parts)
        if self._is_marked_done:
            return self.finished_result()
        if self.options.overwrite and self._journal.header is None:
            remove(self.options.answers)
        self._journal.resume(parts)
        num_resumed = len(self._journal)
        self._refuse_foreign_answers()
        self._answer(pipeline)
        if not self._is_all_finished:
            num_failed = self._num_bad_rows + self._journal.num_failed
            return JobResult("interrupted", len(self._rows), self.num_finished, num_failed, num_resumed)
        return JobResult("done", len(self._rows), len(self._rows), self._assemble(), num_resumed)

    def stop(self) -> None:
        """End `run` at its next step; what is finished is safe."""
        self._is_stopped = True
        if self._pipeline is not None:
            self._pipeline.stop()

    @property
    def is_complete(self) -> bool:
        """The answers are there, made by this very command: no model need be loaded to say so."""
        header = self._journal.header
        return header is not None and header.state == "done" and header.outcome.get("model") == self.options.model

    def check_model(self, identity: str) -> None:
        """Raise JobError if what is finished was answered by another model than `identity` (`Engine.model`)."""
        self._journal.check({"model": identity})

    def finished_result(self) -> JobResult:
        """The result of a job that was done before."""
        assert self._journal.header is not None, "only a job that is done has a result to look up"
        num_failed = self._journal.header.outcome["num_failed"]
        return JobResult("already_done", len(self._rows), len(self._rows), num_failed, len(self._rows))

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    @property
    def num_finished(self) -> int:
        """Rows that have their answer or their error by now; may be read from any thread."""
        return self._num_bad_rows + len(self._journal)

    def close(self) -> None:
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- before ------------------------------------------------------------------------------------------------

    @property
    def _is_marked_done(self) -> bool:
        return self._journal.header is not None and self._journal.header.state == "done"

    @property
    def _is_all_finished(self) -> bool:
        return self.num_finished == len(self._rows)

    def _settle_what_is_there(self) -> None:
        """Refuse what belongs to something else; forget a done job whose answers are gone."""
        answers = self.options.answers
        if self.options.overwrite:
            return
        if self._is_marked_done and not answers.exists():
            self._journal.reset()
        self._journal.check(self._parts)
        if self._journal.header is None and answers.exists():
            refuse_foreign(answers)
        if self._is_marked_done:
            self._check_unchanged()

    def _check_unchanged(self) -> None:
        assert self._journal.header is not None
        if sha256_of(self.options.answers) != self._journal.header.outcome["answers_sha256"]:
            raise JobError(
                f"{self.options.answers} was changed since this job was done; it is left alone. Use another -o, or "
                "make the answers again with --overwrite."
            )

    def _refuse_foreign_answers(self) -> None:
        """While something is unfinished, this job has not written its answers file: one that is there is foreign."""
        if self.options.answers.exists() and not self._is_all_finished:
            refuse_foreign(self.options.answers)

    # -- answering ---------------------------------------------------------------------------------------------

    def _answer(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        index_of = {row.id: index for index, row in enumerate(self._rows)}
        try:
            for completion in pipeline.stream(self._unfinished()):
                self._journal.append(index_of[completion.id], completion)
        except EngineError as error:
            raise EngineError(
                f"{error} {self.num_finished} of {len(self._rows)} requests are finished and safe; the same command "
                "goes on with the rest."
            ) from error
        finally:
            self._pipeline = None

    def _unfinished(self) -> Iterator[Request]:
        for index, row in enumerate(self._rows):
            if self._is_stopped:
                return
            if isinstance(row.content, Request) and index not in self._journal:
                yield row.content

    # -- after -------------------------------------------------------------------------------------------------

    def _assemble(self) -> int:
        """Write the answers file and mark the journal done; gives the number of failed rows."""
        written = write_answers(self.options.answers, self._pairs())
        publish(written, self.options.answers)
        self._journal.mark_done(
            {
                "model": self.options.model,
                "answers_sha256": written.sha256,
                "num_requests": len(self._rows),
                "num_failed": written.num_failed,
            }
        )
        return written.num_failed

    def _pairs(self) -> Iterator[tuple[Row, Completion]]:
        for index, row in enumerate(self._rows):
            if isinstance(row.content, ErrorInfo):
                yield row, Completion(row.id, "", "error", error=row.content)
            else:
                yield row, self._journal.read(index)


def _parts(options: JobOptions, input_sha256: str, input_format: InputFormat) -> dict[str, Any]:
    """The fingerprint without the model, which is not loaded yet."""
    parts: Fingerprint = fingerprint(
        input_sha256=input_sha256,
        input_format=input_format,
        model=None,
        sampling=options.sampling,
        max_tokens=options.max_tokens,
        seed=options.seed,
        chat_template=options.chat_template,
    )
    return dict(parts)
