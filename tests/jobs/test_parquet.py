"""Parquet in: columns like the fields of a JSONL line, memory that does not grow with the file."""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lengthwise.errors import InputError
from lengthwise.jobs.ids import named_rows
from lengthwise.jobs.rows import Row, row_id_of
from lengthwise.jobs.sources import open_source
from lengthwise.types import ErrorInfo, Request, SamplingParams

DEFAULTS = SamplingParams(temperature=0.5)


def rows_of(folder: Path, table: pa.Table, prompt_field: str | None = None, **options: Any) -> list[Row]:
    path = folder / "prompts.parquet"
    parquet.write_table(table, path, **options)
    source = open_source(path, prompt_field=prompt_field)
    rows = list(named_rows(source, DEFAULTS, prompt_field))
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.format, source.is_repeatable, source.name) == ("parquet", True, str(path))
    return rows


def metadata_of(folder: Path, value: pa.Array) -> Any:
    """What a value of metadata becomes, as the answer's JSON has it."""
    [row] = rows_of(folder, pa.table({"prompt": ["x"], "value": value}))
    return json.loads(json.dumps(row.metadata))["value"]


class TestRows:
    """A row is what the same fields are on a JSONL line."""

    def test_prompts_settings_and_metadata(self, tmp_path: Path) -> None:
        """Null is left out, in every column; rows count from 1."""
        table = pa.table(
            {
                "id": ["a", None],
                "prompt": ["Hello", "World"],
                "max_tokens": pa.array([None, 9], pa.int32()),
                "temperature": pa.array([None, 0.75], pa.float32()),
                "stop": [None, ["x", "y"]],
                "n": [1, 2],
                "topic": ["tea", None],
            }
        )
        first, second = rows_of(tmp_path, table)
        assert first == Row(1, "a", Request("a", "Hello", DEFAULTS, metadata={"topic": "tea"}), True, {"topic": "tea"})
        own = SamplingParams(temperature=0.75, stop=("x", "y"))
        assert second == Row(2, "2", Request("2", "World", own, 9, api_fields={"n": 2}), False, {})

    def test_messages(self, tmp_path: Path) -> None:
        """A list of structs; what some messages have and others lack is null in those."""
        chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi", "name": "Ann"}]
        [row] = rows_of(tmp_path, pa.table({"messages": [chat]}))
        assert row.content == Request("1", (chat[0], chat[1]), DEFAULTS)

    def test_instruction_and_input(self, tmp_path: Path) -> None:
        """Alpaca's columns."""
        one, other = rows_of(tmp_path, pa.table({"instruction": ["Sum up.", "Go."], "input": ["Text", None]}))
        assert isinstance(one.content, Request)
        assert isinstance(other.content, Request)
        assert (one.content.prompt, other.content.prompt) == ("Sum up.\nText", "Go.")

    def test_prompt_field(self, tmp_path: Path) -> None:
        """Another column is the prompt, also one of messages; the usual ones are metadata then."""
        table = pa.table({"question": ["Why?"], "chat": [[{"role": "user", "content": "Hi"}]], "prompt": ["no"]})
        [row] = rows_of(tmp_path, table.drop_columns("chat"), "question")
        assert row.content == Request("1", "Why?", DEFAULTS, metadata={"prompt": "no"})
        [row] = rows_of(tmp_path, table.select(["chat"]), "chat")
        assert row.content == Request("1", ({"role": "user", "content": "Hi"},), DEFAULTS)

    def test_whole_numbers_that_are_stored_as_floats(self, tmp_path: Path) -> None:
        """Tables with gaps store whole numbers as floats; a half is an error of its row."""
        table = pa.table({"prompt": ["a", "b", "c"], "max_tokens": [9.0, None, 2.5], "id": [1.0, 5.0, 3.0]})
        first, second, third = rows_of(tmp_path, table)
        assert [row.id for row in (first, second, third)] == ["1", "5", "3"]
        assert isinstance(first.content, Request)
        assert first.content.max_tokens == 9
        assert isinstance(second.content, Request)
        assert isinstance(third.content, ErrorInfo)
        assert "max_tokens is 2.5" in third.content.message

    def test_gaps_and_decimals(self, tmp_path: Path) -> None:
        """NaN in a column of whole numbers is a gap; decimals are numbers where a number is wanted."""
        table = pa.table(
            {
                "prompt": ["a", "b"],
                "id": [1.0, float("nan")],
                "max_tokens": [float("nan"), 5.0],
                "n": [float("nan"), 2.0],
                "seed": [decimal.Decimal("7.00"), None],
                "temperature": [decimal.Decimal("0.25"), decimal.Decimal("1.00")],
                "top_k": pa.array([None, decimal.Decimal(10) ** 40], pa.decimal256(50, 0)),
            }
        )
        first, second = rows_of(tmp_path, table)
        assert first.content == Request("1", "a", SamplingParams(temperature=0.25, seed=7))
        assert (second.id, second.is_id_given) == ("2", False)
        assert isinstance(second.content, ErrorInfo)
        assert "top_k is 1000" in second.content.message
        [row] = rows_of(tmp_path, table.drop_columns("top_k").slice(1))
        own = SamplingParams(temperature=1.0)
        assert row.content == Request("1", "b", own, 5, api_fields={"n": 2})
        [row] = rows_of(tmp_path, pa.table({"prompt": ["a"], "max_tokens": [float("inf")]}))
        assert isinstance(row.content, ErrorInfo)

    def test_what_a_table_does_not_say_a_server_does_not_get(self, tmp_path: Path) -> None:
        """Every struct of a column has every field of all: those that are null are left out, however deep, but not of
        metadata. An empty map asks for nothing."""
        tools = [{"type": "function", "function": {"name": "f", "strict": None}}]
        said = [{"type": "function", "function": {"name": "f"}}]
        calls = [{"id": "1", "function": {"name": "f", "arguments": None}}]
        chat = [{"role": "user", "content": "Hi", "tool_calls": None}, {"role": "assistant", "tool_calls": calls}]
        bias = pa.array([[]], pa.map_(pa.string(), pa.float64()))
        table = pa.table({"tools": [tools], "mine": [tools], "logit_bias": bias, "chat": [chat], "prompt": ["x"]})
        [row] = rows_of(tmp_path, table.drop_columns("chat"))
        assert isinstance(row.content, Request)
        assert (row.content.api_fields, row.metadata) == ({"tools": said}, {"mine": tools})
        [row] = rows_of(tmp_path, table.select(["chat"]), "chat")
        assert isinstance(row.content, Request)
        assert row.content.prompt == (
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        )

    def test_bad_rows_stop_no_others(self, tmp_path: Path) -> None:
        """No prompt, and a text that is no UTF-8: errors of their rows."""
        raw = [b"good", b"\xff", None, b"fine"]
        binary = pa.array(raw, pa.binary())
        text = pa.Array.from_buffers(pa.string(), 4, binary.buffers())
        kinds = [
            row.content.type if isinstance(row.content, ErrorInfo) else row.content.prompt
            for row in rows_of(tmp_path, pa.table({"prompt": text}))
        ]
        assert kinds == ["good", "invalid_encoding", "missing_prompt", "fine"]

    def test_many_row_groups_and_dictionaries(self, tmp_path: Path) -> None:
        """Rows are numbered through row groups and batches; a column may be coded by a dictionary."""
        table = pa.table({"prompt": pa.array(["a", "b", "c"] * 1000).dictionary_encode()})
        rows = rows_of(tmp_path, table, row_group_size=700)
        assert [row.line for row in rows] == list(range(1, 3001))
        assert [row.content.prompt for row in rows] == ["a", "b", "c"] * 1000  # type: ignore[union-attr]


AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (pa.array([AT], pa.timestamp("us")), "2026-01-02 03:04:05.000678"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([AT], pa.timestamp("us", "UTC")), "2026-01-02 03:04:05.000678Z"),
        (pa.array([AT.date()]), "2026-01-02"),
        (pa.array([AT.time()]), "03:04:05.000678"),
        (pa.array([5], pa.duration("ms")), 5),
        (pa.array([decimal.Decimal("1.10")]), "1.10"),
        (pa.array([b"text"]), "text"),
        (pa.array([b"\xff\x00"], pa.large_binary()), base64.b64encode(b"\xff\x00").decode()),
        (pa.array([b"ab"], pa.binary(2)), "ab"),
        (pa.array([[("k", AT.date())]], pa.map_(pa.string(), pa.date32())), {"k": "2026-01-02"}),
        (pa.array([[]], pa.map_(pa.string(), pa.int64())), {}),
        (pa.array([[[], None]], pa.list_(pa.map_(pa.string(), pa.int64()))), [{}, None]),
        (
            pa.array([{"m": [("a", AT.date())]}], pa.struct([("m", pa.map_(pa.string(), pa.date32()))])),
            {"m": {"a": "2026-01-02"}},
        ),
        (pa.array([[(5, b"v")]], pa.map_(pa.int64(), pa.binary())), {"5": "v"}),
        (pa.array([[{"at": AT, "raw": b"x", "n": 1}]]), [{"at": "2026-01-02 03:04:05.000678", "raw": "x", "n": 1}]),
        (pa.array([[1.5, 2.5]], pa.list_(pa.float32(), 2)), [1.5, 2.5]),
        (pa.array([1.5], pa.float16()), 1.5),
        (pa.array([[True, None]], pa.large_list(pa.bool_())), [True, None]),
        (pa.array([AT.date()]).dictionary_encode(), "2026-01-02"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_what_json_does_not_have_becomes_what_it_has(tmp_path: Path, value: pa.Array, wanted: Any) -> None:
    """Metadata of each kind that Parquet knows can be written into an answer."""
    assert metadata_of(tmp_path, value) == wanted


class TestWrongAsAWhole:
    """Files that are refused before any work, in one sentence with a way out."""

    def test_no_column_with_prompts(self, tmp_path: Path) -> None:
        """The columns that exist are named, and the option."""
        with pytest.raises(InputError, match=r"no column prompt or messages or .* has question, L\..*--prompt-field"):
            rows_of(tmp_path, pa.table({"question": ["x"], "L": [1]}))
        with pytest.raises(InputError, match="no column text"):
            rows_of(tmp_path, pa.table({"prompt": ["x"]}), "text")

    def test_no_rows(self, tmp_path: Path) -> None:
        """A table without rows is as empty as an empty file."""
        with pytest.raises(InputError, match="is empty"):
            rows_of(tmp_path, pa.table({"prompt": pa.array([], pa.string())}))

    @pytest.mark.parametrize("damage", ["cut", "emptied", "text", "missing", "footer"])
    def test_no_parquet(self, tmp_path: Path, damage: str) -> None:
        """Cut off, empty, a text under such a name, nothing there, a broken end."""
        path = tmp_path / "prompts.parquet"
        parquet.write_table(pa.table({"prompt": ["x"] * 1000}), path)
        whole = path.read_bytes()
        contents = {
            "cut": whole[:-50],
            "emptied": b"",
            "text": b"Hello\n",
            "footer": whole[:-60] + bytes(52) + whole[-8:],
        }
        path.unlink()
        if damage in contents:
            path.write_bytes(contents[damage])
        with pytest.raises(InputError, match="does not exist" if damage == "missing" else "can't be read as Parquet"):
            open_source(path)

    def test_broken_in_the_middle(self, tmp_path: Path) -> None:
        """A page that can't be decoded is found while reading, as an error of the file."""
        path = tmp_path / "prompts.parquet"
        parquet.write_table(pa.table({"prompt": [os.urandom(20).hex() for _ in range(5000)]}), path)
        whole = bytearray(path.read_bytes())
        whole[20_000:60_000] = bytes(40_000)
        path.write_bytes(whole)
        source = open_source(path)
        with pytest.raises(InputError, match="can't be read as Parquet"):
            list(source.lines())

    def test_found_by_its_content(self, tmp_path: Path) -> None:
        """Under another name it is Parquet all the same; a text may be asked for."""
        path = tmp_path / "prompts"
        parquet.write_table(pa.table({"prompt": ["x"]}), path)
        assert open_source(path).format == "parquet"
        (tmp_path / "song").write_text("PAR1 is how this text begins\n")
        assert open_source(tmp_path / "song", "text").format == "text"


def test_a_row_group_need_not_fit_into_memory(tmp_path: Path) -> None:
    """64 MB in one row group are read with a fraction of it held."""
    path = tmp_path / "prompts.parquet"
    texts = [os.urandom(1600).hex() for _ in range(20_000)]
    parquet.write_table(pa.table({"prompt": texts}), path, compression="none", use_dictionary=False)
    assert parquet.ParquetFile(path).metadata.num_row_groups == 1
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() for _ in open_source(path).lines()]
    assert len(held) == 20_000
    assert max(held) - before < 16 * 2**20


