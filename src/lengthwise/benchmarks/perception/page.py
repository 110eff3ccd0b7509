"""The board as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lengthwise.benchmarks.perception.board import Row
from lengthwise.benchmarks.perception.transfer import FROM_SCRATCH, Line
from lengthwise.learning.scoring import interval

# figure → heading, and how a value is shown
COLUMNS: dict[str, tuple[str, str]] = {
    "mae": ("MAE, tokens", "{:.1f}"),
    "acc_50": ("Acc-50", "{:.1%}"),
    "acc_100": ("Acc-100", "{:.1%}"),
    "kendall_tau": ("Kendall's tau", "{:.3f}"),
    "failure_ratio": ("no number", "{:.1%}"),
    "coverage_90": ("90 % interval holds", "{:.1%}"),
    "below_90": ("below it", "{:.1%}"),
    "above_90": ("above it", "{:.1%}"),
}
COSTS: dict[str, tuple[str, str]] = {
    "us_per_prompt_batch": ("µs a prompt in batches", "{:,.0f}"),
    "us_per_prompt_single": ("µs alone", "{:,.0f}"),
    "train_s": ("training, s", "{:,.1f}"),
    "train_cpu_s": ("of processor time, s", "{:,.1f}"),
    "train_peak_mib": ("its peak, with Python and libraries, MiB", "{:,.0f}"),
    "memory_mib": ("predicting adds, MiB", "{:,.0f}"),
    "disk_bytes": ("on disk, MB", "{:,.1f}"),
}
WITH_INTERVAL = ("mae", "acc_50", "acc_100", "kendall_tau")
SCALES = {"disk_bytes": 1e-6}
NONE = "–"


def page(rows: Sequence[Row]) -> str:
    """Two tables: how good, and at what price; and what could not be measured."""
    kinds = [row for row in rows if row.group == "kind" and row.figures]
    good = _table(["", *(heading for heading, _ in COLUMNS.values())], [_quality(row) for row in rows if row.figures])
    price = _table(["", *(heading for heading, _ in COSTS.values())], [_price(row) for row in kinds])
    missing = [f"- `{row.name}`: {row.reason}" for row in rows if row.reason]
    parts = [good, price, *(["Not measured, or not with every seed:\n\n" + "\n".join(missing)] if missing else [])]
    return "\n\n".join(parts) + "\n"


def _quality(row: Row) -> list[str]:
    return [_name(row), *(_cell(row, key, form) for key, (_, form) in COLUMNS.items())]


def _price(row: Row) -> list[str]:
    shown = {key: value * SCALES.get(key, 1) for key, value in row.figures.items()}
    return [_name(row), *(said(shown, key, form) for key, (_, form) in COSTS.items())]


def _name(row: Row) -> str:
    if row.group != "kind":
        return row.name
    seeds = f" ({len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''})"
    return f"`{row.name}`{'*' if row.model else ''}{seeds}"


def _cell(row: Row, key: str, form: str) -> str:
    value = said(row.figures, key, form)
    if key not in WITH_INTERVAL or key not in row.ci95 or not all(map(math.isfinite, row.ci95[key])):
        return value
    low, high = (form.format(end).removesuffix("%") for end in row.ci95[key])
    return f"{value} ({low} to {high})"


def said(figures: Mapping[str, float], key: str, form: str) -> str:
    value = figures.get(key, math.nan)
    return form.format(value) if math.isfinite(value) else NONE


def transfer_page(lines: Mapping[str, Sequence[Line]]) -> str:
    """A table a predictor: Kendall's tau on each set, as it is and after each number of prompts."""
    return "\n".join(f"Trained predictor `{name}`:\n\n{_transfer_table(part)}\n" for name, part in lines.items())


def _transfer_table(lines: Sequence[Line]) -> str:
    by_set: dict[str, list[Line]] = {}
    for line in lines:
        by_set.setdefault(line.data, []).append(line)
    first = next(iter(by_set.values()))
    headings = [_transfer_heading(line) for line in first]
    body = [[name, *(_mean_with_ends(line) for line in part)] for name, part in by_set.items()]
    means = [
        _mean([line for part in by_set.values() for line in part if _transfer_heading(line) == heading])
        for heading in headings
    ]
    return _table(["Kendall's tau", *headings], [*body, ["mean of the sets", *means]])


def _transfer_heading(line: Line) -> str:
    if not line.num:
        return "as it is"
    return f"{'adapted by' if line.adapted else f'`{FROM_SCRATCH}` from'} {line.num:,}"


def _mean_with_ends(line: Line) -> str:
    """Mean over splits, and between which 95 % of them lie."""
    taus = line.samples["kendall_tau"]
    if not taus:
        return NONE
    low, high = interval(taus)
    return f"{np.mean(taus):.3f} ({low:.2f} to {high:.2f})"


def _mean(lines: Sequence[Line]) -> str:
    means = [float(np.mean(line.samples["kendall_tau"])) for line in lines if line.samples["kendall_tau"]]
    return f"{np.mean(means):.3f}" if means else NONE


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])
