"""What figures stand on: medians with intervals, the machine's cores, a digest of the workload."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lengthwise.types import Request


def median_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Median and its 95 % bootstrap percentile interval (10,000 resamples)."""
    samples = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(0, len(samples), (10_000, len(samples)))
    low, high = np.percentile(np.median(samples[picks], axis=1), [2.5, 97.5])
    return {"median": float(np.median(samples)), "ci95": [float(low), float(high)]}


def num_cores() -> int:
    """Those that this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workload_hash(requests: Sequence[Request]) -> str:
    digest = hashlib.sha256()
    for request in requests:
        digest.update(f"{request.id}\0{request.text}\0".encode())
    return digest.hexdigest()
