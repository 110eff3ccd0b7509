"""Files and logs of other programs become prompts with lengths. All files here have the shapes that the programs write,
checked against real ones; the log of a vLLM server is made anew, and compared, in `tests/vllm`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import InputError, UsageError
from lengthwise.learning.importing import LeftOut, LengthRow, find_format, import_lengths
from lengthwise.learning.importing.files import TextFile

LENGTHS = [
    {"id": "5", "L_gt": 160, "L_t0.7": 220, "L_t0.0": 115},
    {"id": "7", "L_gt": 540, "L_t0.7": 86, "L_t0.0": 513},
]
QUESTION = "\nHow many tokens will the answer have? One number only."


def conversation(row_id: str, prompt: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
    return {"id": row_id, "conversations": turns}


def batch_answer(custom_id: str, tokens: int, reason: str = "stop", **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": reason}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 10, "total_tokens": 10 + tokens, "completion_tokens": tokens},
    }
    response = {"status_code": 200, "request_id": "req-1", "body": {**body, **changes}}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def batch_request(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def array(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def imported(path: Path, prompts: Path | None = None, **options: Any) -> list[dict[str, Any]]:
    """The rows, all of which have lengths."""
    rows = list(import_lengths(path, prompts, **options))
    assert not [row for row in rows if isinstance(row, LeftOut)]
    return [row.to_json() for row in rows if isinstance(row, LengthRow)]


def left_out(path: Path, prompts: Path | None = None, **options: Any) -> list[tuple[str, str]]:
    rows = import_lengths(path, prompts, **options)
    return [(row.place, row.reason) for row in rows if isinstance(row, LeftOut)]


# -- the paper's repository ------------------------------------------------------------------------------------


def test_lengths_of_the_paper_keep_their_names(tmp_path: Path) -> None:
    """Each sample keeps its field; the limit, at which lengths are only bounds, stands beside them, and none is above
    it but that of the reference answer, which no model wrote."""
    found = imported(array(tmp_path / "a-length.json", LENGTHS))
    assert found == [
        {"id": "5", "L_gt": 160, "L_t0.0": 115, "L_t0.7": 220, "max_tokens": 512},
        {"id": "7", "L_gt": 540, "L_t0.0": 512, "L_t0.7": 86, "max_tokens": 512},
    ]


def test_lengths_are_joined_with_conversations(tmp_path: Path) -> None:
    """The prompt is what was said before the first answer, under the same id whatever the order."""
    prompts = array(tmp_path / "a.json", [conversation("7", "Why?", "So."), conversation("5", "Tell me.", "No.")])
    found = imported(array(tmp_path / "a-length.json", LENGTHS), prompts)
    assert [(row["id"], row["prompt"]) for row in found] == [("5", "Tell me."), ("7", "Why?")]


def test_conversations_of_several_turns(tmp_path: Path) -> None:
    """What was said after the first answer is no part of the prompt; what stands before it in several turns is."""
    turns = [("system", "Be brief."), ("human", "Why?"), ("gpt", "So."), ("human", "And then?"), ("gpt", "No.")]
    spoken = [{"from": role, "value": text} for role, text in turns]
    prompts = array(
        tmp_path / "a.json",
        [{"id": "5", "conversations": spoken}, {"id": "7", "conversations": spoken[1:]}],
    )
    first, second = imported(array(tmp_path / "a-length.json", LENGTHS), prompts)
    assert first["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert second["prompt"] == "Why?"


def test_lengths_are_joined_with_alpacas_own_rows(tmp_path: Path) -> None:
    """Alpaca's rows have no ids; the reference counts them from 1."""
    rows = [{"instruction": f"Do {i}", "input": "it" if i == 7 else "", "output": "Done."} for i in range(1, 8)]
    found = imported(array(tmp_path / "a-length.json", LENGTHS), array(tmp_path / "alpaca.json", rows))
    assert [(row["instruction"], row["input"]) for row in found] == [("Do 5", ""), ("Do 7", "it")]


def test_rows_written_twice_are_taken_once(tmp_path: Path) -> None:
    """`lenpred.py` writes the last row of each batch twice: no row is doubled, none is complained of."""
    assert len(imported(array(tmp_path / "a-length.json", [*LENGTHS, LENGTHS[1]]))) == 2


def test_two_rows_of_one_id_that_differ(tmp_path: Path) -> None:
    """Of two rows that say different things of one id the first counts, and the other is told of."""
    rows = [*LENGTHS, {**LENGTHS[0], "L_gt": 1}]
    assert left_out(array(tmp_path / "a-length.json", rows)) == [
        ("row 3", "the id '5' is that of row 1, with other values")
    ]


