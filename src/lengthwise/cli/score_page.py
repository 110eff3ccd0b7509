"""What `lengthwise score` shows: a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lengthwise.cli.remaining import remaining_table
from lengthwise.errors import counted

if TYPE_CHECKING:
    from lengthwise.learning.scoring import Score
    from lengthwise.learning.scoring_remaining import RemainingScore

# name, and how its value is shown
_SHOWN = {
    "mae": "{:.1f}",
    "acc_50": "{:.1%}",
    "acc_100": "{:.1%}",
    "kendall_tau": "{:.3f}",
    "bias": "{:+.1f}",
    "failure_ratio": "{:.1%}",
}
_DISTRIBUTION = {
    "pinball": "{:.1f}",
    "coverage_50": "{:.1%}",
    "coverage_80": "{:.1%}",
    "coverage_90": "{:.1%}",
    "coverage_95": "{:.1%}",
    "width_50": "{:.0f}",
    "width_80": "{:.0f}",
    "width_90": "{:.0f}",
    "width_95": "{:.0f}",
    "below_90": "{:.1%}",
    "above_90": "{:.1%}",
    "us_per_prompt_batch": "{:.0f}",
    "us_per_prompt_single": "{:.0f}",
    "train_s": "{:.1f}",
    "memory_mib": "{:.0f}",
}


def page(name: str, found: Score, remaining: Sequence[RemainingScore]) -> str:
    """The score as a page of Markdown, with a table of what remains where there is one."""
    header = ["", *_SHOWN]
    rows = [header, ["---"] * len(header), [f"**{name}**", *_cells(found.figures, _SHOWN)]]
    rows.append(["95 % interval", *(_interval(found.ci95.get(key), form) for key, form in _SHOWN.items())])
    rows += [[key.replace("_", " "), *_cells(figures, _SHOWN)] for key, figures in found.beside.items()]
    more = [["", "value", "95 % interval"], ["---"] * 3]
    for key, form in _DISTRIBUTION.items():
        if key in found.figures:
            more.append([key, _said(found.figures[key], form), _interval(found.ci95.get(key), form)])
    tables: list[Sequence[Sequence[Any]]] = [rows, more]
    if remaining:
        tables.append(remaining_table(remaining))
    return "\n\n".join([_about(found), *map(_table, tables)])


def _about(found: Score) -> str:
    limit = "no limit" if found.limit is None else f"limit {found.limit}"
    said = f"{counted(found.num_prompts, 'prompt')} of {found.data}, target {found.target}, {limit}, "
    said += f"{counted(found.num_censored, 'label')} {'is' if found.num_censored == 1 else 'are'} `at least`."
    if found.num_censored == found.num_prompts:
        said = f"**All labels are `at least`: how long answers are is not known, and no figure means anything.** {said}"
    if found.num_leaked is None:
        return said + " Baselines are fitted on these very labels, which flatters them (see --trained-on)."
    return f"{said} {found.num_leaked:,} of these prompts, or nearly the same, were learned from."


def _cells(figures: Mapping[str, float], forms: Mapping[str, str]) -> list[str]:
    return [_said(figures[key], form) for key, form in forms.items()]


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    if ends is None or not any(map(math.isfinite, ends)):
        return "–"
    return " to ".join(_said(end, form) for end in ends)


def _said(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "–"


def _table(rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
