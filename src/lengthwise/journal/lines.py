"""The lines of a journal, as they are written and read: header, records, what is published and done."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lengthwise.errors import JobError, shown

FORMAT = 2
MAGIC = b'{"lengthwise_journal"'
DONE = b'{"done": '
PUBLISHING = b'{"publishing": '
_RECORD = re.compile(rb'\{"index": ([0-9]+), "failed": (true|false), (?:"digest": "([0-9a-f]+)", )?"answer": ')

Fingerprint = Mapping[str, Any]
State = Literal["open", "done"]


@dataclass(slots=True)  # not frozen: a million of them would take a second longer
class Record:
    """One finished request. `answer` is a line of JSON, as it was appended."""

    index: int
    is_failed: bool
    digest: str | None
    answer: bytes

    def to_line(self) -> bytes:
        beside = "" if self.digest is None else f'"digest": "{self.digest}", '
        head = f'{{"index": {self.index}, "failed": {"true" if self.is_failed else "false"}, {beside}"answer": '
        return b"%b%b}\n" % (head.encode(), self.answer[:-1])


@dataclass(frozen=True, slots=True)
class Header:
    """The journal's first line. `outcome` is what `mark_done` was given; empty while the job is open."""

    state: State
    fingerprint: Fingerprint
    outcome: Mapping[str, Any]

    def to_line(self) -> bytes:
        return line_of({"lengthwise_journal": FORMAT, **asdict(self)})


def line_of(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def jsonable(value: Any) -> Any:
    """As it reads after a round through JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def difference(name: str, theirs: Any, ours: Any) -> str:
    """Of one part of two fingerprints, in words. Hashes say nothing to people."""
    if _is_hash(theirs) and _is_hash(ours):
        return f"{name} was changed, or is another one"
    return f"{name} was {shown(theirs)} and is {shown(ours)} now"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def parse_header(line: bytes, path: Path) -> Header:
    """Raises JobError on a line that is none, or of another format."""
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


def parse_named(line: bytes, name: str) -> Mapping[str, Any]:
    """What a line says is done or to be published. Raises ValueError where it says nothing."""
    content = json.loads(line)[name]
    if not isinstance(content, dict):
        raise ValueError(f"{name} is {content!r}")
    return content


def parse_record(line: bytes) -> Record:
    """Raises ValueError where the line is no record; the answer itself is taken as it is."""
    head = _RECORD.match(line)
    if head is None or not line.endswith(b"}\n"):
        raise ValueError("it is no record")
    index, failed, digest = head.groups()
    answer = line[head.end() : -2] + b"\n"
    return Record(int(index), failed == b"true", None if digest is None else digest.decode(), answer)
