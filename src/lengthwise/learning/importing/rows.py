"""What a row of any format becomes: a prompt with its answers' lengths, or why it has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LengthRow:
    """One prompt and how many tokens its answers had.

    `prompt` has the fields as they were given (`prompt`, `messages`, or `instruction` and `input`; none where the
    prompt is not known), `lengths` is `length` (a list, where a prompt was answered several times), or `L_t0.0` and so
    on in the reference's data. `is_cut` says that the limit ended the answer, which is then at least that long; None:
    not known. Of several answers those are cut that have `max_tokens`. `place` is where the row stood, for messages.
    """

    place: str
    id: str
    lengths: Mapping[str, int | list[int]]
    prompt: Mapping[str, Any] = field(default_factory=dict)
    is_cut: bool | None = None
    max_tokens: int | None = None
    model: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What is known, and no more, in the order that people read it."""
        reason = None if self.is_cut is None else "length" if self.is_cut else "stop"
        settings = {"finish_reason": reason, "max_tokens": self.max_tokens, "model": self.model}
        known = {name: value for name, value in settings.items() if value is not None}
        return {"id": self.id, **self.prompt, **self.lengths, **known}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that gives no length: where it stood, and why."""

    place: str
    reason: str


Rows = Iterator[LengthRow | LeftOut]


def sound(rows: Iterable[LengthRow | LeftOut]) -> Rows:
    """Rows whose ids differ, and whose length is within their limit; the others are left out. A row that is there
    twice, the same in all, is taken once: the reference's `lenpred.py` writes the last row of each batch twice."""
    seen: dict[str, tuple[str, int]] = {}
    for row in rows:
        if isinstance(row, LeftOut):
            yield row
            continue
        content = hash(repr(row.to_json()))
        place, first = seen.setdefault(row.id, (row.place, content))
        if place == row.place:
            yield _within_limit(row)
        elif first != content:
            yield LeftOut(row.place, f"the id {row.id!r} is that of {place}, with other values")


def _within_limit(row: LengthRow) -> LengthRow | LeftOut:
    length = row.lengths.get("length")
    if row.max_tokens is None or not isinstance(length, int) or length <= row.max_tokens:
        return row
    return LeftOut(row.place, f"its length of {length} tokens is beyond its limit of {row.max_tokens}")
