"""Reading prompts: each format, each bad row beside good ones, each file that is wrong as a whole."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.errors import InputError
from lengthwise.jobs.formats import InputFormat
from lengthwise.jobs.ids import named_rows
from lengthwise.jobs.lines import MAX_LINE_BYTES, Line
from lengthwise.jobs.rows import Row, read_row, row_id_of
from lengthwise.jobs.sources import open_source
from lengthwise.types import ErrorInfo, Request, SamplingParams

DEFAULTS = SamplingParams(temperature=0.5, stop=("END",))


def rows_of(path: Path, content: str | bytes, asked: str = "auto") -> list[Row]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(named_rows(open_source(path, asked), DEFAULTS))  # type: ignore[arg-type]


def request_of(path: Path, fields: object) -> Request:
    [row] = rows_of(path, json.dumps(fields))
    assert isinstance(row.content, Request), row.content
    return row.content


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return tmp_path / "prompts.jsonl"


@pytest.fixture
def txt(tmp_path: Path) -> Path:
    return tmp_path / "prompts.txt"


class TestPrompts:
    """The three forms of a JSON row, and text."""

    def test_prompt(self, jsonl: Path) -> None:
        """A prompt, with the line number as id and the job's sampling."""
        assert request_of(jsonl, {"prompt": "Hello"}) == Request("1", "Hello", DEFAULTS)

    def test_messages(self, jsonl: Path) -> None:
        """Chat messages stay messages, in order."""
        chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]
        assert request_of(jsonl, {"messages": chat}).prompt == tuple(chat)

    def test_what_else_a_message_may_have(self, jsonl: Path) -> None:
        """A developer's message, a speaker's name, and fields that ask for nothing."""
        chat = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "Hi", "name": "Ann"}]
        empty = {"tool_calls": [], "refusal": None}
        assert request_of(jsonl, {"messages": [{**message, **empty} for message in chat]}).prompt == tuple(chat)

    def test_parts_tools_and_images_go_with_the_request(self, jsonl: Path) -> None:
        """As they were given: which of them can be honoured is the engine's to say. Their texts are the request's."""
        chat = [
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "detail": None}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
            {"role": "tool", "content": "4", "tool_call_id": "1"},
            {"role": "function", "content": "5", "name": "f"},
        ]
        request = request_of(jsonl, {"messages": chat})
        assert request.prompt == tuple(chat)
        assert request.text == "Hello\n\n\n4\n5"
        for alone in chat[1:3]:
            assert request_of(jsonl, {"messages": [alone]}).prompt == (alone,)

    def test_instruction_and_input(self, jsonl: Path) -> None:
        """Alpaca's fields: the input stands on the next line; an empty one or none is left out."""
        assert request_of(jsonl, {"instruction": "Sum up.", "input": "Long text"}).prompt == "Sum up.\nLong text"
        for empty in ({}, {"input": ""}, {"input": None}):
            assert request_of(jsonl, {"instruction": "Sum up.", **empty}).prompt == "Sum up."

    def test_further_fields_are_metadata(self, jsonl: Path) -> None:
        """What is neither prompt nor setting is carried along, whatever it is."""
        fields = {"id": "a", "instruction": "Go", "input": "x", "L_gt": 54, "tags": [None, {"n": 1}], "n": 3}
        assert request_of(jsonl, fields).metadata == {"L_gt": 54, "tags": [None, {"n": 1}], "n": 3}
        for null in ({}, {"instruction": None}):
            assert request_of(jsonl, {"prompt": "Go", "input": "x", **null}).metadata == {"input": "x"}

    def test_deep_metadata_is_fine_to_a_point(self, jsonl: Path) -> None:
        """100 levels, the row itself among them, however many brackets stand beside each other."""
        deep: list[Any] = []
        for _ in range(98):
            deep = [deep]
        fields = {"tree": deep, "wide": [[]] * 1000}
        assert request_of(jsonl, {"prompt": "Go", **fields}).metadata == fields

    def test_text_is_a_line_a_prompt(self, txt: Path) -> None:
        """Blank lines are no prompts and don't shift ids; JSON in a text file is text."""
        rows = rows_of(txt, 'First\n\n  \n{"prompt": "x"}\nLast')
        assert [(row.id, row.line) for row in rows] == [("1", 1), ("4", 4), ("5", 5)]
        assert [row.content.prompt for row in rows] == ["First", '{"prompt": "x"}', "Last"]  # type: ignore[union-attr]

    def test_byte_order_mark_and_carriage_returns_are_dropped(self, jsonl: Path, txt: Path) -> None:
        """Files from Windows read like others."""
        assert [row.id for row in rows_of(jsonl, b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n')] == [
            "1",
            "3",
        ]
        [row] = rows_of(txt, b"\xef\xbb\xbfHello\r\n")
        assert isinstance(row.content, Request)
        assert row.content.prompt == "Hello"

    def test_only_line_feeds_end_a_line(self, jsonl: Path, txt: Path) -> None:
        """Unicode's own line separators stand inside prompts."""
        assert request_of(jsonl, {"prompt": "a\u2028b\x0cc\x85d"}).prompt == "a\u2028b\x0cc\x85d"
        assert len(rows_of(txt, "a\u2028b\x0cc\x85d")) == 1


class TestSettings:
    """A row's own settings beat the job's."""

    def test_each_setting(self, jsonl: Path) -> None:
        """Every sampling field and the limit can be a row's own; a stop may be one text or several."""
        own = {
            "temperature": 1,
            "top_p": 0.9,
            "top_k": 40,
            "repetition_penalty": 1.1,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "seed": 7,
        }
        request = request_of(jsonl, {"prompt": "x", "max_tokens": 9, "stop": "FIN", **own})
        assert request.sampling == SamplingParams(**own, stop=("FIN",))
        assert request.max_tokens == 9
        assert request.metadata == {}
        assert request_of(jsonl, {"prompt": "x", "stop": ["a", "b"]}).sampling.stop == ("a", "b")

    def test_what_the_api_says_otherwise(self, jsonl: Path) -> None:
        """Seeds below 0 are seeds of their own; a `top_p` of 0 is the most likely token; a `top_k` of 0 or -1 is none,
        whatever the job has."""
        of = [request_of(jsonl, {"prompt": "x", "seed": seed}).sampling.seed for seed in (-1, -(2**63), -7, 7)]
        assert len(set(of)) == 4
        assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in of)
        sampling = request_of(jsonl, {"prompt": "x", "top_p": 0, "temperature": 0.7}).sampling
        assert (sampling.is_greedy, sampling.top_p) == (True, 1)
        for off in (0, -1):
            line = Line(1, json.dumps({"prompt": "x", "top_k": off}))
            content = read_row(line, "jsonl", SamplingParams(temperature=1, top_k=5)).content
            assert isinstance(content, Request)
            assert content.sampling == SamplingParams(temperature=1)

    def test_every_field_of_sampling_params_is_read(self) -> None:
        """A parameter that is added to SamplingParams must be readable from a row."""
        from lengthwise.jobs.values import SAMPLING_FIELDS

        assert set(SamplingParams.__dataclass_fields__) == SAMPLING_FIELDS

    def test_null_is_left_out(self, jsonl: Path) -> None:
        """null means the job's default, in every field."""
        fields = {"prompt": "x", "id": None, "temperature": None, "stop": None, "max_tokens": None, "tools": None}
        assert request_of(jsonl, fields).sampling == DEFAULTS

    def test_ids_may_be_numbers(self, jsonl: Path) -> None:
        """A whole number is an id, too, as text."""
        assert request_of(jsonl, {"id": 17, "prompt": "x"}).id == "17"


