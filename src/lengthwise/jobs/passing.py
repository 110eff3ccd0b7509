"""Answers that go to a stream: each is given out as soon as it is there, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from lengthwise.jobs.flow import Flow, Taken
from lengthwise.jobs.job import JobResult, Status, format_of, served_name
from lengthwise.jobs.lines import Line
from lengthwise.jobs.options import JobOptions
from lengthwise.jobs.sources import open_source
from lengthwise.pipeline import Pipeline
from lengthwise.types import Completion


class PassingJob:
    """Prompts on their way to a stream, in the order in which answers are completed. Stopped, it begins again."""

    is_complete = False
    errors = None  # failed rows stand among the answers

    def __init__(self, options: JobOptions, flow: Flow, write: Callable[[bytes], None]) -> None:
        self.options = options
        self.num_finished = 0
        self._num_failed = 0
        self._flow = flow
        self._write = write
        self._format = format_of(options, flow)
        self._model = ""

    @classmethod
    def open(cls, options: JobOptions, write: Callable[[bytes], None]) -> Self:
        """Look through the prompts. Raises InputError or UsageError for whatever is wrong as a whole."""
        flow = Flow(options, open_source(options.prompts, options.input_format, options.prompt_field))
        job = cls(options, flow, write)
        flow.check()
        return job

    def run(self, pipeline: Pipeline) -> JobResult:
        """Answer all rows. Ends where the stream's reader is gone (`BrokenPipeError`)."""
        self._model = served_name(pipeline.engine.model)
        try:
            self._flow.run(pipeline, self)
        except BrokenPipeError:
            return self._result("unread")
        return self._result("done" if self._flow.is_over else "interrupted")

    def drain(self) -> None:
        """Start nothing new; `run` ends when what runs is finished."""
        self._flow.drain()

    def stop(self) -> None:
        """End `run` at its next step."""
        self._flow.stop()

    @property
    def num_rows(self) -> int | None:
        return self._flow.num_rows

    def is_left(self, index: int, line: Line, digest: str) -> bool:
        return True

    def take(self, taken: Taken, completion: Completion) -> None:
        self._write(self._format.encode(taken.row, completion, self._model))
        self.num_finished += 1
        self._num_failed += completion.error is not None

    def _result(self, status: Status) -> JobResult:
        return JobResult(status, self.num_rows, self.num_finished, self._num_failed, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass
