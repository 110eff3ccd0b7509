"""`kill -9` at any moment, then the same command again: every id exactly once, the same answers, little work twice.

The short forms replay recorded lengths at a pace, in processes that load no model. The campaign (`make kills`) kills
some hundred times, and runs the command itself on a real model.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lengthwise.bundled import MODEL_DIR
from tests.jobs.killed_job import MAX_RUNNING

PROGRAM = Path(__file__).with_name("killed_job.py")
KINDS = ("lines", "batch", "completed", "batch completed", "standard input", "parquet")

Fault = tuple[str, int]
Command = dict[str, Any]  # options of a job; see dying_jobs.py


@dataclass
class KilledJob:
    """A job of one kind in a folder, which is started again and again."""

    kind: str
    folder: Path
    num_rows: int
    step_s: float = 0.0012
    num_kills: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_prompts(self.prompts, self.num_rows, is_batch="batch" in self.kind)

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.jsonl"

    @property
    def answers(self) -> Path:
        return self.folder / ("answers.parquet" if self.kind == "parquet" else "answers.jsonl")

    @property
    def starts(self) -> Path:
        return self.folder / "starts"

    def start(self, fault: Fault | None = None) -> subprocess.Popen[bytes]:
        is_fed = self.kind == "standard input"
        settings = {
            "prompts": "-" if is_fed else str(self.prompts),
            "answers": str(self.answers),
            "starts": str(self.starts),
            "as_completed": "completed" in self.kind,
            "step_s": self.step_s,
            "fault": fault,
        }
        with self.prompts.open("rb") as prompts:
            return subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(settings)],
                stdin=prompts if is_fed else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )

    def kill_itself(self, fault: Fault) -> None:
        """Run until the fault."""
        with self.start(fault) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode()
        assert process.returncode == -9, f"{fault} did not happen: {said}"
        self.num_kills += 1

    def kill_at(self, target: int, delay_s: float) -> None:
        """Run until `target` rows are finished and `delay_s` longer, then kill it, if it has not ended by itself."""
        with self.start() as process:
            self.num_kills += kill_at(process, self.answers, target, delay_s)

    def finish(self) -> None:
        with self.start() as process:
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.returncode == 0

    def files(self) -> dict[str, bytes]:
        """The answers, all their files."""
        return {path.name: path.read_bytes() for path in self.folder.glob("answers*") if path.suffix != ".journal"}

    def check(self, whole: KilledJob) -> None:
        """Finished, it has the answers of a job that was never killed, and did no more twice than what ran when it
        was killed."""
        if "completed" in self.kind:
            assert sorted_lines(self.files()) == sorted_lines(whole.files())
        else:
            assert self.files() == whole.files()
        assert sorted(path.name for path in self.folder.iterdir()) == sorted(
            path.name for path in whole.folder.iterdir()
        )
        num_starts = len(self.starts.read_text().splitlines())
        assert num_starts - self.num_rows <= self.num_kills * MAX_RUNNING
        assert num_starts >= self.num_rows


def sorted_lines(files: dict[str, bytes]) -> dict[str, list[bytes]]:
    return {name: sorted(content.splitlines()) for name, content in files.items()}


def write_prompts(path: Path, num: int, is_batch: bool = False) -> None:
    """Prompts with ids, one bad row among them."""
    rows = [{"id": f"r{i}", "prompt": f"Tell me about number {i}."} for i in range(num)]
    if is_batch:
        rows = [
            {
                "custom_id": row["id"],
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": [{"role": "user", "content": row["prompt"]}]},
            }
            for row in rows
        ]
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join([*lines[:7], "no json", *lines[7:]]))


def num_finished(answers: Path) -> int:
    """Whole records in the journal, by counting lines: how far the job has come."""
    journal = answers.with_name(answers.name + ".journal")
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def kill_at(process: subprocess.Popen[bytes], answers: Path, target: int, delay_s: float) -> bool:
    """Wait for `target` finished rows, and kill the process `delay_s` later; False if it ended by itself before."""
    while process.poll() is None and num_finished(answers) < target:
        time.sleep(0.002)
    time.sleep(delay_s)
    has_ended = process.poll() is not None
    process.kill()
    assert process.stderr is not None
    said = process.stderr.read().decode()
    process.wait()
    assert not has_ended or process.returncode in (0, 1), said
    return not has_ended


def random_kills(job: KilledJob, num: int, seed: int) -> None:
    rng = random.Random(seed)
    for target in sorted(rng.randint(0, job.num_rows) for _ in range(num)):
        job.kill_at(max(target, num_finished(job.answers)), rng.uniform(0, 0.05))


def unkilled(kind: str, folder: Path, num_rows: int) -> KilledJob:
    job = KilledJob(kind, folder / "whole", num_rows, step_s=0.0)
    job.finish()
    return job


def killed(kind: str, folder: Path, num_rows: int, faults: Iterable[Fault]) -> KilledJob:
    """A job that had all these faults, one after the other, and then ended."""
    job = KilledJob(kind, folder / "killed", num_rows, step_s=0.0)
    for fault in faults:
        job.kill_itself(fault)
    job.finish()
    return job


def test_every_id_once_after_three_kills(tmp_path: Path) -> None:
    """Killed over and over, a job ends with the answers of one that was never killed, byte for byte, and what it did
    twice is at most what ran when it was killed."""
    job = KilledJob("lines", tmp_path / "killed", 100, step_s=0.0008)
    random_kills(job, 3, seed=0)
    assert job.num_kills >= 2
    job.finish()
    job.check(unkilled("lines", tmp_path, 100))
    ids = [json.loads(line)["id"] for line in job.answers.read_text().splitlines()]
    assert ids == [*(f"r{i}" for i in range(7)), "8", *(f"r{i}" for i in range(7, 100))]


def test_killed_in_the_middle_of_a_line_and_between_write_and_rename(tmp_path: Path) -> None:
    """A torn record is answered again; a file that is written and not in its place is written again."""
    faults = [("tear-journal", 1), ("tear-journal", 20), ("before-rename", 1), ("after-rename", 1)]
    killed("lines", tmp_path, 60, faults).check(unkilled("lines", tmp_path, 60))


def test_killed_in_the_middle_of_a_line_that_goes_out_as_completed(tmp_path: Path) -> None:
    """The line is completed by the next run, in the file where answers go and in that of errors."""
    faults = [("tear-answers", 3), ("tear-journal", 9), ("tear-answers", 30), ("sync", 2)]
    killed("batch completed", tmp_path, 60, faults).check(unkilled("batch completed", tmp_path, 60))


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_campaign_at_random_moments(tmp_path: Path, kind: str) -> None:
    """Twenty-five kills of each kind of job."""
    job = KilledJob(kind, tmp_path / "killed", 400)
    random_kills(job, 25, seed=KINDS.index(kind))
    job.finish()
    print(f"{kind}: {job.num_kills} kills")
    assert job.num_kills >= 20
    job.check(unkilled(kind, tmp_path, 400))


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_campaign_in_the_middle_of_lines(tmp_path: Path, kind: str) -> None:
    """Fifteen torn lines of each kind of job, in the journal and in what goes out as completed."""
    rng = random.Random(KINDS.index(kind))
    names = ["tear-journal", "tear-answers"] if "completed" in kind else ["tear-journal"]
    faults = [(rng.choice(names), rng.randint(1, 12)) for _ in range(15)]
    job = killed(kind, tmp_path, 300, faults)
    print(f"{kind}: {job.num_kills} kills")
    job.check(unkilled(kind, tmp_path, 300))


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["before-rename", "after-rename", "sync"])
def test_campaign_around_renames_and_flushes(tmp_path: Path, kind: str, fault: str) -> None:
    """Each rename and each flush of a whole job, one after the other, until there are none left."""
    whole = unkilled(kind, tmp_path, 40)
    for occasion in range(1, 20):
        job = KilledJob(kind, tmp_path / f"killed {occasion}", 40, step_s=0.0)
        with job.start((fault, occasion)) as process:
            process.wait()
        job.num_kills += process.returncode == -9
        job.finish()
        job.check(whole)
        if process.returncode == 0:
            break
    else:
        pytest.fail("there were more of them")
    print(f"{kind}, {fault}: {occasion - 1} kills")
    assert occasion > 1 or (fault != "sync" and "completed" in kind), "nothing is renamed there while rows failed"


ILL: Command = {"is_ill": True}
RETRIED: Command = {"retry_failed": True}
COMPLETED: Command = {"as_completed": True}
DYING: dict[str, tuple[str, list[Command], Command, list[Command]]] = {  # kind, before, killed, finals
    "no row fails": ("lines", [], {}, [{}]),
    "rows fail": ("lines", [], ILL, [{}, RETRIED]),
    "answered again": ("lines", [ILL], RETRIED, [{}, RETRIED]),
    "overwritten": ("lines", [{}], {"overwrite": True}, [{}, {"overwrite": True}]),
    "overwritten with failed rows": ("batch", [ILL], {"overwrite": True}, [{"overwrite": True}]),
    "as completed": ("lines", [], COMPLETED, [COMPLETED, {}]),
    "as completed, rows fail": ("lines", [], COMPLETED | ILL, [COMPLETED, {}, RETRIED]),
    "as completed, then answered again": ("lines", [COMPLETED | ILL], RETRIED, [COMPLETED, {}, RETRIED]),
    "a batch as completed": ("batch", [], COMPLETED | ILL, [COMPLETED, {}, RETRIED]),
    "a batch": ("batch", [], ILL, [{}, RETRIED]),
    "a batch answered again": ("batch", [ILL], RETRIED, [{}, RETRIED]),
    "standard input": ("standard input", [], ILL, [{}, RETRIED]),
    "standard input answered again": ("standard input", [ILL], RETRIED, [{}, RETRIED]),
    "parquet": ("parquet", [], ILL, [{}, RETRIED]),
    "parquet answered again": ("parquet", [ILL], RETRIED, [{}, RETRIED]),
}


def die(name: str, stride: int) -> int:
    """How often a job died without harm."""
    program = Path(__file__).with_name("dying_jobs.py")
    scenario = dict(zip(("kind", "before", "killed", "finals"), DYING[name], strict=True))
    command = [sys.executable, str(program), json.dumps({**scenario, "stride": stride})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["faults"] == []
    return int(told["deaths"])


@pytest.mark.parametrize("name", ["no row fails", "answered again", "overwritten", "a batch"])
def test_dying_at_some_steps(name: str) -> None:
    """Before, amid and after every seventh write, flush, renaming and removal, the next run makes it whole."""
    assert die(name, stride=7) >= 9


@pytest.mark.campaign
@pytest.mark.parametrize("name", DYING)
def test_campaign_of_dying_at_every_step(name: str) -> None:
    """Every one of them."""
    num = die(name, stride=1)
    print(f"{name}: {num} deaths")
    assert num >= 60


@pytest.mark.campaign
def test_campaign_on_a_real_model(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """The command itself, killed 22 times on the bundled model (a tiny random one where it is missing): every id
    once, in order, and greedy answers equal to those of a run that was never killed."""
    model = MODEL_DIR if (MODEL_DIR / "config.json").exists() else tiny_llama_dir
    prompts, whole, killed = tmp_path / "p.jsonl", tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    num_rows = 400
    write_prompts(prompts, num_rows)

    def command(answers: Path) -> Sequence[str]:
        start = [sys.executable, "-m", "lengthwise.cli", "run", str(prompts), "-o", str(answers)]
        return [*start, "--model", str(model), "--max-tokens", "120", "--device", "cpu", "--batch-size", "8"]

    rng = random.Random(7)
    num = 0
    for target in sorted(rng.randint(0, num_rows) for _ in range(24)):
        with subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            num += kill_at(process, killed, max(target, num_finished(killed)), rng.uniform(0, 0.05))
    subprocess.run(command(killed), check=False, stderr=subprocess.DEVNULL)
    subprocess.run(command(whole), check=False, stderr=subprocess.DEVNULL)
    print(f"{num} kills on {model}")
    assert num >= 20
    assert [row["id"] for row in read(killed)] == [*(f"r{i}" for i in range(7)), "8", *(f"r{i}" for i in range(7, 400))]
    assert [(row["id"], row["text"]) for row in read(killed)] == [(row["id"], row["text"]) for row in read(whole)]


def read(answers: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers.read_text().splitlines()]
