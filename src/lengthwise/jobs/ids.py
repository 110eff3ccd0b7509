"""Every row gets an id of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lengthwise.errors import InputError
from lengthwise.jobs.rows import Row


def resolve_ids(rows: Sequence[Row], path: Path) -> list[Row]:
    """Rows with ids that all differ. Raises InputError, with both lines, where two rows give the same id.

    A row without an id of its own has its line number; where another row gives just that as its id, it is
    `line-7` instead: a bad line, whose id can't be read, must not stop the others.
    """
    line_of: dict[str, int] = {}
    for row in rows:
        if row.is_id_given:
            _claim(line_of, row, path)
    named = [row if row.is_id_given or row.id not in line_of else row.named(f"line-{row.line}") for row in rows]
    for row in named:
        if not row.is_id_given:
            _claim(line_of, row, path)
    return named


def _claim(line_of: dict[str, int], row: Row, path: Path) -> None:
    first = line_of.setdefault(row.id, row.line)
    if first != row.line:
        raise InputError(
            f"{path}: lines {first} and {row.line} have the same id {row.id!r}, so their answers could not be told "
            "apart. Give them different ids, or leave them out: line numbers are used then."
        )
