"""From samples to medians, intervals, a table for people and one JSON line for programs."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.table import Table

from lengthwise.benchmarks.throughput import Contender, Sample
from lengthwise.types import Request

Samples = Mapping[str, Sequence[Sample]]
RATIOS = {
    "default_vs_generate": ("default", "generate"),
    "default_vs_same_engine_arrival": ("default", "arrival"),
    "default_vs_same_engine_refill_arrival": ("default", "refill_arrival"),
    "default_vs_grouped": ("default", "grouped"),
    "default_vs_paper": ("default", "paper"),
    "default_vs_oracle": ("default", "oracle"),
    "arrival_vs_generate": ("arrival", "generate"),
}


def median_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Median and its 95 % bootstrap percentile interval (10,000 resamples)."""
    samples = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(0, len(samples), (10_000, len(samples)))
    low, high = np.percentile(np.median(samples[picks], axis=1), [2.5, 97.5])
    return {"median": float(np.median(samples)), "ci95": [float(low), float(high)]}


def ratios(samples: Samples) -> dict[str, dict[str, Any]]:
    """Requests/s of one contender over another's, round by round, so that drift cancels."""
    found = {}
    for name, (above, below) in RATIOS.items():
        if above in samples and below in samples:
            pairs = zip(samples[above], samples[below], strict=True)
            found[name] = median_with_interval([a.requests_per_s / b.requests_per_s for a, b in pairs])
    return found


def share_identical(samples: Samples, name: str, reference: str = "generate") -> float | None:
    """Share of requests that `name` answered with the same text as `reference` did."""
    if name not in samples or reference not in samples:
        return None
    here, there = samples[name][0].texts, samples[reference][0].texts
    return sum(here.get(key) == text for key, text in there.items()) / len(there)


def table(contenders: Mapping[str, Contender], samples: Samples) -> Table:
    """A line a contender: requests/s, useful tokens/s, useful share of computed positions, identical answers."""
    shown = Table(title=None)
    for heading in ("", "requests/s", "useful tokens/s", "useful share", "against the first", "identical answers"):
        shown.add_column(heading, justify="left" if not heading else "right")
    first = next(iter(samples))
    for name, runs in samples.items():
        rate = median_with_interval([run.requests_per_s for run in runs])["median"]
        tokens = float(np.median([run.useful_tokens / run.wall_s for run in runs]))
        gains = [a.requests_per_s / b.requests_per_s for a, b in zip(runs, samples[first], strict=True)]
        same = share_identical(samples, name, first)
        shown.add_row(
            contenders[name].title,
            f"{rate:.2f}",
            f"{tokens:,.0f}",
            f"{np.median([run.useful_share for run in runs]):.1%}",
            f"{np.median(gains):.2f}×",
            "" if same is None else f"{same:.1%}",
        )
    return shown


def json_line(
    contenders: Mapping[str, Contender], samples: Samples, requests: Sequence[Request], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a figure rests on: versions, hardware, workload, raw samples, medians, ratios."""
    return {
        "bench": "throughput",
        **facts,
        "versions": {name: version(name) for name in ("lengthwise", "torch", "transformers", "numpy")},
        "hardware": {"machine": platform.machine(), "cores": num_cores(), "system": platform.system()},
        "workload": {"num_requests": len(requests), "sha256": workload_hash(requests)},
        "contenders": {name: contenders[name].title for name in samples},
        "requests_per_s": {n: median_with_interval([r.requests_per_s for r in runs]) for n, runs in samples.items()},
        "ratios": ratios(samples),
        "identical_to_first": {name: share_identical(samples, name, next(iter(samples))) for name in samples},
        "samples": {name: [_raw(run) for run in runs] for name, runs in samples.items()},
    }


def num_cores() -> int:
    """Those that this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workload_hash(requests: Sequence[Request]) -> str:
    digest = hashlib.sha256()
    for request in requests:
        digest.update(f"{request.id}\0{request.text}\0".encode())
    return digest.hexdigest()


def _raw(run: Sample) -> dict[str, Any]:
    return {
        "wall_s": round(run.wall_s, 4),
        "useful_tokens": run.useful_tokens,
        "computed_positions": run.computed_positions,
        "recomputed_tokens": run.recomputed_tokens,
        "predict_s": round(run.predict_s, 4),
        "num_errors": run.num_errors,
    }
