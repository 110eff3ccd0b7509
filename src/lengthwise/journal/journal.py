"""What is finished of a job: an append-only file of JSON lines that stands beside the answers.

Line 1 is the header: format version, state (`open` or `done`) and fingerprint. Each further line is one finished
request, `{"index": 7, "failed": false, "answer": {...}}`: its index in the input and its answer, one line of JSON that
is kept byte for byte as it was given. `"digest"` stands before the answer where one was given. The last record of an
index counts: a request may be answered again. `{"publishing": {...}}` has the digests of files before they are put into
their places. `{"done": {...}}` says that the job was done when it was written; records that follow it are of a job that
goes on.

**Safety.** An append is one write of one whole line, which is with the operating system when `append` returns: a
killed process (`kill -9`) loses nothing that was appended. A thread flushes to the disk once a second, and closing
does: power loss costs at most the last second. What a crash tore off at the end is cut off when the journal is
resumed; a line that is unreadable anywhere else is an error, because something else wrote to the file.

**One owner.** An exclusive `flock` on the journal is held from `open` to `close`; a second process is refused.

**Fingerprint.** What determines the answers, by name, as whoever opens the journal gives it.

**Cost.** Two bits of memory a request and eight bytes in a temporary file (`index.py`); answers stay on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lengthwise.errors import JobError
from lengthwise.journal.files import Syncer, open_locked, sync_folder
from lengthwise.journal.index import Index
from lengthwise.journal.lines import (
    DONE,
    MAGIC,
    PUBLISHING,
    Fingerprint,
    Header,
    Record,
    difference,
    jsonable,
    line_of,
    parse_header,
    parse_named,
    parse_record,
)

_TAIL_BYTES = 65536  # a done line is far shorter
_READ_BYTES = 4096  # most records are shorter, and a longer read costs more than a second one for a few


class Journal:
    """What is finished of one job, on disk.

        with Journal.open(path) as journal:
            journal.resume(parts)
            todo = [i for i in range(n) if i not in journal]
            journal.append(todo[0], answer, is_failed=False)

    `open` locks and reads the header, `resume` checks it and recovers what is finished. One writer, one thread; `in`
    and `len` may be asked from others. Raises JobError for all that can go wrong.
    """

    def __init__(self, path: Path, descriptor: int, is_overwritten: bool) -> None:
        self.path = path
        self._fd = descriptor
        self._size = os.fstat(descriptor).st_size
        self._index: Index | None = None
        self._syncer: Syncer | None = None
        self.outcome: Mapping[str, Any] | None = None  # what the last `mark_done` was given
        self.published: list[Mapping[str, str]] = []  # what `note_publishing` was given, each time
        self.num_superseded = 0  # records whose request was answered again
        self.is_done = False
        self.overwritten: Header | None = None  # of what is there and counts as empty, where it can be read
        self.header = self._read_header(is_overwritten)
        if self.header is not None:
            self._read_outcome(self.header)

    @classmethod
    def open(cls, path: Path, overwrite: bool = False) -> Self:
        """Lock the journal at `path`; one that is not there is created, empty. With `overwrite` one that is there
        counts as empty: its content stays on disk until `resume` begins anew.

        Raises JobError if another process holds it, if it can't be written, or if the file is no journal.
        """
        descriptor = open_locked(path)
        try:
            return cls(path, descriptor, overwrite)
        except BaseException:
            os.close(descriptor)
            raise

    def resume(self, parts: Fingerprint) -> None:
        """Go on with the job that `parts` describes: recover what it finished, or begin it in an empty journal. One
        that is done can go on if its records were kept. Raises JobError if the journal belongs to a job with other
        `parts`, and what `recover` raises."""
        if self.header is None:
            self._make_index()
            self._begin(parts)
        else:
            self.check(parts)
            self.recover()
        self._syncer = Syncer(self._fd)

    def recover(self) -> None:
        """Find what is finished; the first call does that. Cuts a torn last line off the file, and raises JobError if
        one before the last is unreadable, or if the records were not kept."""
        assert self.header is not None, "only what was begun can be recovered"
        if not self.has_records:
            raise JobError(f"{self.path} says that this job is done; nothing is left to do.")
        if self._index is None:
            self._make_index()
            self._recover()

    @property
    def has_records(self) -> bool:
        """Whether records are kept; those of a job that is done may be gone."""
        return self.header is not None and self.header.state == "open"

    def reopen(self) -> None:
        """The job goes on though it was done."""
        self.is_done = False

    def forget(self) -> None:
        """What is there counts as empty; it stays on disk until `resume` begins anew."""
        self.header, self.outcome, self.is_done = None, None, False

    def check(self, parts: Fingerprint) -> None:
        """Raise JobError, naming each difference, if the journal's job differs in any of `parts`."""
        theirs = self.header.fingerprint if self.header else parts
        differing = [name for name in parts if jsonable(parts[name]) != theirs.get(name)]
        if differing:
            told = "; ".join(difference(name, theirs.get(name), parts[name]) for name in differing)
            raise JobError(
                f"{self.path} belongs to a job with other settings: {told}. Resuming would mix two jobs' answers. "
                "Use the settings it was started with, another -o, or --overwrite to throw it away."
            )

    def append(self, index: int, answer: bytes, is_failed: bool, digest: str | None = None) -> None:
        """Record that request `index` is finished: `answer` is one line of JSON with its line break, `digest` is
        hexadecimal. Safe from a killed process when this returns. A request that failed may be finished
        again, and so may one of another `digest`."""
        assert self._index is not None, "resume comes before append"
        assert self._syncer is not None, "resume comes before append"
        assert self._is_open(index, digest), f"request {index} finished twice"
        self._syncer.raise_error(self.path)
        try:
            offset = self._write(Record(index, is_failed, digest, answer).to_line())
            self._note(index, offset, is_failed)
        except OSError as error:
            raise self._unwritable(error) from error
        self._syncer.is_dirty = True
        self.is_done = False

    def read(self, index: int) -> Record:
        """The last record of request `index`. KeyError if it is not finished."""
        assert self._index is not None, "resume comes before read"
        return self._read_at(self._index.offset(index))

    def in_order(self) -> Iterator[Record]:
        """The last record of every request, by index; all below the highest must be finished."""
        assert self._index is not None, "resume comes before in_order"
        return map(self._read_at, self._index.offsets(len(self)))

    def in_turn(self) -> Iterator[Record]:
        """Every record, as they were appended, those that are superseded too."""
        for number, _, line in self._lines():
            if number > 1 and not line.startswith((DONE, PUBLISHING)):
                yield parse_record(line)

    def has_failed(self, index: int) -> bool:
        """Request `index` is finished, and without an answer."""
        return self._index is not None and self._index.has_failed(index)

    def __contains__(self, index: int) -> bool:
        return self._index is not None and index in self._index

    def __len__(self) -> int:
        """How many requests are finished."""
        return 0 if self._index is None else self._index.num_finished

    @property
    def num_failed(self) -> int:
        return 0 if self._index is None else self._index.num_failed

    def note_publishing(self, files: Mapping[str, str]) -> None:
        """Remember, down to the disk, the digests of files that are to be put into their places now: whatever happens
        then, they are known for this job's own."""
        if files not in self.published:
            with self._writing():
                self._write(line_of({"publishing": files}))
                os.fsync(self._fd)
            self.published.append(files)

    def mark_done(self, outcome: Mapping[str, Any], keep_records: bool = False) -> None:
        """Say that the job is done. The journal is replaced, in one step, by a header that says so; with `keep_records`
        a line is appended instead, so that the job can go on."""
        assert self.header is not None, "resume comes before mark_done"
        if keep_records:
            with self._writing():
                self._write(line_of({"done": outcome}))
                os.fsync(self._fd)
        else:
            self._replace(Header("done", self.header.fingerprint, outcome))
        self.outcome, self.is_done = outcome, True

    def reset(self) -> None:
        """Throw the journal's content away."""
        with self._writing():
            os.ftruncate(self._fd, 0)
        self._size = 0
        self.forget()

    def close(self) -> None:
        """Flush to the disk and give the lock back; may be called twice. An empty journal is removed.

        Raises JobError, when all is closed, if the disk did not take everything.
        """
        if self._fd < 0:
            return
        if self._syncer is not None:
            self._syncer.close()
        if self._index is not None:
            self._index.close()
        if self._size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1
        if self._syncer is not None:
            self._syncer.raise_error(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- how ---------------------------------------------------------------------------------------------------

    def _read_header(self, is_overwritten: bool) -> Header | None:
        """The header, or None if the file is empty, is to be overwritten, or was torn while its header was written."""
        first = next((line for _, _, line in self._lines()), b"")
        if not first.startswith(MAGIC) and not MAGIC.startswith(first):
            raise JobError(
                f"{self.path} is no journal of lengthwise; it is left alone. Move it away or use another -o."
            )
        if is_overwritten:
            self._look_at_overwritten(first)
            return None
        if first.endswith(b"\n"):
            return parse_header(first, self.path)
        self.reset()
        return None

    def _look_at_overwritten(self, first: bytes) -> None:
        with suppress(JobError):
            header = parse_header(first, self.path)
            self._read_outcome(header)
            self.overwritten = replace(header, outcome=self.outcome or {})
        self.forget()

    def _read_outcome(self, header: Header) -> None:
        """Whether the job is done: the header says so, or the last line, which is looked for from the end."""
        if header.state == "done":
            self.outcome, self.is_done = header.outcome, True
            return
        tail = os.pread(self._fd, _TAIL_BYTES, max(0, self._size - _TAIL_BYTES))
        last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
        if last.startswith(DONE) and last.endswith(b"\n"):
            with suppress(ValueError):  # `recover` names the line
                self.outcome, self.is_done = parse_named(last, "done"), True

    def _is_open(self, index: int, digest: str | None) -> bool:
        return index not in self or self.has_failed(index) or self.read(index).digest != digest

    def _make_index(self) -> None:
        with self._writing():
            self._index = Index(self.path.parent)

    def _note(self, index: int, offset: int, is_failed: bool) -> None:
        assert self._index is not None, "resume makes it"
        self.num_superseded += index in self._index
        self._index.note(index, offset, is_failed)

    def _begin(self, parts: Fingerprint) -> None:
        self.reset()
        header = Header("open", jsonable(parts), {})
        with self._writing():
            self._write(header.to_line())
            os.fsync(self._fd)
            sync_folder(self.path.parent)
        self.header = header

    def _recover(self) -> None:
        for number, offset, line in self._lines():
            if not line.endswith(b"\n"):
                with self._writing():
                    os.ftruncate(self._fd, offset)
                self._size = offset
            elif number > 1:
                self._recover_line(number, offset, line)

    def _recover_line(self, number: int, offset: int, line: bytes) -> None:
        try:
            if line.startswith(DONE):
                self.outcome = parse_named(line, "done")
                return
            if line.startswith(PUBLISHING):
                self.published.append(parse_named(line, "publishing"))
                return
            record = parse_record(line)
            json.loads(record.answer)
        except ValueError as error:
            raise JobError(
                f"{self.path}, line {number} is unreadable ({error}), so something else wrote to this file. Delete "
                "that line to have its request answered again, or start over with --overwrite."
            ) from error
        with self._writing():
            self._note(record.index, offset, record.is_failed)

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number (from 1), offset and bytes of each line."""
        offset = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                yield number, offset, line
                offset += len(line)

    def _read_at(self, offset: int) -> Record:
        """The record that begins there, by as many reads as its length needs."""
        line = os.pread(self._fd, _READ_BYTES, offset)
        while (end := line.find(b"\n")) < 0:
            line += os.pread(self._fd, max(_READ_BYTES, 3 * len(line)), offset + len(line))
        return parse_record(line[: end + 1])

    def _write(self, line: bytes) -> int:
        """Append `line` and return its offset. A part that a full disk took is written over by the next line, or cut
        off as a torn one."""
        offset, num_bytes = self._size, len(line)
        written = os.pwrite(self._fd, line, offset)
        while written < num_bytes:
            written += os.pwrite(self._fd, line[written:], offset + written)
        self._size = offset + num_bytes
        return offset

    def _replace(self, header: Header) -> None:
        new = replacement_of(self.path)
        try:
            with self._writing():
                with new.open("wb") as file:
                    file.write(header.to_line())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, self.path)
                sync_folder(self.path.parent)
        finally:
            with suppress(OSError):  # it would hide what went wrong before
                new.unlink(missing_ok=True)
        self.header = header

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> JobError:
        """What the disk refuses, with the way out."""
        return JobError(
            f"{self.path} can't be written ({error.strerror}). {len(self)} finished requests are safe; "
            "make room and run the same command again."
        )


def replacement_of(path: Path) -> Path:
    """Where the journal at `path` is written anew when its job is done."""
    return path.with_name(path.name + ".tmp")
