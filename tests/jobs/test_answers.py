"""Answers out: one line of JSON each, in the words of this package, of OpenAI's Batch API, or as rows of Parquet."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion as ApiCompletion
from openai.types.chat import ChatCompletion
from pyarrow import parquet
from pydantic import ValidationError

from lengthwise.errors import JobError, UsageError
from lengthwise.jobs.answers import AnswerFormat, make_format
from lengthwise.jobs.answers import parquet as parquet_answers
from lengthwise.jobs.answers.encoding import json_text
from lengthwise.jobs.outputs import check_output, publish, remove
from lengthwise.jobs.rows import Row
from lengthwise.types import Completion, ErrorInfo, PredictedTokens, Request

ANSWERS = Path("out.jsonl")
GOOD = Row(1, "a", Request("a", "Hi"), True, {"topic": "tea"})
RAW = Row(2, "b", Request("b", "Once", is_raw=True), True)
TOOLS = Row(3, "c", Request("c", "Hi", api_fields={"n": 2}), True)
BAD = Row(4, "4", ErrorInfo("invalid_json", "The line is no JSON.", 4))


def done(row: Row, text: str = "Hello", **further: Any) -> Completion:
    return Completion(row.id, text, "stop", 20, 100, 3, PredictedTokens(90.4, 120.6), **further)


def failed(row: Row, kind: str, message: str) -> Completion:
    return Completion(row.id, "", "error", error=ErrorInfo(kind, message))


def encoded(name: str, row: Row, completion: Completion) -> dict[str, Any]:
    line = make_format(name, ANSWERS, "jsonl").encode(row, completion, "small-model")  # type: ignore[arg-type]
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return dict(json.loads(line, parse_constant=lambda name: pytest.fail(name)))


class TestJson:
    """Values as JSON."""

    def test_what_no_reader_takes_is_null(self) -> None:
        """A server's answer may be nested without end, or hold what is no number: what is left of it is an answer."""
        deep: Any = 1
        for _ in range(100_000):
            deep = {"a": deep, "b": [deep] if deep == 1 else 2}
        body = {"object": "chat.completion", "deep": deep, "nan": math.nan}
        for name in ("jsonl", "openai-batch"):
            answer = encoded(name, TOOLS, done(TOOLS, response=body))
            body_back = answer["response"] if name == "jsonl" else answer["response"]["body"]
            assert (body_back["object"], body_back["nan"]) == ("chat.completion", None)
            for _ in range(100):
                body_back = body_back.get("deep") or body_back["a"]
                assert body_back["b"] == 2

    def test_what_is_nested_as_rows_may_be_is_whole(self) -> None:
        """Beside a NaN, too."""
        deep: Any = math.nan
        for _ in range(100):
            deep = [deep]
        assert json_text(deep) == "[" * 100 + "null" + "]" * 100


class TestFormat:
    """Which format answers have."""

    @pytest.mark.parametrize(
        ("asked", "answers", "input_format", "wanted"),
        [
            ("auto", "a.jsonl", "jsonl", "jsonl"),
            ("auto", "a.txt", "text", "jsonl"),
            ("auto", "a.jsonl", "parquet", "jsonl"),
            ("auto", "a.jsonl", "openai-batch", "openai-batch"),
            ("auto", "a.PARQUET", "openai-batch", "parquet"),
            ("jsonl", "a.parquet", "openai-batch", "jsonl"),
            ("openai-batch", "a.parquet", "text", "openai-batch"),
        ],
    )
    def test_as_asked_or_by_the_suffix_or_by_the_input(
        self, asked: Any, answers: str, input_format: Any, wanted: str
    ) -> None:
        """Parquet by the suffix, a batch for a batch, else JSONL; whatever is asked for beats both."""
        assert make_format(asked, Path(answers), input_format).name == wanted

    def test_what_each_writes(self) -> None:
        """Only a batch has a second file, and only lines can be appended."""
        facts = {}
        for name in ("jsonl", "openai-batch", "parquet"):
            made = make_format(name, ANSWERS, "jsonl")  # type: ignore[arg-type]
            assert [made.path_of(ANSWERS, True), made.path_of(ANSWERS, False)][1] == made.paths(ANSWERS)[-1] == ANSWERS
            facts[name] = (
                made.can_append,
                [str(path) for path in made.paths(ANSWERS)],
                str(made.path_of(ANSWERS, True)),
            )
        assert facts == {
            "jsonl": (True, ["out.jsonl"], "out.jsonl"),
            "openai-batch": (True, ["out.errors.jsonl", "out.jsonl"], "out.errors.jsonl"),
            "parquet": (False, ["out.jsonl"], "out.jsonl"),
        }


