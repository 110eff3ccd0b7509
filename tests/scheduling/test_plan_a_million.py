"""A promise of the project: planning one million requests takes under 3 s and under 1 GB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measured(name: str) -> dict[str, float]:
    """In a process of its own: memory is counted from its start."""
    command = [sys.executable, "-m", "tests.scheduling.plan_a_million", name]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["refill", "grouped"])
def test_a_million_requests_are_planned_in_3_s_and_1_gb(name: str):
    """Processor time, the caller's WaitingRequests included, the better of two runs: a busy machine makes neither
    promise false."""
    taken = measured(name)
    if taken["make_s"] + taken["plan_s"] >= 3:
        taken = min(taken, measured(name), key=lambda run: run["make_s"] + run["plan_s"])
    assert taken["make_s"] + taken["plan_s"] < 3
    assert taken["peak_bytes"] < 1e9
