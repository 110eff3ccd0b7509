"""What is finished of a job: an append-only file of JSON lines that stands beside the answers.

Line 1 is the header: format version, state (`open` or `done`) and fingerprint. Each further line is one finished
request: its index in the input and its completion, without `metadata` (it stands in the input) and `tokens` (an
answer is its text).

**Safety.** An append is one write of one whole line, which is with the operating system when `append` returns: a
killed process (`kill -9`) loses nothing that was appended. A thread flushes to the disk once a second, and closing
does: power loss costs at most the last second. What a crash tore off at the end is cut off when the journal is
resumed; a line that is unreadable anywhere else is an error, because something else wrote to the file.

**One owner.** An exclusive `flock` on the journal is held from `open` to `close`; a second process is refused.

**Fingerprint.** What determines the answers, by name: see `fingerprint`. Not in it, so free to change when a job is
resumed: predictor, scheduler, batch size, device, data type and every other option of the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lengthwise.errors import JobError
from lengthwise.journal.files import Syncer, open_locked, sync_folder
from lengthwise.types import Completion, ErrorInfo, PredictedTokens, SamplingParams

FORMAT = 1
_MAGIC = b'{"lengthwise_journal"'

Fingerprint = Mapping[str, Any]
State = Literal["open", "done"]


def fingerprint(
    *,
    input_sha256: str,
    input_format: str,
    model: str | None,
    sampling: SamplingParams,
    max_tokens: int,
    seed: int,
    chat_template: str | None,
) -> Fingerprint:
    """What determines a job's answers, by name, as JSON values.

    `model` is `Engine.model` (identity of weights and revision); None leaves it out, for a check before a model is
    loaded. `sampling` are the job's defaults; those of single requests are part of the input.
    """
    parts: dict[str, Any] = {"input": input_sha256, "input_format": input_format, "max_tokens": max_tokens}
    parts |= {name: value for name, value in asdict(sampling).items() if name != "seed"}
    parts |= {"stop": list(sampling.stop), "seed": seed, "chat_template": chat_template}
    return parts if model is None else {**parts, "model": model}


@dataclass(frozen=True, slots=True)
class Header:
    """The journal's first line. `outcome` is what `mark_done` was given; empty while the job is open."""

    state: State
    fingerprint: Fingerprint
    outcome: Mapping[str, Any]

    def to_line(self) -> bytes:
        return _line({"lengthwise_journal": FORMAT, **asdict(self)})