def test_bad_lengths_are_told_with_their_row(tmp_path: Path) -> None:
    """A length that is none, or a row without an id, costs its row only."""
    rows = [LENGTHS[0], {"id": "6", "L_gt": 0}, {"L_gt": 5}, {"id": "8", "L_gt": "9"}, {"id": "9"}, 3]
    rows.append({"id": "10", "L_t0.0": 5, "L_t0.3": None})
    told = left_out(array(tmp_path / "a-length.json", rows))
    assert [place for place, _ in told] == [f"row {number}" for number in range(2, 8)]
    assert told[0][1] == "its lengths are {'L_gt': 0}; wanted are whole numbers of tokens, 1 or more"


def test_a_prompt_that_is_missing(tmp_path: Path) -> None:
    """With a prompts file, a length without its prompt is left out: nobody could use it unawares."""
    prompts = array(tmp_path / "a.json", [conversation("5", "Why?", "So.")])
    assert left_out(array(tmp_path / "a-length.json", LENGTHS), prompts) == [
        ("row 2", "a.json has no prompt for the id '7'")
    ]


def test_labels_of_the_paper(tmp_path: Path) -> None:
    """Where the answer is the length to be learned, the question for it is no part of the prompt."""
    rows = [conversation("5", f"Tell me.{QUESTION}", "250"), conversation("7", f"Why?\nNow.{QUESTION}", "50")]
    found = imported(array(tmp_path / "a-instruct.json", rows))
    assert found == [
        {"id": "5", "prompt": "Tell me.", "length": 250},
        {"id": "7", "prompt": "Why?\nNow.", "length": 50},
    ]


def test_conversations_alone_have_no_lengths(tmp_path: Path) -> None:
    """Answers in words are not counted by guesswork; the error says which file has the lengths."""
    path = array(tmp_path / "a.json", [conversation("5", "Why?", "So.")])
    with pytest.raises(InputError, match=r"no lengths; give it as --prompts"):
        import_lengths(path)


# -- OpenAI Batch ----------------------------------------------------------------------------------------------


def test_batch_output_is_joined_with_its_requests(tmp_path: Path) -> None:
    """Messages and limit come from the request of the same custom_id; a limit that was reached makes a bound."""
    requests = lines(
        tmp_path / "in.jsonl",
        [
            batch_request("b", messages=[{"role": "user", "content": "B"}], max_completion_tokens=5),
            batch_request("a", prompt="A", max_tokens=50),
        ],
    )
    found = imported(lines(tmp_path / "out.jsonl", [batch_answer("a", 18), batch_answer("b", 5, "length")]), requests)
    assert found == [
        {"id": "a", "prompt": "A", "length": 18, "finish_reason": "stop", "max_tokens": 50, "model": "m"},
        {
            "id": "b",
            "messages": [{"role": "user", "content": "B"}],
            "length": 5,
            "finish_reason": "length",
            "max_tokens": 5,
            "model": "m",
        },
    ]


def test_batch_errors_are_told(tmp_path: Path) -> None:
    """What failed is left out with its message, wherever the server puts it."""
    refused = {"error": {"message": "too long", "code": 400}}
    rows = [
        batch_answer("a", 18),
        {"custom_id": "b", "response": None, "error": {"code": "batch_expired", "message": "expired"}},
        {"custom_id": "c", "response": {"status_code": 400, "body": refused}, "error": None},
        {"custom_id": "d", "response": {"status_code": 400, "body": None}, "error": refused},  # vLLM
        {"custom_id": "e", "response": None, "error": None},
    ]
    assert left_out(lines(tmp_path / "out.jsonl", rows)) == [
        ("line 2", "the request failed: expired"),
        ("line 3", "the request failed: too long"),
        ("line 4", "the request failed: too long"),
        ("line 5", "the request failed: no message was kept"),
    ]


def test_batch_answers_that_can_not_be_counted(tmp_path: Path) -> None:
    """Of several answers to one request only the sum is known; an answer without usage has no length."""
    two = [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}]
    path = lines(
        tmp_path / "out.jsonl",
        [batch_answer("a", 18), batch_answer("b", 18, choices=two), batch_answer("c", 18, usage=None)],
    )
    with path.open("a", encoding="utf-8") as file:
        file.write('{"custom_id": "d", "resp')
    assert left_out(path) == [
        ("line 2", "it has not one answer, and its usage counts the tokens of all"),
        ("line 3", "its usage has no completion_tokens"),
        ("line 4", "it is no JSON object with a custom_id"),
    ]