class TestJsonl:
    """The words of this package."""

    def test_an_answer(self) -> None:
        """Exactly these fields, numbers whole."""
        assert encoded("jsonl", GOOD, done(GOOD)) == {
            "id": "a",
            "text": "Hello",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 20, "completion_tokens": 100, "recomputed_tokens": 3},
            "predicted_tokens": {"p50": 90, "p90": 121},
            "metadata": {"topic": "tea"},
        }

    def test_what_is_not_known_is_null(self) -> None:
        """No prediction, or one without a bound."""
        unknown = Completion("a", "x", "length")
        assert encoded("jsonl", RAW, unknown)["predicted_tokens"] is None
        endless = Completion("a", "x", "length", predicted=PredictedTokens(5.0, float("inf")))
        assert encoded("jsonl", RAW, endless)["predicted_tokens"] == {"p50": 5, "p90": None}

    def test_an_error_has_the_line_of_its_row(self) -> None:
        """Also where the engine, which knows no lines, found it."""
        answer = encoded("jsonl", GOOD, failed(GOOD, "timeout", "It took too long."))
        assert answer["error"] == {"type": "timeout", "message": "It took too long.", "line": 1}
        assert (answer["finish_reason"], answer["text"]) == ("error", "")

    def test_a_servers_own_response(self) -> None:
        """It stands in the line where more was asked for than a text, and nowhere else."""
        body = {"choices": [{"index": 0}, {"index": 1}]}
        assert encoded("jsonl", TOOLS, done(TOOLS, response=body))["response"] == body
        assert "response" not in encoded("jsonl", GOOD, done(GOOD, response=body))

    @given(st.text(), st.text(), st.dictionaries(st.text(), st.floats() | st.text() | st.lists(st.floats())))
    def test_any_text_comes_back(self, row_id: str, text: str, metadata: dict[str, Any]) -> None:
        """Whatever stands in an answer is one line of JSON in UTF-8 that says just that; NaN is null."""
        row = Row(1, row_id, Request(row_id, "x"), True, metadata)
        answer = encoded("jsonl", row, done(row, text))
        assert (answer["id"], answer["text"]) == (row_id, text)
        kept = {name: value for name, value in metadata.items() if isinstance(value, str)}
        assert {name: answer.get("metadata", {}).get(name) for name in kept} == kept

    def test_half_a_surrogate_pair_is_an_escape(self) -> None:
        """A server may send one; UTF-8 has none, so it stays an escape of JSON, and other text stays readable, also
        beside a NaN."""
        line = make_format("jsonl", ANSWERS, "jsonl").encode(GOOD, done(GOOD, "行\ud800"), "m")
        assert "行\\ud800".encode() in line
        odd = Row(1, "a", GOOD.content, True, {"x": [float("nan"), "行"]})
        assert '"x": [null, "行"]'.encode() in make_format("jsonl", ANSWERS, "jsonl").encode(odd, done(odd), "m")
        assert json.loads(line)["text"] == "行\ud800"


