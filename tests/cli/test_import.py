"""`lengthwise import`: files of other programs become prompts with lengths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lengthwise.cli import main


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Eleven answers, the last two of which can't be counted."""
    path = tmp_path / "answers.jsonl"
    rows = [
        {"id": f"r{i}", "text": "", "finish_reason": "stop", "usage": {"completion_tokens": max(0, 9 - i)}}
        for i in range(11)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_written_and_the_rest_is_told(tmp_path, answers, capsys) -> None:
    """Good rows are written, bad ones named with their lines, and the exit code says that there were some."""
    out = tmp_path / "lengths.jsonl"
    assert main(["import", str(answers), "-o", str(out), "--json"]) == 1
    assert [row["length"] for row in rows_of(out)] == list(range(9, 0, -1))
    said = capsys.readouterr()
    assert "line 10: it has no usage.completion_tokens of 1 or more; left out." in said.err
    assert "9 rows with lengths (answers), 2 left out. 9 have no prompt" in said.err.replace("\n", " ")
    assert json.loads(said.out) == {
        "output": str(out),
        "format": "answers",
        "rows": 9,
        "left_out": 2,
        "without_prompt": 9,
    }


def test_a_clean_file_is_code_0(tmp_path, answers, capsys) -> None:
    """Nothing left out: exit code 0, and with --quiet not a word."""
    answers.write_text("".join(f"{line}\n" for line in answers.read_text().splitlines()[:9]))
    assert main(["import", str(answers), "-o", str(tmp_path / "o.jsonl"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_result_is_an_oracle_and_a_prompts_file(tmp_path, capsys) -> None:
    """What was imported can be given to `predict` as prompts and as the oracle for them."""
    answer = {"id": "a", "text": "", "finish_reason": "stop", "usage": {"completion_tokens": 7}}
    (tmp_path / "answers.jsonl").write_text(json.dumps(answer))
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "prompt": "Why?"}')
    out = str(tmp_path / "lengths.jsonl")
    arguments = ["import", str(tmp_path / "answers.jsonl"), "--prompts", str(tmp_path / "prompts.jsonl"), "-o", out]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(["predict", out, "--predictor", f"oracle:{out}"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "a", "p50": 7, "p90": 7, "mean": 7}


def test_nothing_is_written_over(tmp_path, answers, capsys) -> None:
    """An existing file stays unless --overwrite is given, and a file that is read always."""
    out = tmp_path / "lengths.jsonl"
    out.write_text("mine")
    assert main(["import", str(answers), "-o", str(out)]) == 2
    assert main(["import", str(answers), "-o", str(answers), "--overwrite"]) == 2
    assert out.read_text() == "mine"
    assert main(["import", str(answers), "-o", str(out), "--overwrite"]) == 1
    assert len(rows_of(out)) == 9
    assert "is not written over" in capsys.readouterr().err


def test_no_lengths_no_file(tmp_path, answers, capsys) -> None:
    """Where nothing could be imported, the first reason is said and no file is left behind."""
    answers.write_text(answers.read_text().splitlines()[-1])
    assert main(["import", str(answers), "-o", str(tmp_path / "o.jsonl")]) == 2
    assert "holds no length that could be imported (1 rows). line 1: it has no usage" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl"]


def test_many_bad_rows_are_counted(tmp_path, answers, capsys) -> None:
    """Beyond ten, rows are counted, not told."""
    bad = answers.read_text().splitlines()[-1]
    answers.write_text("\n".join([answers.read_text().splitlines()[0], *[bad] * 50]))
    assert main(["import", str(answers), "-o", str(tmp_path / "o.jsonl")]) == 1
    said = capsys.readouterr().err
    assert said.count("left out.") == 11
    assert "50 left out." in said


def test_a_folder_that_is_not_there(tmp_path, answers, capsys) -> None:
    """An output that can't be written is said in one sentence."""
    assert main(["import", str(answers), "-o", str(tmp_path / "none" / "o.jsonl")]) == 2
    assert "can't be written (No such file or directory)" in capsys.readouterr().err


def test_answers_without_prompts_teach_nothing_and_say_so(tmp_path, answers, capsys) -> None:
    """The import says what is lacking and how it is added; training on the file points there too."""
    out = tmp_path / "lengths.jsonl"
    main(["import", str(answers), "-o", str(out)])
    assert "9 have no prompt, so nothing can be learned from them: name the file" in capsys.readouterr().err
    assert main(["train", "constant", str(out), "-o", str(tmp_path / "p")]) != 0
    said = capsys.readouterr().err
    assert "line 1: it has none of prompt, messages, instruction" in said
    assert "lengthwise import FILE --prompts PROMPTS" in said
