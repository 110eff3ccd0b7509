"""What a job costs beside its engine: a row's microseconds and the peak of memory, on an engine that only counts.

    python benchmarks/job_overhead.py [rows ...]      # 100000 1000000

Each number of rows is a job in a process of its own, with prompts of 30 words, ids and metadata. Calls into the engine
are deducted; all else is the job's: reading twice, ids, pipeline, loop, scheduler, encoding, journal, assembling. Times
are processor time, so that other programs on the machine count less. Ends with one JSON line.
"""

from __future__ import annotations

import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lengthwise
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.jobs import Job, JobOptions
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities, ErrorInfo, Event, Prepared, Request

SIZES = (100_000, 1_000_000)
MAX_ROWS, MAX_LENGTH, SEED = 64, 16, 0
WORDS = ("the", "a", "of", "and", "to", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as")


class Lengths(Mapping[str, int]):
    """1 to 16 tokens, from the id: nothing is held for a row."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def __getitem__(self, name: str) -> int:
        return 1 + int(name[1:]) * 7 % MAX_LENGTH

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return (f"r{i}" for i in range(self._num_rows))

    def __len__(self) -> int:
        return self._num_rows


class TimedEngine(ReplayEngine):
    """Counts the processor time that it takes itself, and when it was last asked."""

    taken_s = 0.0
    left_s = 0.0

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        started_s = time.thread_time()
        prepared = super().prepare(requests)
        self._count(started_s)
        return prepared

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        started_s = time.thread_time()
        super().start(request, tokens_so_far, cap, priority)
        self._count(started_s)

    def poll(self, timeout_s: float) -> list[Event]:
        started_s = time.thread_time()
        events = super().poll(timeout_s)
        self._count(started_s)
        return events

    def _count(self, started_s: float) -> None:
        now_s = time.thread_time()
        self.taken_s += now_s - started_s
        self.left_s = time.process_time()


def write_prompts(path: Path, num_rows: int) -> None:
    rng = random.Random(SEED)
    with path.open("w") as file:
        for i in range(num_rows):
            row = {"id": f"r{i}", "prompt": " ".join(rng.choices(WORDS, k=30)), "topic": i % 7}
            file.write(json.dumps(row) + "\n")


def measure(num_rows: int) -> dict[str, Any]:
    """One job in this process."""
    with tempfile.TemporaryDirectory() as name:
        options = JobOptions(Path(name, "prompts.jsonl"), Path(name, "answers.jsonl"))
        write_prompts(options.prompts, num_rows)
        before_mib = peak_mib()
        engine = TimedEngine(Lengths(num_rows), ReplayConfig(Capabilities(max_running=MAX_ROWS)))
        times, wall_s = [time.process_time()], time.perf_counter()
        with Job.open(options) as job:
            times.append(time.process_time())
            with Pipeline(engine=engine, predictor="none", window=options.window) as pipeline:
                result = job.run(pipeline)
        times += [engine.left_s, time.process_time()]
        wall_s = time.perf_counter() - wall_s
        assert (result.status, result.num_finished, result.num_failed) == ("done", num_rows, 0), result
    phases = dict(zip(("read first", "answer", "assemble"), (b - a for a, b in pairwise(times)), strict=True))
    phases["answer"] -= engine.taken_s
    return {
        "rows": num_rows,
        "us_a_row": round(sum(phases.values()) / num_rows * 1e6, 1),
        "phases_us_a_row": {name: round(taken_s / num_rows * 1e6, 1) for name, taken_s in phases.items()},
        "engine_us_a_row": round(engine.taken_s / num_rows * 1e6, 1),
        "rows_per_s": round(num_rows / wall_s),
        "peak_mib": round(peak_mib(), 1),
        "peak_before_mib": round(before_mib, 1),
    }


def peak_mib() -> float:
    """Of this program. `getrusage` has a peak, too, but counts in that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(*sizes: str) -> None:
    runs = []
    for size in sizes or map(str, SIZES):
        done = subprocess.run([sys.executable, __file__, "--one", size], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
        print(done.stdout, end="", flush=True)
    versions = {"lengthwise": lengthwise.__version__, "python": platform.python_version()}
    workload = {
        "max_rows": MAX_ROWS,
        "max_length": MAX_LENGTH,
        "seed": SEED,
        "window": JobOptions(Path("prompts"), Path("answers")).window,
    }
    print(json.dumps({"bench": "job_overhead", "versions": versions, "workload": workload, "runs": runs}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main(*sys.argv[1:])