class TestBatch:
    """What the openai client's types read."""

    def test_a_chat(self) -> None:
        """A chat.completion in a response of 200, with usage that adds up."""
        line = encoded("openai-batch", GOOD, done(GOOD))
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert (line["custom_id"], line["error"], line["response"]["status_code"]) == ("a", None, 200)
        body = ChatCompletion.model_validate(line["response"]["body"], strict=True)
        [choice] = body.choices
        assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello", "stop")
        assert body.usage is not None
        usage = (body.usage.prompt_tokens, body.usage.completion_tokens, body.usage.total_tokens)
        assert (body.model, usage) == ("small-model", (20, 100, 120))
        with pytest.raises(ValidationError):
            ApiCompletion.model_validate(line["response"]["body"], strict=True)

    def test_a_text_that_was_continued(self) -> None:
        """A text_completion, told when the limit ended it."""
        line = encoded("openai-batch", RAW, Completion("b", " upon", "length", 2, 5))
        body = ApiCompletion.model_validate(line["response"]["body"], strict=True)
        assert [(choice.text, choice.finish_reason, choice.index) for choice in body.choices] == [
            (" upon", "length", 0)
        ]
        assert body.usage is not None
        assert (body.object, body.usage.total_tokens) == ("text_completion", 7)
        with pytest.raises(ValidationError):
            ChatCompletion.model_validate(line["response"]["body"], strict=True)

    def test_a_servers_own_response_is_the_body(self) -> None:
        """Verbatim, whatever it holds."""
        body = {"id": "chatcmpl-9", "choices": [], "tool": {"x": [1]}}
        assert encoded("openai-batch", TOOLS, done(TOOLS, response=body))["response"]["body"] == body

    def test_ids_differ_and_are_the_same_each_time(self) -> None:
        """The same answer is the same bytes; another custom_id has other ids throughout."""
        made = make_format("openai-batch", ANSWERS, "jsonl")
        assert made.encode(GOOD, done(GOOD), "m") == made.encode(GOOD, done(GOOD), "m")
        one, other = (encoded("openai-batch", row, done(row)) for row in (GOOD, TOOLS))
        for ids in (
            (line["id"], line["response"]["request_id"], line["response"]["body"]["id"]) for line in (one, other)
        ):
            assert len({*ids}) == 3
        assert one["id"] != other["id"]

    @pytest.mark.parametrize("row", [GOOD, BAD], ids=["found by the engine", "found while reading"])
    def test_a_request_that_is_wrong(self, row: Row) -> None:
        """A response of 400 with the API's error object, which names the line."""
        line = encoded("openai-batch", row, failed(row, "unsupported_parameter", "n is 2."))
        assert (line["custom_id"], line["error"], line["response"]["status_code"]) == (row.id, None, 400)
        assert line["response"]["body"] == {
            "error": {
                "message": f"Line {row.line}: n is 2.",
                "type": "invalid_request_error",
                "param": None,
                "code": "unsupported_parameter",
            }
        }

    @pytest.mark.parametrize("kind", ["server_error", "timeout", "rate_limited", "invalid_response", "cancelled"])
    def test_a_failure_that_says_nothing_of_the_request(self, kind: str) -> None:
        """No response, and an error of the line."""
        line = encoded("openai-batch", GOOD, failed(GOOD, kind, "It broke."))
        assert (line["response"], line["error"]) == (None, {"code": kind, "message": "Line 1: It broke."})


PAIRS = [
    (GOOD, done(GOOD)),
    (RAW, Completion("b", "", "length", 2, 512)),
    (TOOLS, done(TOOLS, "行\ud800", response={"choices": [{}]})),
    (BAD, failed(BAD, "invalid_json", "The line is no JSON.")),
]


def written(folder: Path, name: str, pairs: list[tuple[Row, Completion]] = PAIRS) -> dict[str, bytes]:
    """The files that a format makes of some answers, published, under their names."""
    made = make_format(name, folder / "out.jsonl", "jsonl")  # type: ignore[arg-type]
    sink = made.open(folder / "out.jsonl")
    for row, completion in pairs:
        sink.write(made.encode(row, completion, "m"), completion.finish_reason == "error")
    files = sink.finish()
    assert not (folder / "out.jsonl").exists(), "nothing is in its place before it is published"
    publish(files, {})
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {one.path.name: one.sha256 for one in files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.items()
    }
    return found


