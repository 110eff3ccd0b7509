"""The paper's tables as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lengthwise.benchmarks.paper.rows import Row
from lengthwise.benchmarks.paper.summary import FIGURES, GAIN, Line
from lengthwise.benchmarks.paper.tables import Part, beside

# figure → heading, and how a value is shown
COLUMNS: dict[str, tuple[str, str]] = {
    "samples_per_s": ("samples/s", "{:.2f}"),
    GAIN: ("gain", "{:+.0%}"),
    "average_length": ("average length", "{:.0f}"),
    "effective_token_ratio": ("effective token ratio", "{:.1%}"),
    "rerun_ratio": ("run again", "{:.1%}"),
}
TABLES = {
    "predictors": "Predictors",
    "ablation": "Binning, failure collection (FCR), variable batch size (VBS)",
    "group-size": "Group size",
    "batch-size": "Batch size, without VBS",
}
NONE = "–"


def page(parts: Sequence[Part], titles: Mapping[str, str], left_out: Sequence[str]) -> str:
    """A section a part, a table for each of its tables; of several sets of other models one table of gains."""
    chunks: list[str] = []
    others = [part for part in parts if part.name not in titles]
    for part in parts:
        if part not in others:
            chunks += [f"## {titles[part.name]}", _about(part.on), *_tables(part)]
    if others:
        chunks += ["## Other models' lengths", _by_set(others)]
    if left_out:
        chunks.append("Left out: " + "; ".join(left_out) + ".")
    return "\n\n".join(chunks) + "\n"


def _about(on: Mapping[str, Any]) -> str:
    learned, scheduled = on["train"], on["test"]
    ends = [f"{name}: {one['name']} ({one['sha256_of_content'][:12]})" for name, one in (("learned from", learned),)]
    told = f"scheduled: {on['num_requests']:,} prompts of {scheduled['name']} ({scheduled['sha256_of_content'][:12]})"
    return "; ".join([*ends, told, f"answers of at most {on['max_tokens']:,} tokens"]).capitalize() + "."


def _tables(part: Part) -> Iterator[str]:
    for table in dict.fromkeys(line.row.table for line in part.lines):
        lines = [line for line in part.lines if line.row.table == table]
        yield f"### {TABLES[table]}"
        yield _table(part, [line for line in lines if line.reason is None])
        why = [(line.row, beside(part, line)["why"]) for line in lines]
        told = [f"- {row.title}: {reason}" for row, reason in why if reason]
        missing = [f"- {line.row.title}: no figures here. {line.reason}" for line in lines if line.reason]
        if told or missing:
            yield "\n".join([*told, *missing])


def _table(part: Part, lines: Sequence[Line]) -> str:
    header = ["", *(heading for heading, _ in COLUMNS.values()), "the paper's figure", "its repository's"]
    body = []
    for line in lines:
        stated = beside(part, line)
        cells = [_cell(line, name, form) for name, (_, form) in COLUMNS.items()]
        body.append([line.row.title, *cells, *(_stated(stated[name]) for name in ("paper", "repository"))])
    return _markdown(header, body)


def _cell(line: Line, name: str, form: str) -> str:
    value = form.format(line.figures[name])
    if name not in line.ci95 or not all(map(math.isfinite, line.ci95[name])):
        return value
    low, high = (form.format(end).removesuffix("%") for end in line.ci95[name])
    return f"{value} ({low} to {high})"


def _stated(figures: Mapping[str, float] | None) -> str:
    """What the paper's authors state of a row: "1.22/s, 377"."""
    if figures is None:
        return NONE
    forms = {"samples_per_s": "{:.2f}/s", "average_length": "length {:.0f}", "rerun_ratio": "{:.1%} run again"}
    forms["effective_token_ratio"] = "ratio {:.1%}"
    return ", ".join(forms.get(name, COLUMNS[name][1]).format(figures[name]) for name in FIGURES if name in figures)


def _by_set(parts: Sequence[Part]) -> str:
    """Gains over vanilla, a line a set."""
    rows = list(dict.fromkeys(line.row for line in parts[0].lines))
    header = ["gain over vanilla", "mean answer, tokens", *(row.title for row in rows[1:])]
    body = [[part.name, f"{_tokens(part):.0f}", *(_gain(part, row) for row in rows[1:])] for part in parts]
    means = ["mean of the sets", "", *(_mean_gain(parts, row) for row in rows[1:])]
    return _markdown(header, [*body, means])


def _tokens(part: Part) -> float:
    base = part.lines[0].figures
    return base["average_length"] * base["effective_token_ratio"]


def _line_of(part: Part, row: Row) -> Line | None:
    return next((line for line in part.lines if line.row == row and line.reason is None), None)


def _gain(part: Part, row: Row) -> str:
    line = _line_of(part, row)
    return NONE if line is None else _cell(line, GAIN, COLUMNS[GAIN][1])


def _mean_gain(parts: Sequence[Part], row: Row) -> str:
    """Geometric, of the rates' ratios."""
    lines = [line for part in parts if (line := _line_of(part, row)) is not None]
    if not lines:
        return NONE
    return COLUMNS[GAIN][1].format(math.expm1(float(np.mean([math.log1p(line.figures[GAIN]) for line in lines]))))


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])