column_types = st.sampled_from(
    [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary(), pa.timestamp("ns"), pa.list_(pa.string())]
)
column_names = st.sampled_from(["id", "prompt", "messages", "instruction", "max_tokens", "seed", "stop", "n", "x"])


@settings(max_examples=60)
@given(st.dictionaries(column_names, column_types, max_size=5), st.data())
def test_any_table_is_rows_or_errors(
    tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, pa.DataType], data: st.DataObject
) -> None:
    """Whatever the columns hold, each row is a request or an error with its number, and its id is found sooner."""
    values = {
        "string": st.text(max_size=4),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "double": st.floats(),
        "bool": st.booleans(),
        "binary": st.binary(max_size=4),
        "timestamp[ns]": st.integers(-(2**60), 2**60),
        "list<item: string>": st.lists(st.text(max_size=3), max_size=2),
    }
    columns = {
        name: pa.array(data.draw(st.lists(st.none() | values[str(kind)], min_size=3, max_size=3)), kind)
        for name, kind in kinds.items()
    }
    table = pa.table({"prompt": ["a", None, "b"], **columns})
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    parquet.write_table(table, path)
    source = open_source(path)
    from lengthwise.jobs.rows import read_row

    for number, line in enumerate(source.lines(), 1):
        row = read_row(line, "parquet", DEFAULTS)
        assert row.line == number
        assert row_id_of(line, "parquet") == (row.id if row.is_id_given else None)
        json.dumps(dict(row.metadata))
        assert isinstance(row.content, Request) or (row.content.line == number and row.content.message)
