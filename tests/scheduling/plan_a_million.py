"""Plan a job of a million requests in this process, and say what it took, as one JSON line.

    python -m tests.scheduling.plan_a_million [refill|grouped|optimal|paper|arrival] [number of requests]

`make_s` is the caller's part (the WaitingRequests), `plan_s` the scheduler's (`add`, and `decide` until everything has
started, each time into an empty engine of 64 rows), both in seconds of processor time; `peak_bytes` is the memory of
the whole process with interpreter, numpy, curves and requests.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.protocols import Scheduler
from lengthwise.scheduling.named import make
from lengthwise.types import Capabilities, View, WaitingRequest

NUM_ROWS, LIMIT = 64, 512


def peak_memory_bytes() -> int:
    """Of this program alone: `ru_maxrss` would begin with what the process had that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def random_estimates(num: int) -> LengthEstimates:
    """A curve of its own in memory for every request (276 bytes), drawn from a thousand different ones."""
    rng = np.random.default_rng(0)
    centres = rng.lognormal(np.log(105), 0.6, (1000, 1))
    curves = (1 / (1 + (GRID / centres) ** 2.7)).astype(np.float32)
    survival = curves[rng.integers(0, len(curves), num)]
    return LengthEstimates(survival, np.zeros(num, np.float32), np.full(num, LIMIT, np.float32))


def plan(scheduler: Scheduler, requests: list[WaitingRequest], estimates: LengthEstimates) -> int:
    """How many were started."""
    scheduler.add(requests, estimates)
    view = View(0.0, {}, {}, NUM_ROWS)
    num_started = 0
    while starts := scheduler.decide(view):
        num_started += len(starts)
    return num_started


def main(name: str = "refill", num: str = "1000000") -> None:
    estimates = random_estimates(int(num))
    started_s = time.process_time()
    requests = [WaitingRequest(f"request-{i}", 40, LIMIT) for i in range(int(num))]
    made_s = time.process_time()
    num_started = plan(make(name, Capabilities(max_running=NUM_ROWS)), requests, estimates)
    planned_s = time.process_time()
    assert num_started == len(requests), f"{num_started} of {len(requests)} started"
    peak_bytes = peak_memory_bytes()
    print(json.dumps({"make_s": made_s - started_s, "plan_s": planned_s - made_s, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