USER = {"role": "user", "content": "Hi"}
BAD_ROWS = {
    "no json": ("{prompt: x}", "invalid_json", "no JSON"),
    "cut json": ('{"prompt": "x', "invalid_json", "no JSON"),
    "null": ("null", "invalid_json", "null"),
    "list": ('["x"]', "invalid_json", "a list"),
    "number": ("17", "invalid_json", "a number"),
    "text": ('"x"', "invalid_json", "a text"),
    "nested too deep": ('{"prompt": ' + "[" * 100_000, "invalid_json", "no JSON"),
    "nested deeper than data": (
        '{"prompt": "x", "tree": ' + '{"a":' * 100 + "1" + "}" * 100 + "}",
        "invalid_json",
        "deeper than 100 levels",
    ),
    "number of 5,000 digits": ('{"prompt": "x", "seed": ' + "1" * 5000 + "}", "invalid_json", "no JSON"),
    "no prompt": ({"text": "x"}, "missing_prompt", "no prompt"),
    "prompt null": ({"prompt": None}, "missing_prompt", "no prompt"),
    "prompt empty": ({"prompt": " \n"}, "missing_prompt", "empty"),
    "prompt a number": ({"prompt": 5}, "invalid_request", "prompt is 5"),
    "prompt a list": ({"prompt": ["x"]}, "invalid_request", "must be a text"),
    "two prompts": ({"prompt": "x", "messages": [USER]}, "invalid_request", "prompt and messages"),
    "half a surrogate": ('{"prompt": "a\\ud800"}', "invalid_encoding", "character 2"),
    "input a list": ({"instruction": "x", "input": []}, "invalid_request", "input"),
    "messages empty": ({"messages": []}, "invalid_request", "at least one"),
    "messages a text": ({"messages": "Hi"}, "invalid_request", "list of messages"),
    "message a text": ({"messages": ["Hi"]}, "invalid_request", r"messages\[0\]"),
    "unknown role": (
        {"messages": [USER, {"role": "robot", "content": "x"}]},
        "invalid_request",
        r"\[1\]\.role is 'robot'",
    ),
    "role a list": ({"messages": [{"role": [], "content": "x"}]}, "invalid_request", "role"),
    "no role": ({"messages": [{"content": "x"}]}, "invalid_request", "role is None"),
    "no content": ({"messages": [{"role": "user"}]}, "invalid_request", "content is None"),
    "name a number": ({"messages": [{**USER, "name": 5}]}, "invalid_request", r"\[0\]\.name is 5"),
    "part without text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "invalid_request",
        "text is None",
    ),
    "contents empty": ({"messages": [{"role": "user", "content": ""}]}, "missing_prompt", "empty"),
    "part a text": ({"messages": [{"role": "user", "content": ["x"]}]}, "invalid_request", r"content\[0\] is 'x'"),
    "part without a type": (
        {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
        "invalid_request",
        "an object with a type",
    ),
    "parts empty": ({"messages": [{"role": "user", "content": []}]}, "missing_prompt", "empty"),
    "part half a surrogate": (
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\ud800"}]}]}',
        "invalid_encoding",
        r"content\[0\]\.text has half",
    ),
    "max_tokens 0": ({"prompt": "x", "max_tokens": 0}, "invalid_request", "max_tokens is 0.*1 or more"),
    "max_tokens negative": ({"prompt": "x", "max_tokens": -5}, "invalid_request", "max_tokens is -5"),
    "max_tokens true": ({"prompt": "x", "max_tokens": True}, "invalid_request", "max_tokens is True"),
    "max_tokens 2.0": ({"prompt": "x", "max_tokens": 2.0}, "invalid_request", "whole number"),
    "max_tokens text": ({"prompt": "x", "max_tokens": "9"}, "invalid_request", "whole number"),
    "temperature nan": ('{"prompt": "x", "temperature": NaN}', "invalid_request", "temperature is nan"),
    "temperature infinite": ('{"prompt": "x", "temperature": 1e999}', "invalid_request", "temperature is inf"),
    "temperature huge": ('{"prompt": "x", "temperature": 1' + "0" * 400 + "}", "invalid_request", "finite"),
    "temperature negative": ({"prompt": "x", "temperature": -1}, "invalid_request", "temperature is -1"),
    "temperature text": ({"prompt": "x", "temperature": "hot"}, "invalid_request", "a number"),
    "temperature true": ({"prompt": "x", "temperature": True}, "invalid_request", "a number"),
    "top_p negative": ({"prompt": "x", "top_p": -0.5}, "invalid_request", "top_p"),
    "top_k huge": ('{"prompt": "x", "top_k": 1' + "0" * 400 + "}", "invalid_request", "top_k is 1000.*at most"),
    "max_tokens huge": ('{"prompt": "x", "max_tokens": 1' + "0" * 400 + "}", "invalid_request", "max_tokens.*at most"),
    "top_k negative": ({"prompt": "x", "top_k": -2}, "invalid_request", "top_k"),
    "stop a number": ({"prompt": "x", "stop": 5}, "invalid_request", "stop is 5"),
    "stop of numbers": ({"prompt": "x", "stop": [5]}, "invalid_request", "stop"),
    "stop empty": ({"prompt": "x", "stop": [""]}, "invalid_request", "stop"),
    "seed too small": ({"prompt": "x", "seed": -(2**63) - 1}, "invalid_request", "seed is -9.* from -9"),
    "seed too large": ({"prompt": "x", "seed": 2**63}, "invalid_request", "seed"),
    "id a list": ({"prompt": "x", "id": []}, "invalid_request", "id is"),
    "id true": ({"prompt": "x", "id": True}, "invalid_request", "id is"),
    "id empty": ({"prompt": "x", "id": ""}, "invalid_request", "id is"),
    "other name of the limit": ({"prompt": "x", "max_new_tokens": 5}, "invalid_request", "given as max_tokens"),
    "two limits": (
        {"prompt": "x", "max_tokens": 5, "max_completion_tokens": 6},
        "invalid_request",
        "max_tokens is 5 and max_completion_tokens 6",
    ),
    "limit 0 by its new name": ({"prompt": "x", "max_completion_tokens": 0}, "invalid_request", "1 or more"),
    "too long": (b'{"prompt": "' + b"x" * MAX_LINE_BYTES + b'"}', "line_too_long", "16,777,230 bytes.*16,777,216"),
    "no utf-8": (b'{"prompt": "\xff"}', "invalid_encoding", "not UTF-8.*byte 13"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_an_error_that_names_its_line_and_stops_no_other(jsonl: Path, name: str) -> None:
    """Each bad row: a stable type, a message with the value, its line; the rows around it are read."""
    bad, kind, said = BAD_ROWS[name]
    line = bad if isinstance(bad, bytes) else (bad if isinstance(bad, str) else json.dumps(bad)).encode()
    first, row, last = rows_of(jsonl, b'{"prompt": "first"}\n' + line + b'\n{"prompt": "last"}\n')
    assert isinstance(row.content, ErrorInfo)
    assert (row.content.type, row.content.line, row.id) == (kind, 2, "2")
    assert re.search(said, row.content.message), row.content.message
    assert len(row.content.message) < 400, "one sentence, also for a long value"
    assert isinstance(first.content, Request)
    assert isinstance(last.content, Request)


def test_a_bad_row_keeps_its_id_and_metadata(jsonl: Path) -> None:
    """What can be read of a bad row stands in its answer line."""
    [row] = rows_of(jsonl, json.dumps({"id": "a", "prompt": "x", "max_tokens": 0, "topic": "tea"}))
    assert (row.id, row.metadata) == ("a", {"topic": "tea"})


class TestFieldsOfTheApi:
    """What the OpenAI API knows beside prompt and sampling goes with the request: the engine decides."""

    def test_values_that_ask_for_nothing_are_passed_over(self, jsonl: Path) -> None:
        """A field that asks for what happens anyway is neither with the request nor metadata."""
        neutral = {"n": 1, "logprobs": False, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}}
        request = request_of(jsonl, {"prompt": "x", **neutral, "logit_bias": None})
        assert (request.api_fields, request.metadata) == ({}, {})

    def test_what_changes_an_answer_goes_with_the_request(self, jsonl: Path) -> None:
        """As given, in the order of the row; 0 is not False: completions give a token's logprobs for it."""
        asked = {"n": 2, "logprobs": 0, "tools": [{"type": "function"}], "tool_choice": "none", "min_tokens": 3}
        request = request_of(jsonl, {"prompt": "x", **asked, "topic": "tea"})
        assert (request.api_fields, request.metadata) == (asked, {"topic": "tea"})
        assert list(request.api_fields) == list(asked)

    def test_both_names_of_the_limit(self, jsonl: Path) -> None:
        """max_completion_tokens is max_tokens, and both may be given if they agree."""
        request = request_of(jsonl, {"prompt": "x", "max_completion_tokens": 5})
        assert (request.max_tokens, request.api_fields, request.metadata) == (5, {}, {})
        assert request_of(jsonl, {"prompt": "x", "max_completion_tokens": 5, "max_tokens": 5}).max_tokens == 5

    def test_columns_of_data_are_metadata(self, jsonl: Path) -> None:
        """Names that data have too are no fields of the API in a row that is no call of it."""
        request = request_of(jsonl, {"prompt": "x", "verbosity": "high"})
        assert (request.api_fields, request.metadata) == ({}, {"verbosity": "high"})


class TestPromptField:
    """Another name for the prompt."""

    def rows(self, path: Path, fields: object, name: str) -> list[Row]:
        path.write_text(json.dumps(fields))
        return list(named_rows(open_source(path, prompt_field=name), DEFAULTS, name))

    def test_a_text_or_messages(self, jsonl: Path) -> None:
        """The field named is the prompt, and the usual ones are metadata."""
        fields = {"question": "Why?", "prompt": "no", "instruction": "neither", "input": "x", "n": 1}
        [row] = self.rows(jsonl, fields, "question")
        assert row.content == Request(
            "1", "Why?", DEFAULTS, metadata={"prompt": "no", "instruction": "neither", "input": "x"}
        )
        [row] = self.rows(jsonl, {"chat": [USER]}, "chat")
        assert row.content == Request("1", (USER,), DEFAULTS)

    def test_one_of_the_usual_names(self, jsonl: Path) -> None:
        """It settles which of two is the prompt; an instruction has its input."""
        assert self.rows(jsonl, {"prompt": "a", "messages": [USER]}, "prompt")[0].content == Request(
            "1", "a", DEFAULTS, metadata={"messages": [USER]}
        )
        [row] = self.rows(jsonl, {"prompt": "a", "instruction": "b", "input": "c"}, "instruction")
        assert row.content == Request("1", "b\nc", DEFAULTS, metadata={"prompt": "a"})

    def test_a_row_without_it(self, jsonl: Path) -> None:
        """Its error names the field."""
        [row] = self.rows(jsonl, {"prompt": "a"}, "question")
        assert row.content == ErrorInfo("missing_prompt", "The row has no question: nothing to answer.", 1)
        assert row.metadata == {"prompt": "a"}


class TestIds:
    """Ids all differ."""

    def test_doubled_ids_name_both_lines(self, jsonl: Path) -> None:
        """A file with the same id twice is refused as a whole; numbers and texts are the same id."""
        with pytest.raises(InputError, match="lines 2 and 3 have the same id '7'"):
            rows_of(jsonl, '{"prompt": "x"}\n{"id": "7", "prompt": "x"}\n{"id": 7, "prompt": "y"}')

    def test_a_line_number_gives_way_to_a_given_id(self, jsonl: Path) -> None:
        """A bad line has only its number; a row that was given this number as its id must not suffer."""
        rows = rows_of(jsonl, 'no json\n{"id": 1, "prompt": "x"}\n{"prompt": "y"}')
        assert [row.id for row in rows] == ["line-1", "1", "3"]
        renamed = rows_of(jsonl, '{"prompt": "x"}\n{"id": 1, "prompt": "x"}')[0]
        assert isinstance(renamed.content, Request)
        assert renamed.content.id == renamed.id == "line-1"


class TestFormat:
    """Which format a file has."""

    @pytest.mark.parametrize(
        ("name", "content", "asked", "wanted"),
        [
            ("a.jsonl", "Hello", "auto", "jsonl"),
            ("a.NDJSON", "Hello", "auto", "jsonl"),
            ("a.json", '{"prompt": "x"}', "auto", "jsonl"),
            ("a.txt", '{"prompt": "x"}', "auto", "text"),
            ("a.prompts", '\n \n {"prompt": "x"}', "auto", "jsonl"),
            ("a", "Hello {}", "auto", "text"),
            ("a.jsonl", "Hello", "text", "text"),
            ("a.txt", '{"prompt": "x"}', "jsonl", "jsonl"),
        ],
    )
    def test_by_request_suffix_or_first_character(
        self, tmp_path: Path, name: str, content: str, asked: str, wanted: str
    ) -> None:
        """As asked, else by the suffix, else an object in front means JSONL."""
        (tmp_path / name).write_text(content)
        assert open_source(tmp_path / name, asked).format == wanted  # type: ignore[arg-type]


class TestWrongAsAWhole:
    """Files that are refused before any work, in one sentence with a way out."""

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b"\xef\xbb\xbf \n\r\n", "is empty"),
            ("x".encode("utf-16"), "UTF-16; convert"),
            (b'[{"prompt": "x"}]', "one JSON array.*jq"),
        ],
    )
    def test_content(self, tmp_path: Path, content: bytes, said: str) -> None:
        """No prompt at all, another encoding, an array."""
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(InputError, match=said):
            open_source(tmp_path / "a.json")

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        """Missing, a directory, a pipe (a resumed job must read it again)."""
        os.mkfifo(tmp_path / "pipe")
        for path, said in (("nowhere", "does not exist"), (".", "is a directory"), ("pipe", "no regular file")):
            with pytest.raises(InputError, match=said):
                open_source(tmp_path / path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["id", "prompt", "messages", "instruction", "input", "max_tokens", "temperature", "stop", "seed", "n"]
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names | st.text(max_size=3), json_values, max_size=6))
def test_any_object_is_a_request_or_an_error(fields: dict[str, object]) -> None:
    """Whatever stands in a row, reading it raises nothing and gives a request or an error with its line."""
    line = Line(3, json.dumps(fields))
    row = read_row(line, "jsonl", DEFAULTS)
    assert row_id_of(line, "jsonl") == (row.id if row.is_id_given else None)
    assert isinstance(row.content, Request) or (row.content.line == 3 and row.content.message)