class Journal:
    """What is finished of one job, on disk.

        with Journal.open(path) as journal:
            journal.resume(parts)
            todo = [i for i in range(n) if i not in journal]
            journal.append(todo[0], completion)

    `open` locks and reads the header, `resume` checks it and recovers what is finished. Finished completions stay on
    disk (`read`); memory holds an offset for each. One writer, one thread. Raises JobError for all that can go wrong.
    """

    def __init__(self, path: Path, descriptor: int, is_overwritten: bool) -> None:
        self.path = path
        self.num_failed = 0
        self._fd = descriptor
        self._size = os.fstat(descriptor).st_size
        self._offsets: dict[int, int] = {}
        self._syncer: Syncer | None = None
        self.header = self._read_header(is_overwritten)

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
        """Go on with the job that `parts` describes: recover what it finished, or begin it in an empty journal.

        Cuts a torn last line off the file. Raises JobError if the journal belongs to a job with other `parts`, and
        if a line before the last is unreadable.
        """
        if self.header is None:
            self._begin(parts)
        else:
            self._check_open()
            self.check(parts)
            self._recover()
        self._syncer = Syncer(self._fd)

    def check(self, parts: Fingerprint) -> None:
        """Raise JobError, naming each difference, if the journal's job differs in any of `parts`."""
        theirs = self.header.fingerprint if self.header else parts
        differing = [name for name in parts if _jsonable(parts[name]) != theirs.get(name)]
        if differing:
            told = "; ".join(_difference(name, theirs.get(name), parts[name]) for name in differing)
            raise JobError(
                f"{self.path} belongs to a job with other settings: {told}. Resuming would mix two jobs' answers. "
                "Use the settings it was started with, another -o, or --overwrite to throw it away."
            )

    def append(self, index: int, completion: Completion) -> None:
        """Record that request `index` is finished. Safe from a killed process when this returns."""
        assert index not in self._offsets, f"request {index} finished twice"
        assert self._syncer is not None, "resume comes before append"
        self._syncer.raise_error(self.path)
        offset = self._write(_line({"index": index, "completion": _completion_to_json(completion)}))
        self._syncer.is_dirty = True
        self._note(index, offset, completion)

    def read(self, index: int) -> Completion:
        """Completion of finished request `index`, without metadata and tokens. KeyError if it is not finished."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(self._offsets[index])
            return _parse_record(file.readline())[1]

    def __contains__(self, index: int) -> bool:
        return index in self._offsets

    def __len__(self) -> int:
        """How many requests are finished."""
        return len(self._offsets)

    def mark_done(self, outcome: Mapping[str, Any]) -> None:
        """Replace the journal, in one step, by a header that says that the job is done; records are dropped."""
        assert self.header is not None, "resume comes before mark_done"
        self._replace(Header("done", self.header.fingerprint, outcome))

    def reset(self) -> None:
        """Throw the journal's content away."""
        with self._writing():
            os.ftruncate(self._fd, 0)
        self._size, self._offsets, self.num_failed, self.header = 0, {}, 0, None

    def close(self) -> None:
        """Flush to the disk and give the lock back; may be called twice. An empty journal is removed.

        Raises JobError, when all is closed, if the disk did not take everything.
        """
        if self._fd < 0:
            return
        if self._syncer is not None:
            self._syncer.close()
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
        if not first.startswith(_MAGIC) and not _MAGIC.startswith(first):
            raise JobError(
                f"{self.path} is no journal of lengthwise; it is left alone. Move it away or use another -o."
            )
        if is_overwritten:
            return None
        if first.endswith(b"\n"):
            return _parse_header(first, self.path)
        self.reset()
        return None

    def _check_open(self) -> None:
        if self.header is not None and self.header.state == "done":
            raise JobError(f"{self.path} says that this job is done; nothing is left to do.")

    def _begin(self, parts: Fingerprint) -> None:
        self.reset()
        header = Header("open", _jsonable(parts), {})
        self._write(header.to_line())
        with self._writing():
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
            index, completion = _parse_record(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JobError(
                f"{self.path}, line {number} is unreadable ({error}), so something else wrote to this file. Delete "
                "that line to have its request answered again, or start over with --overwrite."
            ) from error
        if index not in self._offsets:
            self._note(index, offset, completion)

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number (from 1), offset and bytes of each line."""
        offset = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                yield number, offset, line
                offset += len(line)

    def _note(self, index: int, offset: int, completion: Completion) -> None:
        self._offsets[index] = offset
        self.num_failed += completion.finish_reason == "error"

    def _write(self, line: bytes) -> int:
        """Append `line` and return its offset. A part that a full disk took is written over by the next line, or cut
        off as a torn one."""
        offset = self._size
        with self._writing():
            written = 0
            while written < len(line):
                written += os.pwrite(self._fd, line[written:], offset + written)
        self._size += len(line)
        return offset

    def _replace(self, header: Header) -> None:
        new = self.path.with_name(self.path.name + ".tmp")
        try:
            with self._writing():
                with new.open("wb") as file:
                    file.write(header.to_line())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, self.path)
                sync_folder(self.path.parent)
        finally:
            new.unlink(missing_ok=True)
        self.header = header

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the disk refuses, as a JobError with the way out."""
        try:
            yield
        except OSError as error:
            raise JobError(
                f"{self.path} can't be written ({error.strerror}). {len(self)} finished requests are safe; "
                "make room and run the same command again."
            ) from error


# -- lines -----------------------------------------------------------------------------------------------------


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _jsonable(value: Any) -> Any:
    """As it reads after a round through JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def _difference(name: str, theirs: Any, ours: Any) -> str:
    """Hashes say nothing to people."""
    if name == "input":
        return "the prompts file was changed, or is another one"
    return f"{name} was {_shown(theirs)} and is {_shown(ours)} now"


def _shown(value: Any) -> str:
    """A value in a message: long ones by their beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:16]}…"


def _parse_header(line: bytes, path: Path) -> Header:
    try:
        content = json.loads(line)
        version = content.pop("lengthwise_journal")
        if version == FORMAT:
            return Header(**content)
    except (ValueError, TypeError) as error:
        raise JobError(f"{path}, line 1 is unreadable ({error}). Start over with --overwrite.") from error
    raise JobError(
        f"{path} has journal format {version}, this version of lengthwise knows {FORMAT}. Finish the job with the "
        "version that started it, or start over with --overwrite."
    )


def _completion_to_json(completion: Completion) -> dict[str, Any]:
    content = asdict(replace(completion, metadata={}, tokens=()))
    del content["metadata"], content["tokens"]
    return content


def _parse_record(line: bytes) -> tuple[int, Completion]:
    record = json.loads(line)
    index, content = record["index"], record["completion"]
    if not isinstance(index, int):
        raise ValueError(f"index is {index!r}")
    predicted, error = content.pop("predicted"), content.pop("error")
    return index, Completion(
        **content,
        predicted=PredictedTokens(**predicted) if predicted else None,
        error=ErrorInfo(**error) if error else None,
    )
