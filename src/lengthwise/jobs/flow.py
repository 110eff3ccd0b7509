"""The rows of a source on their way through a pipeline: read when they are needed, recorded when they are answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import NoReturn, Protocol

from lengthwise.errors import JobError
from lengthwise.feeds import ThreadedFeed
from lengthwise.jobs.ids import CheckedIds, ClaimedIds, Ids, named
from lengthwise.jobs.lines import Line
from lengthwise.jobs.options import JobOptions
from lengthwise.jobs.rows import Row, read_row
from lengthwise.jobs.sources import Source
from lengthwise.pipeline import Pipeline
from lengthwise.types import Completion, ErrorInfo, Request


@dataclass(slots=True)  # not frozen, as Record
class Taken:
    """A row that is on its way. `index` counts rows from 0; `digest` is of its line."""

    index: int
    row: Row
    digest: str


class Record(Protocol):
    """What becomes of rows: which are left to be answered, and where the answers go."""

    def is_left(self, index: int, line: Line, digest: str) -> bool: ...

    def take(self, taken: Taken, completion: Completion) -> None: ...


class Flow:
    """One pass over a source. Memory holds the rows that wait and run, not more: see `JobOptions.window`.

    Standard input is read ahead by a thread, so that nothing that runs stands still while its writer is slow.
    """

    def __init__(self, options: JobOptions, source: Source) -> None:
        self.source = source
        self.num_rows: int | None = None  # these two are known once all was read
        self.sha256: str | None = None
        self._options = options
        self._ids: Ids | None = None
        self._in_flight: dict[str, Taken] = {}
        self._pipeline: Pipeline | None = None
        self._is_stopped = False
        self._is_exhausted = False

    def check(self) -> None:
        """Read a source that can be read twice once before anything else: count its rows, find doubled ids. Raises
        InputError."""
        if self.source.is_repeatable:
            ids = CheckedIds(self.source)
            self._ids, self.num_rows, self.sha256 = ids, ids.num_rows, self.source.sha256
        else:
            self._ids = ClaimedIds(self.source)

    def run(self, pipeline: Pipeline, record: Record) -> None:
        """Answer all rows that are left. Raises what the pipeline, the source and the record raise."""
        self._pipeline = pipeline
        requests = self._requests(record)
        is_slow = not self.source.is_repeatable
        feed = ThreadedFeed(requests, self._options.window) if is_slow else nullcontext(requests)
        try:
            with feed as items:
                for completion in pipeline.stream(items):
                    record.take(self._in_flight.pop(completion.id), completion)
        finally:
            self._pipeline = None

    def drain(self) -> None:
        """Start nothing new; what runs is finished. May be called from a signal handler or another thread."""
        self._is_stopped = True
        if self._pipeline is not None:
            self._pipeline.drain()

    def stop(self) -> None:
        """End at the next step, and cancel what runs. May be called from a signal handler or another thread."""
        self._is_stopped = True
        if self._pipeline is not None:
            self._pipeline.stop()

    @property
    def is_over(self) -> bool:
        """All rows were read, and all that were taken are answered."""
        return self._is_exhausted and not self._in_flight

    def _requests(self, record: Record) -> Iterator[Request | Completion]:
        num_rows = 0
        for index, line in enumerate(self.source.lines()):
            if self._is_stopped:
                return
            if index == self.num_rows:
                self._refuse_changed()
            num_rows = index + 1
            digest = digest_of(line)
            if record.is_left(index, line, digest):
                row = self._named(line)
                if row.id in self._in_flight:
                    self._refuse_changed()
                self._in_flight[row.id] = Taken(index, row, digest)
                yield _request(row)
            elif not self.source.is_repeatable:
                self._named(line)  # its id is taken, too
        if self.sha256 not in (None, self.source.sha256):
            self._refuse_changed()
        self.num_rows, self.sha256, self._is_exhausted = num_rows, self.source.sha256, True

    def _refuse_changed(self) -> NoReturn:
        raise JobError(
            f"{self.source.name} was changed while it was read. Put it back: the rows whose lines were others are "
            "answered again then. Or use another -o."
        )

    def _named(self, line: Line) -> Row:
        assert self._ids is not None, "check comes before run"
        options = self._options
        return named(read_row(line, self.source.format, options.sampling, options.prompt_field), self._ids)


def digest_of(line: Line) -> str:
    """What a line said, in 16 digits: enough to see that it was changed."""
    return blake2b(str(line.content).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _request(row: Row) -> Request | Completion:
    content = row.content
    return Completion(row.id, "", "error", error=content) if isinstance(content, ErrorInfo) else content
