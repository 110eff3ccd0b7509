"""From samples to medians, ratios, a table for people and one JSON line for programs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.table import Table

from lengthwise.benchmarks.tables import median_with_interval, num_cores
from lengthwise.benchmarks.throughput.contender import Contender, Samples
from lengthwise.benchmarks.throughput.sample import Sample
from lengthwise.benchmarks.throughput.workload import Setup

# Requests/s of one contender over another's.
RATIOS = {
    "default_vs_arrival16": ("default", "arrival16"),
    "default_vs_paper": ("default", "paper"),
    "default_vs_transformers_continuous": ("default", "continuous_tuned"),
    "default_vs_vllm_cpu": ("default", "vllm_cpu"),
    "default_vs_same_engine_arrival": ("default", "ours_arrival"),
    "admission_vs_worst_case": ("default", "worst_case"),
    "default_vs_oracle": ("default", "oracle"),
    "slots16_vs_arrival16": ("slots16", "arrival16"),
}

Figure = Callable[[Sample], float | None]


def ratios(samples: Samples) -> dict[str, dict[str, Any] | None]:
    """Round by round, so that drift cancels: median and interval; None where one of both did not run."""
    found: dict[str, dict[str, Any] | None] = {}
    for name, (above, below) in RATIOS.items():
        pairs = zip(samples.get(above, ()), samples.get(below, ()), strict=above in samples and below in samples)
        gains = [a.requests_per_s / b.requests_per_s for a, b in pairs]
        found[name] = median_with_interval(gains) if gains else None
    return found


def oracle_gap_closed(samples: Samples) -> float | None:
    """What share of the oracle's gain over arrival order in time to last answer, same engine, `default` has: medians
    over rounds. None where there is no such gain, or one of the three did not run."""
    if not {"ours_arrival", "default", "oracle"} <= samples.keys():
        return None
    arrival_s, default_s, oracle_s = (
        _median(samples[name], lambda sample: sample.wall_s) or 0.0 for name in ("ours_arrival", "default", "oracle")
    )
    return (arrival_s - default_s) / (arrival_s - oracle_s) if arrival_s > oracle_s else None


def share_identical(samples: Samples, name: str, reference: str) -> float:
    """Share of requests that `name` answered with the same text as `reference` did."""
    here, there = samples[name][0].texts, samples[reference][0].texts
    return sum(here.get(key) == text for key, text in there.items()) / max(1, len(there))


def table(contenders: Sequence[Contender], samples: Samples) -> Table:
    """A line a contender: medians over rounds, and gains over the first one."""
    shown = Table()
    for heading in ("", *(column for column, _, _ in COLUMNS), "gain", "same text"):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    first = next(iter(samples))
    titles = {contender.name: contender.title for contender in contenders}
    for name, runs in samples.items():
        gains = [a.requests_per_s / b.requests_per_s for a, b in zip(runs, samples[first], strict=True)]
        cells = [_cell(runs, figure, form) for _, figure, form in COLUMNS]
        shown.add_row(titles[name], *cells, f"{np.median(gains):.2f}×", f"{share_identical(samples, name, first):.1%}")
    return shown


def json_line(
    contenders: Sequence[Contender], samples: Samples, setup: Setup, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a figure rests on: versions, hardware, workload, budget, settings, raw samples; medians and ratios."""
    rates = {name: median_with_interval([run.requests_per_s for run in runs]) for name, runs in samples.items()}
    found = ratios(samples)
    first = next(iter(samples))
    return {
        "bench": "throughput",
        **facts,
        "versions": {name: version(name) for name in ("lengthwise", "torch", "transformers", "numpy")},
        "hardware": {"machine": platform.machine(), "cores": num_cores(), "system": platform.system()},
        "workload": {
            "lengths": setup.workload.mode,
            "num_requests": len(setup.workload.requests),
            "max_tokens": setup.workload.max_tokens,
            "sha256": setup.workload.sha256,
        },
        "budget": {
            "kv_tokens": setup.kv_tokens,
            "request_tokens": setup.request_tokens,
            "worst_case_rows": round(setup.kv_tokens / setup.request_tokens, 2),
            "max_rows": setup.max_rows,
        },
        "contenders": {one.name: one.title for one in contenders},
        "settings": {one.name: dict(one.settings) for one in contenders},
        "requests_per_s": {name: rate["median"] for name, rate in rates.items()},
        "requests_per_s_ci95": {name: rate["ci95"] for name, rate in rates.items()},
        "ratios": {name: ratio and ratio["median"] for name, ratio in found.items()},
        "ratios_ci95": {name: ratio and ratio["ci95"] for name, ratio in found.items()},
        "oracle_gap_closed": oracle_gap_closed(samples),
        "identical_to_first": {name: share_identical(samples, name, first) for name in samples},
        "samples": {name: [figures(run) for run in runs] for name, runs in samples.items()},
    }


def figures(run: Sample) -> dict[str, Any]:
    """A sample without its answers."""
    return {
        "last_answer_s": round(run.wall_s, 4),
        "requests_per_s": round(run.requests_per_s, 4),
        "useful_tokens": run.useful_tokens,
        "useful_tokens_per_s": round(run.useful_tokens_per_s, 2),
        "computed_positions": run.computed_positions,
        "useful_share": _rounded(run.useful_share),
        "num_slots": run.num_slots,
        "idle_share": _rounded(run.idle_share),
        "peak_bytes": run.peak_bytes,
        "grown_bytes": run.grown_bytes,
        "predict_s": round(run.predict_s, 4),
        "recomputed_tokens": run.recomputed_tokens,
        "num_put_back": run.num_put_back,
        "put_back_share": _rounded(run.put_back_share),
        "num_errors": run.num_errors,
    }


COLUMNS: tuple[tuple[str, Figure, str], ...] = (
    ("requests/s", lambda run: run.requests_per_s, "{:.2f}"),
    ("useful tokens/s", lambda run: run.useful_tokens_per_s, "{:,.0f}"),
    ("useful", lambda run: run.useful_share, "{:.1%}"),
    ("slots", lambda run: run.num_slots, "{:.0f}"),
    ("idle", lambda run: run.idle_share, "{:.1%}"),
    ("last answer", lambda run: run.wall_s, "{:.1f} s"),
    ("predicting", lambda run: run.predict_s, "{:.2f} s"),
    ("put back", lambda run: run.put_back_share, "{:.1%}"),
    ("memory", lambda run: None if run.grown_bytes is None else run.grown_bytes / 2**20, "{:,.0f} MiB"),
    ("errors", lambda run: run.num_errors, "{:.0f}"),
)


def _cell(runs: Sequence[Sample], figure: Figure, form: str) -> str:
    median = _median(runs, figure)
    return "" if median is None else form.format(median)


def _median(runs: Sequence[Sample], figure: Figure) -> float | None:
    values = [value for run in runs if (value := figure(run)) is not None]
    return float(np.median(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
