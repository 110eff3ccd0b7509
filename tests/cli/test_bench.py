"""`lengthwise bench`: figures for people, one JSON line for programs, and an exit code that means something."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from lengthwise.cli.app import app


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"write number {i}"}) + "\n" for i in range(12)))
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_throughput_ends_with_one_json_line(prompts, tiny_llama_dir):
    """All contenders, their ratios, and the share of identical answers stand in one line on stdout."""
    options = ("--model", tiny_llama_dir, "--max-tokens", 12, "--batch-size", 4, "--rounds", 2, "--json")
    done = run("throughput", prompts, *options)
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout.strip().splitlines()[-1])
    names = ["generate", "arrival", "paper", "grouped", "refill_arrival", "default", "oracle"]
    assert list(line["requests_per_s"]) == names
    assert set(line["ratios"]) >= {"default_vs_generate", "default_vs_same_engine_arrival", "default_vs_oracle"}
    assert set(line["identical_to_first"].values()) == {1.0}
    assert all(len(samples) == 2 for samples in line["samples"].values())


def test_the_table_is_readable_where_there_is_no_terminal(prompts, tiny_llama_dir):
    """A contender stands in one line, however narrow a terminal would be taken for granted."""
    options = ("--model", tiny_llama_dir, "--max-tokens", 4, "--batch-size", 4, "--rounds", 1)
    done = run("throughput", prompts, *options, "--contenders", "generate,default")
    assert any("model.generate, batches of 16, arrival order" in line for line in done.stdout.splitlines())


def test_rows_with_settings_of_their_own_are_answered_alike(prompts, tiny_llama_dir):
    """Contenders are compared at the same work: greedy, up to the common limit, whatever rows ask for; a prompt without
    room for it is left out, aloud."""
    rows = [{"prompt": "one", "max_tokens": 1}, {"prompt": "two", "temperature": 1.5, "stop": "a"}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "three " * 400}, {"no": "prompt"}]))
    options = ("--model", tiny_llama_dir, "--max-tokens", 12, "--batch-size", 4, "--json")
    done = run("identity", prompts, *options)
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert (line["requests"], line["different"]) == (2, 0)
    assert "1 rows" in done.stderr
    assert "1 prompts leave no room" in done.stderr


def test_an_unknown_contender_is_named(prompts, tiny_llama_dir):
    """The message has the wrong name and the right ones."""
    done = run("throughput", prompts, "--model", tiny_llama_dir, "--batch-size", 4, "--contenders", "arrival,best")
    assert done.exit_code != 0
    assert "'best'" in str(done.exception)
    assert "oracle" in str(done.exception)


def test_identity_says_that_all_answers_are_the_same(prompts, tiny_llama_dir):
    """Exit code 0 and the counts, for a model whose answers do not change."""
    options = ("--model", tiny_llama_dir, "--max-tokens", 12, "--batch-size", 4, "--json")
    done = run("identity", prompts, *options)
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert (line["requests"], line["same"] + line["ties"], line["different"]) == (12, 12, 0)
