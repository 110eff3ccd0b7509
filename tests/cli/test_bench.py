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


def last_line(output: str):
    return json.loads(output.strip().splitlines()[-1])


def test_throughput_ends_with_one_json_line(prompts, tiny_llama_dir, monkeypatch):
    """All contenders, the promised ratios, the budget, and the share of identical answers stand in one line."""
    monkeypatch.delenv("LENGTHWISE_VLLM_PYTHON", raising=False)
    options = ("--model", tiny_llama_dir, "--max-tokens", 12, "--batch-size", 4, "--limit", 6, "--quick", "--json")
    done = run("throughput", prompts, *options, "--predictor", "constant:5", "--predictor", "none")
    assert done.exit_code == 0, done.output
    line = last_line(done.stdout)
    peers = ["arrival16", "pipeline16", "no_end16", "continuous", "continuous_tuned"]
    ours = ["reference", "paper", "ours_arrival", "worst_case", "slots16", "default", "default:none", "oracle"]
    assert list(line["requests_per_s"]) == [*peers, *ours]
    assert [name for name, ratio in line["ratios"].items() if ratio is None] == ["default_vs_vllm_cpu"]
    assert set(line["identical_to_first"].values()) == {1.0}
    assert line["budget"]["kv_tokens"] == 16 * line["budget"]["request_tokens"]
    assert all(one["num_errors"] == 0 for samples in line["samples"].values() for one in samples)


def test_recorded_lengths_are_run_to_the_token(tiny_llama_dir, tmp_path):
    """Every contender runs as many tokens as the file records, and a predictor learns from another file."""
    data = tmp_path / "lengths.jsonl"
    rows = [{"prompt": f"write number {i}", "length": 1 + i % 9} for i in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--model", tiny_llama_dir, "--max-tokens", 12, "--batch-size", 4, "--rounds", 2, "--json")
    recorded = ("--lengths", "recorded", "--train", data, "--limit", 6, "--kv-tokens", 80)
    names = "arrival16,default,default:constant,oracle"
    done = run("throughput", data, *options, *recorded, "--contenders", names)
    assert done.exit_code == 0, done.output
    line = last_line(done.stdout)
    assert line["workload"]["lengths"] == "recorded"
    wanted = sum(1 + i % 9 for i in range(6))
    assert {one["useful_tokens"] for runs in line["samples"].values() for one in runs} == {wanted}
    assert all(len(runs) == 2 for runs in line["samples"].values())
    assert list(line["samples"]) == names.split(",")


def test_recorded_mode_refuses_prompts_without_lengths(prompts, tiny_llama_dir):
    """The message names the line."""
    done = run("throughput", prompts, "--model", tiny_llama_dir, "--lengths", "recorded")
    assert done.exit_code != 0
    assert "line 1: it has no length" in str(done.exception)


def test_a_budget_smaller_than_one_request_is_refused(prompts, tiny_llama_dir):
    """With both numbers, before anything runs."""
    done = run(
        "throughput", prompts, "--model", tiny_llama_dir, "--max-tokens", 12, "--batch-size", 4, "--kv-tokens", 15
    )
    assert done.exit_code != 0
    assert "15 key/value tokens" in str(done.exception)
    assert "--kv-tokens" in str(done.exception)


def test_the_table_is_readable_where_there_is_no_terminal(prompts, tiny_llama_dir):
    """A contender stands in one line, however narrow a terminal would be taken for granted."""
    options = ("--model", tiny_llama_dir, "--max-tokens", 4, "--batch-size", 4, "--rounds", 1)
    done = run("throughput", prompts, *options, "--contenders", "arrival16,default")
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
    done = run(
        "throughput",
        prompts,
        "--model",
        tiny_llama_dir,
        "--max-tokens",
        12,
        "--batch-size",
        4,
        "--contenders",
        "default,best",
    )
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
