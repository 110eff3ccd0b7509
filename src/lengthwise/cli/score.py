"""`lengthwise score PREDICTOR DATA`: how good a predictor is, beside baselines and references."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import Json
from lengthwise.cli.train import Data, Limit, check_limit, told_of_interrupt

if TYPE_CHECKING:
    from lengthwise.learning.data import LengthData
    from lengthwise.learning.scoring import Score

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
}


def score(
    predictor: Annotated[
        str,
        typer.Argument(metavar="PREDICTOR", help="auto (the shipped one), none, constant:N, oracle:FILE, or a folder."),
    ],
    data: Data,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="answer|max|mean|median|q0.9", help="What is predicted; without it, what the predictor learned."
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="What it learned from: baselines are fitted on it, and leaks are counted."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the drawn sample and the intervals.")] = 0,
    limit: Limit = None,
    mirror: Mirror = None,
    as_json: Json = False,
) -> int:
    """Errors as in the paper, the distribution's calibration, order and time, with 95 % intervals."""
    from lengthwise.bundled import PREDICTOR_DIR
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.scoring import ScoreConfig
    from lengthwise.learning.scoring import score as score_on
    from lengthwise.learning.training import target_of
    from lengthwise.predictors.saved import load_predictor

    listen(is_quiet=as_json)
    wanted = None if target is None else Target(target)
    place = str(PREDICTOR_DIR) if predictor == "auto" else predictor
    chosen = load_predictor(place)
    with told_of_interrupt():
        scored_on = read_data(data, mirror, check_limit(limit))
        learned = None if trained_on is None else read_data(trained_on, mirror, limit)
        found = score_on(chosen, scored_on, wanted or target_of(chosen), learned=learned, config=ScoreConfig(seed=seed))
    num = _num_seen(Path(place), scored_on)
    if num:
        say(
            f"{predictor} was made from {num:,} of these {len(scored_on):,} prompts, so the figures flatter it; score "
            "it on others."
        )
    said = {"predictor": predictor, "num_seen": num, **found.to_json()}
    typer.echo(json.dumps(said) if as_json else render(predictor, found))
    return 0


def _num_seen(folder: Path, data: LengthData) -> int | None:
    """Of how many prompts the predictor in `folder` knows that it was made with them; None where it doesn't know."""
    from lengthwise.learning.seen import num_seen, remembered

    digests = remembered(folder)
    return None if digests is None else num_seen(digests, data.requests)


def render(name: str, found: Score) -> str:
    """The score as a page of Markdown."""
    header = ["", *_SHOWN]
    rows = [header, ["---"] * len(header), [f"**{name}**", *_cells(found.figures, _SHOWN)]]
    rows.append(["95 % interval", *(_interval(found.ci95.get(key), form) for key, form in _SHOWN.items())])
    rows += [[key.replace("_", " "), *_cells(figures, _SHOWN)] for key, figures in found.beside.items()]
    more = [["", "value", "95 % interval"], ["---"] * 3]
    for key, form in _DISTRIBUTION.items():
        if key in found.figures:
            more.append([key, _said(found.figures[key], form), _interval(found.ci95.get(key), form)])
    return "\n\n".join([_about(found), _table(rows), _table(more)])


def _about(found: Score) -> str:
    limit = "no limit" if found.limit is None else f"limit {found.limit}"
    said = f"{found.num_prompts:,} prompts of {found.data}, target {found.target}, {limit}, "
    said += f"{found.num_censored:,} labels are `at least`."
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


def _table(rows: list[list[Any]]) -> str:
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
