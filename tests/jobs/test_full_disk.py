"""Disks that are full, files that may not grow, folders that can't be written: a clear error, and nothing is lost.

The disks are real: a small file system in memory (only root may mount one), and the system's limit of a file's size.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = """
import sys
from lengthwise.cli import main, run
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities

def open_pipeline(settings):
    engine = ReplayEngine({f"r{i}": 1 + i * 7 % 50 for i in range(1000)}, ReplayConfig(Capabilities(max_running=4)))
    return Pipeline(engine=engine, predictor="none", window=settings.job.window)

run.open_pipeline = open_pipeline
sys.exit(main(sys.argv[1:]))
"""
NUM_ROWS = 300  # a journal of 69 kB, answers of 50 kB

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"r{i}", "prompt": "Hi."}) for i in range(NUM_ROWS)))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(mount(folder, "size=64k"), capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk, where that is allowed at all")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(folder: Path, options: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]


def run(prompts: Path, answers: Path, *options: str, max_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command, in a process whose files can't grow beyond `max_bytes`."""

    def limit() -> None:
        if max_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

    command = [sys.executable, "-c", SCRIPT, "run", str(prompts), "-o", str(answers), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)


def check_completed(done: subprocess.CompletedProcess[str], answers: Path, least_resumed: int) -> None:
    """The command came to its end, went on from what was there, and every row has its answer once."""
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] >= least_resumed
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert sorted(int(row["id"][1:]) for row in rows) == list(range(NUM_ROWS))
    assert not [path for path in answers.parent.iterdir() if path.name.startswith(answers.name) and ".tmp" in path.name]


def check_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    """One sentence, code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("lengthwise: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_may_not_grow(prompts: Path) -> None:
    """Where the journal can't be written the job ends; allowed to, the same command does the rest."""
    answers = prompts.with_name("answers.jsonl")
    check_refused(run(prompts, answers, max_bytes=20_000), "File too large")
    assert not answers.exists()
    check_completed(run(prompts, answers), answers, least_resumed=80)


def test_a_disk_that_is_full(prompts: Path, disk: Path) -> None:
    """First the journal finds no room, then the answers beside it; with room, the same command comes to its end."""
    answers = disk / "answers.jsonl"
    filler = disk / "filler"
    filler.write_bytes(bytes(40_000))
    check_refused(run(prompts, answers), "No space left on device")
    filler.unlink()
    remount(disk, "size=100k")
    second = run(prompts, answers)
    check_refused(
        second, "answers.jsonl.journal.answers can't be written (No space left on device). All answers are safe"
    )
    assert [path.name for path in disk.iterdir()] == ["answers.jsonl.journal"]
    remount(disk, "size=1m")
    check_completed(run(prompts, answers), answers, NUM_ROWS)


def test_a_disk_that_is_full_for_answers_as_completed(prompts: Path, disk: Path) -> None:
    """The journal has a line for which the growing file finds no room: it is written when there is some."""
    answers = disk / "answers.jsonl"
    for num_kib in (60, 64, 68, 72, 76):  # until it is the answers that meet the end of the disk first
        remount(disk, f"size={num_kib}k")
        refused = run(prompts, answers, "--as-completed")
        check_refused(refused, "No space left on device")
        if "answers.jsonl can't be written" in refused.stderr:
            break
    else:
        pytest.fail("the journal was always first")
    num_there = answers.read_bytes().count(b"\n")
    assert 0 < num_there < NUM_ROWS
    remount(disk, "size=1m")
    check_completed(run(prompts, answers, "--as-completed"), answers, num_there)


def test_a_folder_that_cannot_be_written(prompts: Path, disk: Path) -> None:
    """Refused before any work, with nothing left behind; writable again, the same command works."""
    answers = disk / "answers.jsonl"
    remount(disk, "ro")
    check_refused(run(prompts, answers), "can't be")
    assert list(disk.iterdir()) == []
    remount(disk, "rw,size=1m")
    check_completed(run(prompts, answers), answers, 0)


def remount(disk: Path, options: str) -> None:
    subprocess.run(mount(disk, f"remount,{options}"), check=True)


@pytest.mark.campaign
@pytest.mark.parametrize("options", [[], ["--as-completed"]], ids=["in order", "as completed"])
def test_campaign_of_a_disk_that_grows_page_by_page(prompts: Path, disk: Path, options: list[str]) -> None:
    """Full again and again, at every page of its files, a job comes to its end with what each run had left."""
    answers = disk / "answers.jsonl"
    finished = 0
    for num_kib in range(4, 400, 4):
        remount(disk, f"size={num_kib}k")
        done = run(prompts, answers, *options)
        if done.returncode == 0:
            check_completed(done, answers, finished)
            break
        check_refused(done, "No space left on device")
        journal = answers.with_name("answers.jsonl.journal")
        now_finished = journal.read_bytes().count(b'{"index": ') if journal.exists() else 0
        assert now_finished >= finished, "nothing is lost"
        finished = now_finished
    print(f"{num_kib // 4} sizes")
    assert num_kib > 40


@pytest.mark.campaign
def test_campaign_of_files_that_may_not_grow(prompts: Path) -> None:
    """The limit at every 997 bytes."""
    answers = prompts.with_name("answers.jsonl")
    for max_bytes in range(1, 100_000, 997):
        done = run(prompts, answers, max_bytes=max_bytes)
        if done.returncode == 0:
            break
        check_refused(done, "File too large")
    assert max_bytes > 50_000
    check_completed(run(prompts, answers), answers, NUM_ROWS)