# -- our own answers -------------------------------------------------------------------------------------------


def answer(row_id: str, tokens: int, reason: str = "stop") -> dict[str, Any]:
    return {"id": row_id, "text": "x", "finish_reason": reason, "usage": {"completion_tokens": tokens}}


def test_answers_are_joined_with_their_prompts(tmp_path: Path) -> None:
    """By id; a prompt without one is known by its line, counted with blank lines, as a job counts them."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('\ufeff{"prompt": "first"}\n\n{"id": 7, "instruction": "I", "input": "J"}\n{"prompt": "four"}\n')
    found = imported(lines(tmp_path / "a.jsonl", [answer("1", 3), answer("7", 9, "length"), answer("4", 5)]), prompts)
    assert found == [
        {"id": "1", "prompt": "first", "length": 3, "finish_reason": "stop"},
        {"id": "7", "instruction": "I", "input": "J", "length": 9, "finish_reason": "length"},
        {"id": "4", "prompt": "four", "length": 5, "finish_reason": "stop"},
    ]


def test_answers_as_parquet(tmp_path: Path) -> None:
    """A job's answers as Parquet, where `usage` and `error` are columns, are imported as those of JSON lines are; so
    are prompts."""
    answers, prompts = tmp_path / "a", tmp_path / "p"
    columns = {
        "id": ["a", "b", "c"],
        "finish_reason": ["stop", "length", "error"],
        "completion_tokens": [3, 9, 0],
        "error_message": [None, None, "It broke."],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), answers)
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], "prompt": ["A?", "B?"]}), prompts)
    first, second, failed = import_lengths(answers, prompts)
    assert isinstance(first, LengthRow)
    assert first.to_json() == {"id": "a", "prompt": "A?", "length": 3, "finish_reason": "stop"}
    assert isinstance(second, LengthRow)
    assert second.to_json()["finish_reason"] == "length"
    assert failed == LeftOut("line 3", "the request failed: It broke.")


@pytest.mark.parametrize("name", ["p.txt", "p.txt.gz", "p"])
def test_prompts_as_text(tmp_path: Path, name: str) -> None:
    """A line is a prompt and its number the id, blank lines counted, as a job names them."""
    text = b"[1] First?\n\nThird?\n" if name != "p" else b"First?\n\nThird?\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    path = lines(tmp_path / "a.jsonl", [answer("1", 3), answer("3", 5)])
    assert [row["prompt"].removeprefix("[1] ") for row in imported(path, tmp_path / name)] == ["First?", "Third?"]


def test_line_numbers_give_way_to_given_ids(tmp_path: Path) -> None:
    """A row without an id is `line-2` where another row has the id 2: the names of a job."""
    prompts = lines(tmp_path / "p.jsonl", [{"id": "2", "prompt": "given"}, {"prompt": "second line"}])
    found = imported(lines(tmp_path / "a.jsonl", [answer("2", 3), answer("line-2", 4)]), prompts)
    assert [row["prompt"] for row in found] == ["given", "second line"]


def test_failed_answers_are_told(tmp_path: Path) -> None:
    """An answer that failed has no length."""
    failed = {**answer("b", 0, "error"), "error": {"type": "prompt_too_long", "message": "too long"}}
    told = left_out(lines(tmp_path / "a.jsonl", [answer("a", 3), failed, answer("c", 0)]))
    assert told == [
        ("line 2", "the request failed: too long"),
        ("line 3", "it has no usage.completion_tokens of 1 or more"),
    ]


def test_a_length_beyond_the_limit(tmp_path: Path) -> None:
    """A limit that an answer has passed was not its limit: the row is left out, not taken as cut."""
    path = lines(tmp_path / "a.jsonl", [answer("a", 3), answer("b", 9)])
    assert left_out(path, limit=8) == [("line 2", "its length of 9 tokens is beyond its limit of 8")]


# -- vllm bench serve ------------------------------------------------------------------------------------------

SIZES = [5, 40, 10, 200, 90, 30, 3, 120]


def bench_result(sizes: list[int]) -> dict[str, Any]:
    return {
        "model_id": "m",
        "total_output_tokens": 24,
        "input_lens": sizes,
        "output_lens": [*range(1, len(sizes)), 0],
        "errors": [""] * (len(sizes) - 1) + ["Traceback\nTimeoutError: too slow"],
    }


def test_benchmark_results_are_joined_by_order(tmp_path: Path) -> None:
    """Lengths go to prompts in the order of both files; what failed is told with the error's last line."""
    prompts = lines(tmp_path / "p.jsonl", [{"id": f"p{size}", "prompt": "x " * size} for size in SIZES])
    rows = list(import_lengths(lines(tmp_path / "r.json", [bench_result(SIZES)]), prompts, limit=7))
    assert rows[-1] == LeftOut("request 8", "the request failed: TimeoutError: too slow")
    assert [row.to_json()["id"] for row in rows if isinstance(row, LengthRow)] == [f"p{size}" for size in SIZES[:-1]]
    assert [row.is_cut for row in rows if isinstance(row, LengthRow)] == [False] * 6 + [True]