class TestFiles:
    """Lines become files, whole or not at all."""

    def test_jsonl_has_all_lines_in_order(self, tmp_path: Path) -> None:
        """Failed ones among them."""
        [content] = written(tmp_path, "jsonl").values()
        assert [json.loads(line)["id"] for line in content.split(b"\n")[:-1]] == ["a", "b", "c", "4"]

    def test_a_batch_has_its_errors_beside_it(self, tmp_path: Path) -> None:
        """A file of its own, in order; without errors there is none."""
        files = written(tmp_path, "openai-batch")
        ids = {
            name: [json.loads(line)["custom_id"] for line in content.split(b"\n")[:-1]]
            for name, content in files.items()
        }
        assert ids == {"out.jsonl": ["a", "b", "c"], "out.errors.jsonl": ["4"]}
        (tmp_path / "good").mkdir()
        assert list(written(tmp_path / "good", "openai-batch", PAIRS[:2])) == ["out.jsonl"]
        (tmp_path / "bad").mkdir()
        assert sorted(written(tmp_path / "bad", "openai-batch", PAIRS[3:])) == ["out.errors.jsonl", "out.jsonl"]

    def test_parquet_has_a_row_a_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Flat columns with fixed types, null where there is nothing; row groups of a bounded size."""
        monkeypatch.setattr(parquet_answers, "MAX_GROUP_ROWS", 3)
        written(tmp_path, "parquet")
        read = parquet.ParquetFile(tmp_path / "out.jsonl")
        assert read.metadata.num_row_groups == 2
        text, count = pa.string(), pa.int64()
        assert {field.name: field.type for field in read.schema_arrow} == {
            **dict.fromkeys(
                ("id", "text", "finish_reason", "error_type", "error_message", "metadata", "response"), text
            ),
            **dict.fromkeys(("prompt_tokens", "completion_tokens", "recomputed_tokens", "error_line"), count),
            **dict.fromkeys(("predicted_p50", "predicted_p90"), count),
        }
        first, second, third, last = read.read().to_pylist()
        assert first == {
            "id": "a",
            "text": "Hello",
            "finish_reason": "stop",
            "prompt_tokens": 20,
            "completion_tokens": 100,
            "recomputed_tokens": 3,
            "predicted_p50": 90,
            "predicted_p90": 121,
            "error_type": None,
            "error_message": None,
            "error_line": None,
            "metadata": '{"topic": "tea"}',
            "response": None,
        }
        assert (second["finish_reason"], second["predicted_p50"], second["metadata"]) == ("length", None, None)
        assert (third["text"], json.loads(third["response"])) == ("行?", {"choices": [{}]})
        error = (last["error_type"], last["error_message"], last["error_line"], last["text"])
        assert error == ("invalid_json", "The line is no JSON.", 4, "")

    def test_parquet_without_rows_and_with_long_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A table without rows has its columns; a row group is also bounded in bytes."""
        (tmp_path / "none").mkdir()
        written(tmp_path / "none", "parquet", [])
        assert parquet.read_table(tmp_path / "none" / "out.jsonl").shape == (0, 13)
        monkeypatch.setattr(parquet_answers, "MAX_GROUP_BYTES", 1000)
        (tmp_path / "long").mkdir()
        written(tmp_path / "long", "parquet", [(GOOD, done(GOOD, "x" * 600))] * 5)
        groups = parquet.ParquetFile(tmp_path / "long" / "out.jsonl").metadata
        assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [2, 2, 1]

    @pytest.mark.parametrize("name", ["jsonl", "openai-batch", "parquet"])
    def test_the_same_lines_are_the_same_bytes(self, tmp_path: Path, name: str) -> None:
        """So that a job that was killed after publishing finds its own files."""
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
        assert written(tmp_path / "one", name) == written(tmp_path / "two", name)
        (tmp_path / "one" / "out.jsonl").rename(tmp_path / "kept")
        again = written(tmp_path / "one", name)
        assert (tmp_path / "kept").read_bytes() == again["out.jsonl"]

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("name", ["jsonl", "openai-batch", "parquet"])
    def test_aborting_leaves_nothing(self, tmp_path: Path, name: str) -> None:
        """Also twice, and after finishing; and what is collected later does not complain."""
        made = make_format(name, tmp_path / "out.jsonl", "jsonl")  # type: ignore[arg-type]
        for is_finished in (False, True):
            sink = made.open(tmp_path / "out.jsonl")
            for row, completion in PAIRS:
                sink.write(made.encode(row, completion, "m"), completion.finish_reason == "error")
            if is_finished:
                sink.finish()
            sink.abort()
            sink.abort()
            del sink
            gc.collect()
            assert list(tmp_path.iterdir()) == []


WRITER = """
import os, resource, signal, sys
from pathlib import Path
from lengthwise.errors import JobError
from lengthwise.jobs.answers import make_format
from lengthwise.jobs.rows import Row
from lengthwise.types import Completion, Request
import pyarrow.parquet

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
answers = Path(sys.argv[2])
made = make_format(sys.argv[1], answers, "jsonl")
try:
    sink = made.open(answers)
    for i in range(int(sys.argv[3])):
        row = Row(i, str(i), Request(str(i), "x"))
        sink.write(made.encode(row, Completion(str(i), os.urandom(500).hex(), "stop"), "m"), i % 2 == 1)
    sink.finish()
except JobError as error:
    print(error)
"""


