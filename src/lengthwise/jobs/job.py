"""A job: prompts are answered into a file, and it goes on where it was killed.

What is finished stands in the journal. The answers file appears at the end, whole, in one step, assembled from the
journal alone; with `as_completed` it grows line by line, always a beginning of what the journal holds. A kill at any
moment leaves one of these states, and `run` goes on from each:

| journal            | answers             | what `run` does                                                    |
|--------------------|---------------------|--------------------------------------------------------------------|
| none, or no header | no                  | begins                                                             |
| open               | no, or its own      | answers what is not in the journal, then writes them anew          |
| done               | yes                 | nothing: the job is done                                           |
| done, with records | no                  | writes them again                                                  |
| done               | no                  | begins again: whoever removed them wants them anew                 |

Any other answers file is foreign (`places.py`) and is refused before any work. `overwrite` throws away what is there,
but not before there is a first answer to put in its place.

A journal that is done keeps its records while some rows failed, so that `retry_failed` can answer them again: it is
open then, beside answers that it knows for its own, and that are replaced at the end. A row whose record was made from
another line (the file was changed while it was read, and put back) is answered again, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from lengthwise.errors import EngineError, JobError, UsageError
from lengthwise.jobs.answers import AnswerFormat, make_format
from lengthwise.jobs.completed import CompletedFiles
from lengthwise.jobs.fingerprint import fingerprint
from lengthwise.jobs.flow import Flow, Taken
from lengthwise.jobs.learned import learn_from_all, learning
from lengthwise.jobs.lines import Line
from lengthwise.jobs.options import JobOptions
from lengthwise.jobs.outputs import WrittenFile, check_output
from lengthwise.jobs.places import Digests, Places
from lengthwise.jobs.sources import open_source
from lengthwise.journal import Journal
from lengthwise.pipeline import SERVED, Pipeline
from lengthwise.types import Completion, ErrorInfo

Status = Literal["done", "already_done", "interrupted", "unread"]  # unread: whoever read the answers is gone


@dataclass(frozen=True, slots=True)
class JobResult:
    """Where a job stands when `run` returns. `num_resumed` rows were finished before. `num_failed` and `num_finished`
    include rows that were no requests. `num_requests` is None where the input was not read to its end."""

    status: Status
    num_requests: int | None
    num_finished: int
    num_failed: int
    num_resumed: int


class Job:
    """Prompts on their way to one file of answers.

        with Job.open(options) as job, Pipeline(..., window=options.window) as pipeline:
            result = job.run(pipeline)

    `open` does all that can be refused before a model is loaded, and holds the job's lock until `close`. `drain` and
    `stop` may be called from a signal handler or another thread.
    """

    def __init__(self, options: JobOptions, journal: Journal, flow: Flow) -> None:
        self.options = options
        self._journal = journal
        self._flow = flow
        self._format = self._format_of(options, flow)
        self._places = Places(self._format, options.answers, journal)
        self._completed: CompletedFiles | None = None
        self._model = ""
        self._identity: dict[str, object] = {}  # all that determines the answers, once the model is known
        self._num_stale = 0  # rows that are in the journal, and were read from another line

    @classmethod
    def open(cls, options: JobOptions) -> Self:
        """Lock the job and look through its prompts. Raises InputError, UsageError or JobError for whatever is wrong as
        a whole: files that can't be read or written, doubled ids, answers or a journal of something else."""
        if os.path.islink(options.answers):  # write where it points, keep the link
            options = replace(options, answers=Path(os.path.realpath(options.answers)))
        flow = cls._flow_of(options)
        check_output(options.prompts, cls._format_of(options, flow).paths(options.answers), options.journal)
        journal = Journal.open(options.journal, options.overwrite)
        try:
            flow.check()
            job = cls(options, journal, flow)
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
        self._begin(pipeline.engine.model)
        if self._is_nothing_left:
            return self.finished_result()
        num_before = len(self._journal) - (self._journal.num_failed if self.options.retry_failed else 0)
        with learning(pipeline, self.options.learned, self._identity, self.options.overwrite):
            with self._completing(), self._telling_how_to_go_on():
                self._flow.run(pipeline, self)
            is_done = self._is_all_there
            if is_done:
                self._finish()
                learn_from_all(pipeline)
        num_resumed = num_before - self._num_stale
        return JobResult(
            "done" if is_done else "interrupted",
            self.num_rows,
            len(self._journal),
            self._journal.num_failed,
            num_resumed,
        )

    def drain(self) -> None:
        """Start nothing new; `run` ends when what runs is finished."""
        self._flow.drain()

    def stop(self) -> None:
        """End `run` at its next step; what is finished is safe."""
        self._flow.stop()

    @property
    def is_complete(self) -> bool:
        """The answers are there, made by this very command: no model need be loaded to say so."""
        outcome, asked = self._journal.outcome, self.options.model
        return self._is_nothing_left and outcome is not None and asked is not None and outcome["model"] == asked

    def check_model(self, identity: str) -> None:
        """Raise JobError if what is finished was answered by another model than `identity` (`Engine.model`)."""
        self._journal.check({"model": identity})

    def finished_result(self) -> JobResult:
        """The result of a job that was done before."""
        outcome = self._journal.outcome
        assert outcome is not None, "only a job that is done has a result to look up"
        num_rows = outcome["num_requests"]
        return JobResult("already_done", num_rows, num_rows, outcome["num_failed"], num_rows)

    @property
    def num_rows(self) -> int | None:
        """None as long as standard input was not read to its end."""
        return self._flow.num_rows

    @property
    def num_finished(self) -> int:
        """Rows that have their answer or their error by now; may be read from any thread."""
        return len(self._journal)

    @property
    def errors(self) -> Path | None:
        """The file of failed rows; None where they stand among the answers."""
        path = self._format.path_of(self.options.answers, is_failed=True)
        return None if path == self.options.answers else path

    def close(self) -> None:
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- what kind of job it is --------------------------------------------------------------------------------

    @classmethod
    def _flow_of(cls, options: JobOptions) -> Flow:
        return Flow(options, open_source(options.prompts, options.input_format, options.prompt_field))

    @classmethod
    def _format_of(cls, options: JobOptions, flow: Flow) -> AnswerFormat:
        return format_of(options, flow)

    # -- before ------------------------------------------------------------------------------------------------

    @property
    def _is_nothing_left(self) -> bool:
        outcome = self._journal.outcome
        if not self._journal.is_done or outcome is None:
            return False
        return not (self.options.retry_failed and outcome["num_failed"])

    def _settle_what_is_there(self) -> None:
        """Recover what is finished, and refuse what belongs to something else."""
        if self.options.overwrite:
            self._places.refuse_answers_of_others()
            return
        if self._journal.is_done and self._places.is_any_missing:
            self._reopen()
        self._journal.check(self._parts)
        if self._journal.has_records and not self._is_nothing_left:
            self._journal.recover()
        self._places.refuse_foreign()
        if self._is_nothing_left and not self._flow.source.is_repeatable:
            self._check_same_input()

    def _reopen(self) -> None:
        """Answers that are gone are written again where the journal still has them; else the job begins again."""
        if self._journal.has_records:
            self._journal.reopen()
        else:
            self._journal.forget()

    @property
    def _parts(self) -> dict[str, object]:
        source = self._flow.source
        input_sha256 = self._flow.sha256 if source.is_repeatable else None
        return fingerprint(self.options, input_sha256, source.format, self._format.name)

    def _check_same_input(self) -> None:
        assert self._journal.outcome is not None, "only a done job has its whole input"
        source = self._flow.source
        for _ in source.lines():
            pass
        if source.sha256 != self._journal.outcome["input"]:
            raise JobError(
                f"{source.name} is not what {self.options.answers} was made from. Use another -o, or --overwrite to "
                "throw those answers away."
            )

    def _begin(self, model: str) -> None:
        """Check the model, and go on with what is finished."""
        self._identity = {**self._parts, "model": model}
        self._journal.check(self._identity)
        self._model = served_name(model)
        if self._journal.header is not None and not self._is_nothing_left:
            self._journal.resume(self._identity)

    def _begin_anew(self) -> None:
        """Throw away what is there, and begin the journal: not before there is something to put into it."""
        if self.options.overwrite:
            self._places.clear()
        self._journal.resume(self._identity)

    # -- answering ---------------------------------------------------------------------------------------------

    def is_left(self, index: int, line: Line, digest: str) -> bool:
        """Whether a row is to be answered. One that is finished must have been read from the same line."""
        if index not in self._journal:
            self._check_has_row(index)
            return True
        if self._journal.read(index).digest == digest:
            return self.options.retry_failed and self._journal.has_failed(index)
        if not self._flow.source.is_repeatable:
            raise JobError(
                f"Line {line.number} of {self._flow.source.name} is another one than when this job began, and its "
                "answer is there. Feed the same input again, use another -o, or --overwrite to throw the job away."
            )
        self._num_stale += 1  # the file was changed while it was read then, and has been put back
        return True

    def _check_has_row(self, index: int) -> None:
        """A job that was done once has as many rows as it had then."""
        outcome = self._journal.outcome
        if outcome is not None and index >= outcome["num_requests"]:
            raise JobError(
                f"{self._flow.source.name} has more than the {outcome['num_requests']:,} rows that "
                f"{self.options.answers} was made from. Feed the same input again, or use another -o."
            )

    def take(self, taken: Taken, completion: Completion) -> None:
        """Record a row's answer. A row that is no request stays what it is when failed ones are answered again."""
        if self._journal.header is None:
            self._begin_anew()
        elif isinstance(taken.row.content, ErrorInfo) and self._has_record_of(taken):
            return
        answer = self._format.encode(taken.row, completion, self._model)
        is_failed = completion.error is not None
        self._journal.append(taken.index, answer, is_failed, taken.digest)
        if self._completed is not None:
            self._completed.write(answer, is_failed)

    def _has_record_of(self, taken: Taken) -> bool:
        return taken.index in self._journal and self._journal.read(taken.index).digest == taken.digest

    @contextmanager
    def _completing(self) -> Iterator[None]:
        """While entered, answers go out as they are completed, if asked for; unless answers are there in another
        order: those are replaced at the end."""
        if not self.options.as_completed or not self._places.have_grown():
            yield
            return
        self._completed = CompletedFiles(self._format, self.options.answers)
        try:
            if self._journal.header is not None:
                self._completed.catch_up(self._journal.in_turn())
            yield
        finally:
            self._completed.close()

    @contextmanager
    def _telling_how_to_go_on(self) -> Iterator[None]:
        try:
            yield
        except EngineError as error:
            finished = f"{self.num_finished}" if self.num_rows is None else f"{self.num_finished} of {self.num_rows}"
            raise EngineError(
                f"{error} {finished} requests are finished and safe; the same command goes on with the rest."
            ) from error

    # -- after -------------------------------------------------------------------------------------------------

    @property
    def _is_all_there(self) -> bool:
        if not self._flow.is_over:
            return False
        if len(self._journal) != self.num_rows:
            raise JobError(
                f"{self._flow.source.name} ended after {self.num_rows} rows, and {len(self._journal)} were answered "
                "before: it is another input. Feed the same one again, or use another -o."
            )
        return True

    def _finish(self) -> None:
        """Put the answers into their place and mark the journal done."""
        if self._journal.header is None:
            self._begin_anew()
        outcome = {
            "model": self.options.model,
            "files": self._files(),
            "input": self._flow.sha256,
            "num_requests": len(self._journal),
            "num_failed": self._journal.num_failed,
        }
        self._places.tidy()
        self._journal.mark_done(outcome, keep_records=self._journal.num_failed > 0)

    def _files(self) -> Digests:
        """The answers in their places: as they have grown, or assembled, also where a row has two lines by now."""
        if self._completed is not None:
            grown = self._places.digests(self._completed.finish())
            if not self._journal.num_superseded:
                return grown
            self._places.know(grown)
        return self._places.publish(self._write())

    def _write(self) -> list[WrittenFile]:
        sink = self._format.open(self.options.answers)
        try:
            for record in self._journal.in_order():
                sink.write(record.answer, record.is_failed)
            return sink.finish()
        except BaseException:
            sink.abort()
            raise


def format_of(options: JobOptions, flow: Flow) -> AnswerFormat:
    """Raises UsageError if answers of this format can't go out as they are completed, and are asked to."""
    made = make_format(options.output_format, options.answers, flow.source.format)
    if options.as_completed and not made.can_append:
        raise UsageError(
            f"A file of the format {made.name} can't grow line by line; leave --as-completed out, or give another "
            "--output-format."
        )
    return made


def served_name(model: str) -> str:
    """A model's identity (`Engine.model`) as response bodies give it: a server's model by the name it is served by."""
    return model.removeprefix(SERVED)
