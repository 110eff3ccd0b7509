"""What `train remaining` makes, `score` shows: a table more where the data has texts."""

from __future__ import annotations

import json

import pytest

from lengthwise.cli import main


@pytest.fixture
def lists(tmp_path):
    """Answers that are lists of 3 to 12 items of 10 words each: prompt, length and text."""
    path = tmp_path / "lists.jsonl"
    rows = []
    for number in range(260):
        lines = [f"{item}. " + "word " * 9 for item in range(1, 4 + number % 10)]
        prompt = f"List {3 + number % 10} uses of thing {number}."
        rows.append({"prompt": prompt, "length": 10 * len(lines) + 1, "text": "\n".join(lines)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_score_shows_what_remains(lists, tmp_path, capsys) -> None:
    """By the number of tokens written, beside what `given` says; in JSON as `remaining`. Without texts neither."""
    settings = tmp_path / "small.toml"
    settings.write_text('[remaining]\nbase = "constant"\nnum_trees = 20\nnum_looks = 2\n')
    folder = str(tmp_path / "predictor")
    assert main(["train", "remaining", str(lists), "-o", folder, "--settings", str(settings)]) == 0
    capsys.readouterr()
    assert main(["score", folder, str(lists), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["remaining"]
    assert [(row["num_tokens"], row["num_answers"]) for row in found] == [(16, 260), (64, 156)]
    assert found[0]["mae"] < found[0]["mae_given"]
    assert main(["score", folder, str(lists)]) == 0
    shown = capsys.readouterr().out
    assert "| tokens written |" in shown
    assert f"| 64 | 156 | {found[1]['mae']:.1f} |" in shown
    bare = tmp_path / "bare.jsonl"
    rows = [json.loads(line) for line in lists.read_text().splitlines()]
    bare.write_text("".join(json.dumps({**row, "text": None}) + "\n" for row in rows))
    assert main(["score", folder, str(bare), "--json"]) == 0
    assert "remaining" not in json.loads(capsys.readouterr().out)