LONG = "x" * 1000


def lengthened(value: object) -> object:
    """The same with every text, number, list and object in it, and every name, as long as may be."""
    if isinstance(value, dict):
        return {**{name: lengthened(one) for name, one in value.items()}, f"{LONG}y": 1}
    if isinstance(value, list):
        return [*map(lengthened, value), *[0] * 1000]
    return value + LONG if isinstance(value, str) else value


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(names | st.text(max_size=3), json_values, max_size=6)
    | st.sampled_from([bad for bad, _, _ in BAD_ROWS.values() if isinstance(bad, dict)]),
    st.sets(names | st.sampled_from(["custom_id", "method", "url", "body", "tools", "stream"])),
    st.sampled_from(["jsonl", "openai-batch", "parquet"]),
)
def test_no_error_is_long(fields: dict[str, object], long: set[str], source_format: InputFormat) -> None:
    """A message shows the beginning of what is wrong, whatever is long in the row: values, names of fields, or all."""
    row = {name: lengthened(fields.get(name, name)) if name in long else fields[name] for name in {*fields, *long}}
    call = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": row}
    for one in (row, lengthened(row), call, {**call, LONG: 1, f"{LONG}y": 1, f"{LONG}z": 1}):
        line = Line(3, one if source_format == "parquet" else json.dumps(one))  # type: ignore[arg-type]
        content = read_row(line, source_format, DEFAULTS).content
        assert isinstance(content, Request) or len(content.message) < 500
