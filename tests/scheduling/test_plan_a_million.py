"""A promise of the project: planning one million requests takes under 1 GB. How long it takes says `make plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["refill", "grouped"])
def test_a_million_requests_are_planned_in_1_gb(name: str):
    """Curves, requests, interpreter and numpy included, in a process of its own: memory is counted from its start."""
    command = [sys.executable, "-m", "tests.scheduling.plan_a_million", name]
    taken = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert taken["peak_bytes"] < 1e9
