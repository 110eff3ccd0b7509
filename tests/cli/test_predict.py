"""`lengthwise predict`: lengths without answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lengthwise.cli import main
from lengthwise.cli.predict import predicted_lengths
from lengthwise.jobs import Row
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.types import Request


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_a_row_in_order(prompts, capsys) -> None:
    """Where stdout is no terminal: JSONL with id, p50, p90 and mean, and nothing else."""
    assert main(["predict", str(prompts), "--predictor", "constant:80"]) == 0
    found = lines(capsys.readouterr().out)
    assert [row["id"] for row in found] == [f"r{i}" for i in range(30)]
    assert found[0] == {"id": "r0", "p50": 80, "p90": 80, "mean": 80}


def test_lengths_stay_within_limits(tmp_path, capsys) -> None:
    """A row's own limit, else the job's, bounds what is expected."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x", "max_tokens": 10}\n{"prompt": "x"}')
    assert main(["predict", str(path), "--predictor", "constant:80", "--max-tokens", "60"]) == 0
    assert [row["p90"] for row in lines(capsys.readouterr().out)] == [10, 60]


def test_nothing_known_is_null(prompts, capsys) -> None:
    """A length that nobody knows is null, not the limit."""
    assert main(["predict", str(prompts), "--predictor", "none"]) == 0
    assert lines(capsys.readouterr().out)[0] == {"id": "r0", "p50": None, "p90": None, "mean": None}


def test_bad_rows_are_errors_and_code_1(prompts, capsys) -> None:
    """A row that is no request has its error, the others their lengths."""
    prompts.write_text('{"prompt": "x"}\nno json\n{"prompt": "y"}')
    assert main(["predict", str(prompts), "--predictor", "constant:80"]) == 1
    found = lines(capsys.readouterr().out)
    assert [list(row) for row in found] == [["id", "p50", "p90", "mean"], ["id", "error"], ["id", "p50", "p90", "mean"]]
    assert (found[1]["error"]["type"], found[1]["error"]["line"]) == ("invalid_json", 2)


def test_from_standard_input(tmp_path, monkeypatch, capsys) -> None:
    """`-` reads what is fed to the process, of whatever format."""
    (tmp_path / "fed").write_text("First\n\nSecond\n")
    with (tmp_path / "fed").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert main(["predict", "-", "--predictor", "constant:80"]) == 0
    assert [row["id"] for row in lines(capsys.readouterr().out)] == ["1", "3"]


def test_another_name_for_the_prompt(tmp_path, capsys) -> None:
    """--prompt-field, as for `run`."""
    (tmp_path / "p.jsonl").write_text('{"question": "Why?"}')
    assert main(["predict", str(tmp_path / "p.jsonl"), "--predictor", "constant:80", "--prompt-field", "question"]) == 0
    assert lines(capsys.readouterr().out)[0]["p50"] == 80


def test_to_a_file(prompts, capsys) -> None:
    """With -o the lines go to a file; an existing one is written over only when asked."""
    output = prompts.with_name("lengths.jsonl")
    arguments = ["predict", str(prompts), "--predictor", "constant:80", "-o", str(output)]
    assert main(arguments) == 0
    assert len(lines(output.read_text())) == 30
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0
    assert capsys.readouterr().out == ""


def test_a_former_run_is_an_oracle(replayed, prompts, capsys) -> None:
    """The answers file of a run gives the true lengths for the next."""
    answers = prompts.with_name("answers.jsonl")
    assert replayed("run", prompts, "-o", answers) == 0
    assert main(["predict", str(prompts), "--predictor", f"oracle:{answers}"]) == 0
    wanted = [json.loads(line)["usage"]["completion_tokens"] for line in answers.read_text().splitlines()]
    assert [row["p50"] for row in lines(capsys.readouterr().out)] == wanted


def test_a_million_rows_come_in_chunks() -> None:
    """Rows are estimated a chunk at a time: reading the first asks for no more than a chunk."""
    taken = 0

    def rows():
        nonlocal taken
        for taken in range(1_000_000):
            yield Row(taken + 1, str(taken), Request(str(taken), "x"))

    next(predicted_lengths(rows(), ConstantPredictor.of_length(80), 512))
    assert taken < 5000


def test_a_predictor_of_another_model_is_refused(prompts, tiny_llama_dir, tmp_path, capsys) -> None:
    """Lengths learned from one model say nothing of another: with --model that is an error."""
    folder: Path = tmp_path / "predictor"
    ConstantPredictor.fit([5, 6, 7], model="other").save(folder)
    assert main(["predict", str(prompts), "--predictor", str(folder), "--model", str(tiny_llama_dir)]) == 2
    assert "learned from other" in capsys.readouterr().err
    assert main(["predict", str(prompts), "--predictor", str(folder)]) == 0


def test_an_oracle_of_cut_answers_says_the_limit(prompts, tmp_path, capsys) -> None:
    """An answer known to be longer than its limit ends there."""
    known = tmp_path / "known.jsonl"
    known.write_text('{"id": "r0", "length": 600, "finish_reason": "length"}\n{"id": "r1", "length": 40}')
    arguments = ["predict", str(prompts), "--predictor", f"oracle:{known}", "--max-tokens", "50"]
    assert main(arguments) == 0
    found = lines(capsys.readouterr().out)
    assert found[0] == {"id": "r0", "p50": 50, "p90": 50, "mean": 50}
    assert found[1]["p50"] == 40
    assert found[2]["p50"] is None


def test_a_limit_that_no_number_holds_is_an_error_of_its_row(prompts, capsys) -> None:
    """It ends neither the others nor the command; as an option it is one sentence."""
    prompts.write_text('{"prompt": "x", "max_tokens": 1' + "0" * 400 + '}\n{"prompt": "y"}')
    assert main(["predict", str(prompts), "--predictor", "constant:80"]) == 1
    assert ["error" in row for row in lines(capsys.readouterr().out)] == [True, False]
    assert main(["predict", str(prompts), "--predictor", "constant:80", "--max-tokens", "1" + "0" * 400]) == 2


def test_a_model_s_identity_needs_no_weights_in_memory(prompts, tiny_llama_dir, monkeypatch) -> None:
    """The files say which model it is."""
    monkeypatch.setattr("lengthwise.engines.transformers.loading._load_weights", lambda *options: 1 / 0)
    assert main(["predict", str(prompts), "--predictor", "constant:80", "--model", str(tiny_llama_dir)]) == 0


@pytest.mark.parametrize(("redirect", "said"), [("> /dev/full", "No space left"), (">&-", "stdout is closed")])
def test_lengths_that_can_not_be_printed(prompts, redirect, said) -> None:
    """A full disk or a closed stdout is one sentence and code 2, also as the process ends."""
    command = f"{sys.executable} -m lengthwise.cli predict {prompts} --predictor none {redirect}"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
