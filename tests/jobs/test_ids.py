"""Every row has an id of its own, whether the prompts can be read twice or once only."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import InputError, JobError
from lengthwise.jobs import ids
from lengthwise.jobs.ids import CheckedIds, ClaimedIds, named_rows
from lengthwise.jobs.lines import Line
from lengthwise.jobs.sources import open_source
from lengthwise.types import SamplingParams


class Source:
    """Lines with these ids; None is a row without one, and an empty text a line that is no row."""

    name, format, sha256 = "prompts", "jsonl", ""

    def __init__(self, own_ids: list[str | None], is_repeatable: bool = True) -> None:
        self._own_ids = own_ids
        self.is_repeatable = is_repeatable

    def lines(self) -> list[Line]:
        rows = enumerate(self._own_ids, start=1)
        return [Line(number, json.dumps({"id": own, "prompt": "x"})) for number, own in rows if own != ""]


def names(own_ids: list[str | None], is_repeatable: bool = True) -> list[str]:
    return [row.id for row in named_rows(Source(own_ids, is_repeatable), SamplingParams())]


def wanted(own_ids: list[str | None]) -> list[str] | None:
    """The rule in its plainest words; None where an id is doubled."""
    given_ids = {own for own in own_ids if own}
    rows = [
        own or (f"line-{number}" if str(number) in given_ids else str(number))
        for number, own in enumerate(own_ids, start=1)
        if own != ""
    ]
    return rows if len(set(rows)) == len(rows) else None


own = st.none() | st.just("") | st.integers(1, 8).map(str) | st.integers(1, 8).map("line-{}".format) | st.text("ab")


@given(st.lists(own, max_size=8))
def test_ids_differ_or_the_input_is_refused(own_ids: list[str | None]) -> None:
    """A row has its own id, else its line number, else `line-7` where another row has that; never two the same."""
    if (rows := wanted(own_ids)) is None:
        with pytest.raises(InputError, match="have the same id"):
            names(own_ids)
    else:
        assert names(own_ids) == rows


@given(st.lists(own, max_size=8))
def test_read_once_ids_differ_too(own_ids: list[str | None]) -> None:
    """What can be told only by rows that come later is an error then; else the ids are those of two readings."""
    try:
        found = names(own_ids, is_repeatable=False)
    except InputError:
        assert wanted(own_ids) is None or any((one or "").isdigit() for one in own_ids)
    else:
        assert found == wanted(own_ids)


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_a_doubled_id_names_both_lines(is_repeatable: bool) -> None:
    """The first line that has it and the second, and the ways out."""
    with pytest.raises(InputError, match=r"prompts: lines 2 and 5 have the same id 'b'.*leave them out"):
        names(["a", "b", None, "", "b", "b"], is_repeatable)


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_an_id_that_stands_in_for_a_number_may_be_doubled_too(is_repeatable: bool) -> None:
    with pytest.raises(InputError, match=r"lines 1 and 3 have the same id 'line-3'"):
        names(["line-3", "3", None], is_repeatable)


def test_odd_ids_are_told_apart() -> None:
    """Texts that a database may take for the same: digits of other kinds, long numbers, a NUL, case."""
    odd = ["7\x00", "٧", "07", "7 ", "7.0", "a", "A", "9" * 40, "é", "e\u0301"]
    assert names([*odd, None]) == [*odd, "11"]


def test_ids_and_rows_are_counted_in_one_reading(tmp_path: Path) -> None:
    """The first reading tells the number of rows, and the digest of the file is known then."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "x"}\n\n{"prompt": "y"}\n')
    source = open_source(tmp_path / "p.jsonl")
    assert CheckedIds(source).num_rows == 2
    assert len(source.sha256) == 64


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a program's peak of memory")
def test_memory_does_not_grow_with_ids() -> None:
    """Ids stand on the disk: 40 MB of them cost no more than the cache of 8 MiB."""
    code = (
        "import re, types; from lengthwise.jobs.ids import ClaimedIds;"
        "ids = ClaimedIds(types.SimpleNamespace(name='prompts'));"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10;"
        "before = peak();"
        "sum(len(ids.id_of(i, f'{i:01000}')) for i in range(40_000)); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16


def test_no_room_for_ids_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary disk is told as such."""
    claimed = ClaimedIds(Source([]))
    claimed._database.execute("PRAGMA max_page_count = 10")
    with pytest.raises(JobError, match=r"database or disk is full.*SQLITE_TMPDIR"):
        [claimed.id_of(line, f"{line:0200}") for line in range(10_000)]


def test_standard_input_is_claimed_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows before a doubled id have come out when it is found."""
    read, write = os.pipe()
    os.write(write, b'{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "x"}\n{"id": "a", "prompt": "x"}\n')
    os.close(write)
    with open(read, "rb") as pipe:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(pipe))
        rows = named_rows(open_source(Path("-")), SamplingParams())
        assert [next(rows).id, next(rows).id] == ["a", "b"]
        with pytest.raises(InputError, match="standard input: lines 1 and 3 have the same id 'a'"):
            next(rows)


def test_a_source_is_read_in_chunks() -> None:
    """More rows than go into the database at once."""
    many: list[str | None] = [f"r{i}" for i in range(ids._CHUNK * 2 + 3)]
    assert names(many) == many
    with pytest.raises(InputError, match=f"lines 2 and {len(many) + 1} have"):
        names([*many, "r1"])
