"""Results of cells → rows of the board: over seeds the median, and an interval over seeds and prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lengthwise.benchmarks.perception.cells import Cell
from lengthwise.benchmarks.perception.running import Result
from lengthwise.learning.scoring import interval

MEDIANS = (
    "us_per_prompt_batch",
    "us_per_prompt_single",
    "train_s",
    "train_cpu_s",
    "disk_bytes",
    "train_peak_mib",
    "memory_mib",
)


@dataclass(frozen=True)
class Row:
    """A line of the board. `ci95` lacks what has no interval. `reason`: why there are no figures. `group`: `kind`, or
    what stands beside: `baseline`, `reference`, `published`, `wanted`."""

    name: str
    group: str = "kind"
    figures: dict[str, float] = field(default_factory=dict)
    ci95: dict[str, tuple[float, float]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    model: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        finite = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        return {
            "name": self.name,
            "group": self.group,
            "figures": finite,
            "ci95": {name: list(ends) for name, ends in self.ci95.items() if all(map(math.isfinite, ends))},
            "seeds": list(self.seeds),
            "model": self.model,
            "reason": self.reason,
        }


# What was published, or is wanted, of one test set (its name, or the end of its file's) and target.
BESIDE = {
    ("alpaca-vicuna/eval-1000", "max"): (
        Row("the paper's repository: 7B and LoRA", "published", {"mae": 62, "acc_50": 0.59, "acc_100": 0.81}),
        Row("wanted of `text`", "wanted", {"mae": 61, "acc_50": 0.57, "acc_100": 0.82, "kendall_tau": 0.575}),
        Row("wanted of the best", "wanted", {"mae": 45, "acc_50": 0.67, "acc_100": 0.875, "kendall_tau": 0.67}),
    )
}


def rows(results: Sequence[Result]) -> list[Row]:
    """A row a kind, in the order in which kinds come, and after them what they are to be compared with."""
    kinds = dict.fromkeys(result.cell.kind for result in results)
    found = [_row([result for result in results if result.cell.kind == kind]) for kind in kinds]
    finished = [result for result in results if result.reason is None]
    if not finished:
        return found
    first = finished[0]
    return [*found, *_compared_with(first.figures["beside"]), *_published(first.cell)]


def _published(cell: Cell) -> tuple[Row, ...]:
    name = cell.test.name.removesuffix(".jsonl")
    known = [rows for (test, target), rows in BESIDE.items() if name.endswith(test) and target == cell.target]
    return known[0] if known else ()


def _row(results: Sequence[Result]) -> Row:
    """The seeds of one kind that were finished; a kind none of whose seeds was has its reason instead."""
    cell = results[0].cell
    finished = [result for result in results if result.reason is None]
    if not finished:
        return Row(cell.kind, model=cell.model, reason=results[0].reason)
    figures = [result.figures for result in finished]
    draws = {name: _draws(name, figures) for name in figures[0]["draws"]}
    return Row(
        cell.kind,
        figures={name: _median(name, figures) for name in (*draws, *MEDIANS)},
        ci95={name: interval(values) for name, values in draws.items()},
        seeds=tuple(result.cell.seed for result in finished),
        model=cell.model,
        reason=next((result.reason for result in results if result.reason is not None), None),
    )


def _median(name: str, figures: Sequence[Mapping[str, Any]]) -> float:
    known = [one[name] for one in figures if one.get(name) is not None]
    return float(np.median(known)) if known else math.nan


def _draws(name: str, figures: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of all seeds together: what is drawn is a seed, and prompts."""
    return [value for one in figures for value in one["draws"][name] if value is not None]


def _compared_with(beside: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    for name, figures in beside.items():
        group = "reference" if " from " in name else "baseline"
        known = {key: math.nan if value is None else value for key, value in figures.items()}
        yield Row(f"{group}: {name.replace('_', ' ')}", group, known)