def test_shuffled_benchmarks_are_refused(tmp_path: Path) -> None:
    """A benchmark that shuffled its prompts would give lengths to wrong ones: their sizes tell."""
    prompts = lines(tmp_path / "p.jsonl", [{"prompt": "x " * size} for size in SIZES])
    path = lines(tmp_path / "r.json", [bench_result(sorted(SIZES))])
    with pytest.raises(InputError, match=r"correlation of -?\d\.\d\d.*--disable-shuffle"):
        list(import_lengths(path, prompts))


def test_benchmarks_without_details_are_refused(tmp_path: Path) -> None:
    """Without --save-detailed the file has sums only; the error says how to get the lengths."""
    path = lines(tmp_path / "r.json", [{"model_id": "m", "total_output_tokens": 24}])
    with pytest.raises(InputError, match="--save-detailed"):
        list(import_lengths(path))


# -- files -----------------------------------------------------------------------------------------------------


def test_formats_are_seen_by_content(tmp_path: Path) -> None:
    """No name or suffix is needed."""
    assert find_format(array(tmp_path / "a", LENGTHS)) == "reference"
    assert find_format(array(tmp_path / "b", [conversation("5", "x", "50")])) == "reference-instruct"
    assert find_format(lines(tmp_path / "c", [batch_answer("a", 1)])) == "openai-batch"
    assert find_format(lines(tmp_path / "d", [answer("a", 1)])) == "answers"
    assert find_format(lines(tmp_path / "e", [bench_result(SIZES)])) == "vllm-bench"


@pytest.mark.parametrize("content", ['{"custom_id": "a", "body": {}}', "words", "[1, 2]", '[{"prompt": "x"}]', "7"])
def test_unknown_formats_are_refused(tmp_path: Path, content: str) -> None:
    """A file of another kind is refused with all that would do."""
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"in no format .* Wanted is a \*-length.json"):
        import_lengths(path)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    """Missing, empty, cut off: one sentence that names the file."""
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "cut.json").write_text(json.dumps(LENGTHS)[:-20])
    packed = gzip.compress(json.dumps(LENGTHS * 99).encode())
    (tmp_path / "cut.gz").write_bytes(packed[:-20])
    (tmp_path / "broken.gz").write_bytes(packed[:20] + b"\xff" * 20 + packed[40:])
    said_of = {"none": "No such file", "empty": "is empty", "cut.json": "is no JSON"}
    for name, said in {**said_of, "cut.gz": "can't be read", "broken.gz": "can't be read"}.items():
        with pytest.raises(InputError, match=f"{name}.*{said}"):
            list(import_lengths(tmp_path / name))


def test_prompts_files_without_prompts_are_refused(tmp_path: Path) -> None:
    """A file given as --prompts by mistake is found out before rows are."""
    path = lines(tmp_path / "a.jsonl", [answer("a", 3)])
    with pytest.raises(InputError, match="holds no prompts"):
        import_lengths(path, path)


def test_options_are_checked(tmp_path: Path) -> None:
    """A format that there is not, or a limit below one token, is the caller's mistake."""
    path = lines(tmp_path / "a.jsonl", [answer("a", 3)])
    with pytest.raises(UsageError, match="format is 'x'"):
        import_lengths(path, format="x")
    with pytest.raises(UsageError, match="limit is 0"):
        import_lengths(path, limit=0)


def test_gzip_is_seen_by_its_content(tmp_path: Path) -> None:
    """A packed file gives the same rows as the file itself."""
    plain = lines(tmp_path / "a.jsonl", [answer("a", 3), answer("b", 4)])
    (tmp_path / "b").write_bytes(gzip.compress(plain.read_bytes()))
    assert imported(tmp_path / "b") == imported(plain)


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_are_lines_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever stands in a file, lines come out, or an InputError."""
    path = tmp_path_factory.mktemp("any") / "f"
    path.write_bytes(content)
    try:
        assert all(line for _, line in TextFile(path).lines())
    except InputError:
        assert content.startswith((b"\x1f\x8b", b"PAR1"))
