"""`lengthwise score PREDICTOR DATA`: how good a predictor is, beside baselines and references."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise.cli import backbones as b
from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import PREDICTOR_NAMES, Json
from lengthwise.cli.remaining import remaining_of, remaining_table
from lengthwise.cli.train import Data, Limit, check_limit, told_of_interrupt
from lengthwise.errors import counted

if TYPE_CHECKING:
    from lengthwise.learning.data import LengthData
    from lengthwise.learning.labels import Target
    from lengthwise.learning.scoring import Score
    from lengthwise.protocols import LengthPredictor

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


def score(
    predictor: Annotated[
        str,
        typer.Argument(metavar="PREDICTOR", help=f"{PREDICTOR_NAMES}; auto is the shipped one."),
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
    model: b.Model = b.DEFAULTS.model,
    chat_template: b.ChatTemplate = b.DEFAULTS.chat_template,
    base_url: b.BaseUrl = b.DEFAULTS.base_url,
    api_key_env: b.ApiKeyEnv = b.DEFAULTS.api_key_env,
    mirror: Mirror = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures, as SVG: predicted against true, reliability, error by length."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Errors as in the paper, the distribution's calibration, order and time, with 95 % intervals."""
    from lengthwise.bundled import PREDICTOR_DIR
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.scoring import ScoreConfig
    from lengthwise.learning.scoring import score as score_on
    from lengthwise.learning.scoring_memory import Added
    from lengthwise.learning.scoring_times import BATCH
    from lengthwise.learning.training import target_of
    from lengthwise.predictors.saved import load_predictor

    listen(is_quiet=as_json)
    wanted = None if target is None else Target(target)
    place = str(PREDICTOR_DIR) if predictor == "auto" else predictor
    backbone = b.BackboneChoice(model, chat_template, base_url, api_key_env).open_for(place)
    added = Added()
    with added.counted():
        chosen = load_predictor(place, backbone)
    wanted = wanted or target_of(chosen)
    with told_of_interrupt():
        scored_on = read_data(data, mirror, check_limit(limit))
        learned = None if trained_on is None else read_data(trained_on, mirror, limit)
        with added.counted():
            chosen.predict(scored_on.requests[:BATCH])
        found = score_on(chosen, scored_on, wanted, learned=learned, config=ScoreConfig(seed=seed))
        found = replace(found, figures={**found.figures, **_costs(chosen, added.mib)})
    if False:
        say(_why_nothing_is_known(predictor))
    num = _num_seen(Path(place), scored_on)
    if num:
        say(
            f"{predictor} was made from {num:,} of these {counted(len(scored_on), 'prompt')}, so the figures flatter "
            "it; score it on others."
        )
    remaining = remaining_of(chosen, scored_on)
    said = {"predictor": predictor, "num_seen": num, **found.to_json()}
    if remaining:
        said["remaining"] = [one.to_json() for one in remaining]
    pages = [render(predictor, found), *([_table(remaining_table(remaining))] if remaining else [])]
    typer.echo(json.dumps(said) if as_json else "\n\n".join(pages))
    if plot is not None:
        _plot(chosen, scored_on, wanted, seed, plot, predictor)
    return 0


def _why_nothing_is_known(name: str) -> str:
    """Said where the page has dashes instead of figures."""
    told = f"{name} knows nothing of any of these prompts, so there is nothing to score."
    if name == "history":
        return f"{told} It learns while a run goes on; `lengthwise train history` makes one of answers that are there."
    return told


def _costs(predictor: LengthPredictor, added_mib: float | None) -> dict[str, float]:
    """What its training took, as far as it tells, and what loading it and one batch added to the peak of memory."""
    card = getattr(getattr(predictor, "inner", predictor), "card", {})
    known = {"train_s": card.get("train_s"), "memory_mib": added_mib}
    return {name: float(value) for name, value in known.items() if value is not None}


def _plot(predictor: LengthPredictor, data: LengthData, target: Target, seed: int, folder: Path, name: str) -> None:
    """Of the same labels as the score's."""
    from lengthwise.learning.labels import label_one
    from lengthwise.learning.plots import Subject, save_plots
    from lengthwise.learning.scoring import compare

    labels = label_one(data, target, seed)
    scored = compare(predictor.predict(labels.requests), labels, data.limit)
    for path in save_plots(scored, Subject(name, data.name, target.name), folder):
        say(f"{path}")


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
