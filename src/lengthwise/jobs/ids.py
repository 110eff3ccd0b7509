"""Every row gets an id of its own, however many rows there are.

A row without an id of its own has its line number; where another row gives just that as its id, it is `line-7`
instead: a bad line, whose id can't be read, must not stop the others.

Ids are kept in a temporary database on the disk (SQLite's, in TMPDIR): memory stays at its cache of 8 MiB.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

from lengthwise.errors import InputError, JobError
from lengthwise.jobs.rows import Row, read_row, row_id_of
from lengthwise.jobs.sources import Source
from lengthwise.types import SamplingParams

_CACHE_KIB = 8192
_CHUNK = 4096  # rows put into the database at once


class Ids(Protocol):
    """The ids of one source's rows. Raises JobError where the temporary disk is full."""

    def id_of(self, line: int, own_id: str | None) -> str:
        """The id of the row on `line`, which gives itself `own_id`. Raises InputError if it is doubled."""
        ...


class CheckedIds:
    """The ids of a source that can be read twice: it is read once here, which also counts its rows.

    Raises InputError, with both lines, where two rows have the same id.
    """

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._database = _database("CREATE TABLE own (line INTEGER PRIMARY KEY, id TEXT)")
        self.num_rows = self._read(source)
        with _on_disk():
            self._refuse_doubled("SELECT id FROM own WHERE id IS NOT NULL GROUP BY id HAVING COUNT(*) > 1 LIMIT 1")
            self._has_renamed = self._rename()

    def id_of(self, line: int, own_id: str | None) -> str:
        if own_id is not None:
            return own_id
        return f"line-{line}" if self._has_renamed and self._is_renamed(line) else str(line)

    def _read(self, source: Source) -> int:
        rows = ((line.number, row_id_of(line, source.format)) for line in source.lines())
        num_rows = 0
        while chunk := list(islice(rows, _CHUNK)):
            with _on_disk():
                self._database.executemany("INSERT INTO own VALUES (?, ?)", chunk)
            num_rows += len(chunk)
        return num_rows

    def _rename(self) -> bool:
        """Note the lines whose number is another row's id; whether there are any."""
        execute = self._database.execute
        execute("CREATE TABLE renamed (line INTEGER PRIMARY KEY)")
        execute(
            "INSERT INTO renamed SELECT row.line FROM own JOIN own AS row ON row.line = CAST(own.id AS INTEGER) "
            "WHERE own.id GLOB '[1-9]*' AND own.id NOT GLOB '*[^0-9]*' AND LENGTH(own.id) < 19 AND row.id IS NULL"
        )
        if execute("SELECT 1 FROM renamed LIMIT 1").fetchone() is None:
            return False
        execute("UPDATE own SET id = 'line-' || line WHERE line IN renamed")
        self._refuse_doubled("SELECT id FROM own WHERE id GLOB 'line-*' GROUP BY id HAVING COUNT(*) > 1 LIMIT 1")
        return True

    def _refuse_doubled(self, find: str) -> None:
        found = self._database.execute(find).fetchone()
        if found is not None:
            lines = self._database.execute("SELECT line FROM own WHERE id = ? ORDER BY line LIMIT 2", found)
            (first,), (second,) = lines
            raise _doubled(self._name, found[0], first, second)

    def _is_renamed(self, line: int) -> bool:
        return self._database.execute("SELECT 1 FROM renamed WHERE line = ?", (line,)).fetchone() is not None


class ClaimedIds:
    """The ids of a source that can be read once only, claimed row by row: an id that turns out to be doubled is found
    when its second row comes."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._database = _database("CREATE TABLE own (id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")

    def id_of(self, line: int, own_id: str | None) -> str:
        with _on_disk():
            wanted = str(line) if own_id is None else own_id
            if self._claim(wanted, line):
                return wanted
            if own_id is None and self._claim(f"line-{line}", line):
                return f"line-{line}"
            doubled = wanted if own_id is not None else f"line-{line}"
            (first,) = self._database.execute("SELECT line FROM own WHERE id = ?", (doubled,)).fetchone()
            raise _doubled(self._name, doubled, first, line)

    def _claim(self, wanted: str, line: int) -> bool:
        return self._database.execute("INSERT OR IGNORE INTO own VALUES (?, ?)", (wanted, line)).rowcount == 1


def named_rows(source: Source, defaults: SamplingParams, prompt_field: str | None = None) -> Iterator[Row]:
    """The rows of a source, in order, with ids that all differ. Raises InputError where two rows give the same one."""
    ids: Ids = CheckedIds(source) if source.is_repeatable else ClaimedIds(source)
    for line in source.lines():
        yield named(read_row(line, source.format, defaults, prompt_field), ids)


def named(row: Row, ids: Ids) -> Row:
    row_id = ids.id_of(row.line, row.id if row.is_id_given else None)
    return row if row.id == row_id else row.named(row_id)


def _database(table: str) -> sqlite3.Connection:
    """A database of its own in a temporary file that is gone with the process; nothing in it need survive."""
    with _on_disk():
        made = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a feed's thread may claim ids
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            made.execute(f"PRAGMA {setting}")
        made.execute(table)
        made.execute("BEGIN")
    return made


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise JobError(
            f"Ids can't be compared in a temporary file ({error}), so a doubled one would not be found. Make room in "
            "the temporary folder, or set SQLITE_TMPDIR to another one."
        ) from error


def _doubled(name: str, row_id: str, first: int, second: int) -> InputError:
    return InputError(
        f"{name}: lines {first} and {second} have the same id {row_id!r}, so their answers could not be told "
        "apart. Give them different ids, or leave them out: line numbers are used then."
    )