class TestFullDisk:
    """A disk that takes no more (a real limit, in a process of its own)."""

    @pytest.mark.parametrize("num_rows", [300, 3000], ids=["noticed at the end", "noticed on the way"])
    @pytest.mark.parametrize("name", ["jsonl", "openai-batch", "parquet"])
    def test_is_one_sentence_and_leaves_nothing(self, tmp_path: Path, name: str, num_rows: int) -> None:
        """The way out is told, stderr is quiet, and what was begun is gone."""
        path = tmp_path / "out.jsonl"
        arguments = [
            sys.executable,
            "-c",
            WRITER,
            name,
            str(path),
            str(num_rows * (2 if name == "openai-batch" else 1)),
        ]
        ended = subprocess.run(arguments, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "can't be written (File too large). All answers are safe in the journal; make room" in ended.stdout
        assert list(tmp_path.iterdir()) == []


class TestPublishing:
    """Files go into their places in one step each, and nothing foreign is written over."""

    def finished(self, folder: Path) -> Any:
        made = make_format("openai-batch", folder / "out.jsonl", "jsonl")
        sink = made.open(folder / "out.jsonl")
        sink.write(b"good\n", False)
        sink.write(b"bad\n", True)
        return sink.finish()

    @pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl"])
    def test_a_foreign_file_in_either_place(self, tmp_path: Path, name: str) -> None:
        """Neither file is put into its place, the foreign one stays, nothing temporary is left."""
        files = self.finished(tmp_path)
        (tmp_path / name).write_text("mine")
        with pytest.raises(JobError, match=f"{name} exists and was not made by this job"):
            publish(files, {})
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}

    def test_former_answers_of_the_same_job_are_replaced(self, tmp_path: Path) -> None:
        """By their digests, each under its own name."""
        (tmp_path / "out.jsonl").write_bytes(b"before")
        known = {"out.jsonl": hashlib.sha256(b"before").hexdigest()}
        publish(self.finished(tmp_path), known)
        assert (tmp_path / "out.jsonl").read_bytes() == b"good\n"
        (tmp_path / "out.errors.jsonl").write_bytes(b"before")
        with pytest.raises(JobError, match="was not made by this job"):
            publish(self.finished(tmp_path), known)

    def test_errors_come_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever waits for the answers finds the errors there, too; publishing once more finds its own file."""
        order = []
        replace = os.replace
        monkeypatch.setattr(os, "replace", lambda old, new: (order.append(new.name), replace(old, new)))
        publish(self.finished(tmp_path), {})
        assert order == ["out.errors.jsonl", "out.jsonl"]
        publish(self.finished(tmp_path), {})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.errors.jsonl", "out.jsonl"]

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        """An error with a way out, not a crash."""
        (tmp_path / "f").mkdir()
        files = self.finished(tmp_path / "f")
        for one in files:
            one.temporary.unlink()
        with pytest.raises(JobError, match="can't be written"):
            publish(files, {})
        made: AnswerFormat = make_format("jsonl", ANSWERS, "jsonl")
        with pytest.raises(JobError, match="can't be written"):
            made.open(tmp_path / "nowhere" / "out.jsonl")

    def test_removing(self, tmp_path: Path) -> None:
        """What is not there need not be removed; what can't be is said."""
        (tmp_path / "a").write_text("x")
        remove([tmp_path / "a", tmp_path / "b"])
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "folder").mkdir()
        with pytest.raises(JobError, match="folder can't be removed"):
            remove([tmp_path / "folder"])


def test_where_answers_can_not_go(tmp_path: Path) -> None:
    """Checked before any work, for each file: a folder, a missing folder, a name that leaves no room for that of the
    file it is written to first, one that says what the file won't be, the prompts themselves."""
    prompts, journal = tmp_path / "p.jsonl", tmp_path / "out.jsonl.journal"
    prompts.write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(prompts)
    good = tmp_path / "out.jsonl"
    check_output(prompts, [good], journal)
    check_output(Path("-"), [good], journal)
    check_output(prompts, [tmp_path / ("a" * 239)], journal)
    for bad, said in (
        (tmp_path / "folder", "no regular file"),
        (tmp_path / "nowhere" / "out", "does not exist"),
        (tmp_path / ("a" * 240), "name too long.*another -o"),
        (tmp_path / "out.jsonl.gz", "named like a compressed file.*use -o .*/out.jsonl, and compress it when it is"),
        (tmp_path / "out.parquet.ZST", "named like a compressed file"),
        (prompts, "written over the prompts"),
        (tmp_path / "link", "written over the prompts"),
    ):
        with pytest.raises(UsageError, match=said):
            check_output(prompts, [bad, good], journal)
    with pytest.raises(UsageError, match="written over the prompts"):
        check_output(prompts, [good], prompts)
