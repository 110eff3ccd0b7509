"""`kill -9` at any moment, then the same command again: every id exactly once, in order, the same answers.

The short form replays recorded lengths at a pace, in processes that load no model. The campaign (`make kills`) runs
the command itself on a real model.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lengthwise.bundled import MODEL_DIR

NUM_ROWS = 300

# A job without a model: lengths from the ids, about 3 s at this pace.
REPLAY = """
import sys
from pathlib import Path
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.jobs import Job, JobOptions
from lengthwise.pipeline import Pipeline
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.testing import NoisyOracle
from lengthwise.types import Capabilities

lengths = {f"r{i}": 1 + i * 37 % 60 for i in range(int(sys.argv[3]))}
engine = ReplayEngine(lengths, ReplayConfig(Capabilities(max_running=8), step_fixed_s=0.0012, is_paced=True))
pipeline = Pipeline(engine=engine, predictor=NoisyOracle(lengths, 0.5), scheduler=ArrivalScheduler(8))
with Job.open(JobOptions(Path(sys.argv[1]), Path(sys.argv[2]))) as job, pipeline:
    job.run(pipeline)
"""


def write_prompts(path: Path, num: int) -> None:
    """Prompts with ids, one bad row among them."""
    rows = [json.dumps({"id": f"r{i}", "prompt": f"Tell me about number {i}."}) for i in range(num)]
    path.write_text("\n".join([*rows[:7], "no json", *rows[7:]]))


def replay_command(prompts: Path, answers: Path) -> list[str]:
    return [sys.executable, "-c", REPLAY, str(prompts), str(answers), str(NUM_ROWS)]


def num_finished(answers: Path) -> int:
    """Whole records in the journal, by counting lines: how far the job has come."""
    journal = answers.with_name(answers.name + ".journal")
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def kill_at(command: Sequence[str], answers: Path, target: int, delay_s: float) -> bool:
    """Start the command, let it come to `target` finished requests, and kill it `delay_s` later; False if it ended
    by itself before."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and num_finished(answers) < target and not answers.exists():
            time.sleep(0.002)
        time.sleep(delay_s)
        has_ended = process.poll() is not None
        process.kill()
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert not has_ended or process.returncode in (0, 1), said
    return not has_ended


def kill_often(command: Sequence[str], answers: Path, num_kills: int, num_rows: int, seed: int) -> int:
    """Kill a job at moments spread over its whole course, then let it end; gives the number of kills.

    Targets are drawn from 0 (before anything is finished) to the number of rows (while the answers are written).
    """
    rng = random.Random(seed)
    killed = 0
    for target in sorted(rng.randint(0, num_rows) for _ in range(num_kills)):
        killed += kill_at(command, answers, max(target, num_finished(answers)), rng.uniform(0, 0.05))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return killed


def read(answers: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers.read_text().splitlines()]


def wanted_ids(num: int) -> list[str]:
    return [*(f"r{i}" for i in range(7)), "8", *(f"r{i}" for i in range(7, num))]


def test_every_id_once_after_five_kills(tmp_path: Path) -> None:
    """Killed over and over, a job ends with the answers of one that was never killed, byte for byte."""
    prompts, whole, killed = tmp_path / "p.jsonl", tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    write_prompts(prompts, NUM_ROWS)
    assert kill_often(replay_command(prompts, killed), killed, 5, NUM_ROWS, seed=0) >= 4
    subprocess.run(replay_command(prompts, whole), check=True)
    assert [row["id"] for row in read(killed)] == wanted_ids(NUM_ROWS)
    assert killed.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("killed*")) == ["killed.jsonl", "killed.jsonl.journal"]


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(4))
def test_campaign_on_replayed_answers(tmp_path: Path, seed: int) -> None:
    """A hundred kills of jobs without a model."""
    prompts, whole, killed = tmp_path / "p.jsonl", tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    write_prompts(prompts, NUM_ROWS)
    num = kill_often(replay_command(prompts, killed), killed, 25, NUM_ROWS, seed)
    subprocess.run(replay_command(prompts, whole), check=True)
    assert num >= 20
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.campaign
def test_campaign_on_a_real_model(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """The command itself, killed 22 times on the bundled model (a tiny random one where it is missing): every id
    once, in order, and greedy answers equal to those of a run that was never killed."""
    model = MODEL_DIR if (MODEL_DIR / "config.json").exists() else tiny_llama_dir
    prompts, whole, killed = tmp_path / "p.jsonl", tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    num_rows = 400
    write_prompts(prompts, num_rows)

    def command(answers: Path) -> list[str]:
        start = [sys.executable, "-m", "lengthwise.cli", "run", str(prompts), "-o", str(answers)]
        return [*start, "--model", str(model), "--max-tokens", "120", "--device", "cpu", "--batch-size", "8"]

    num = kill_often(command(killed), killed, 24, num_rows, seed=7)
    subprocess.run(command(whole), check=False, stderr=subprocess.DEVNULL)
    print(f"{num} kills on {model}")
    assert num >= 20
    assert [row["id"] for row in read(killed)] == wanted_ids(num_rows)
    assert [(row["id"], row["text"]) for row in read(killed)] == [(row["id"], row["text"]) for row in read(whole)]
