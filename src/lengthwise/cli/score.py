"""`lengthwise score PREDICTOR DATA`: how good a predictor is, beside baselines and references."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli import backbones as b
from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import PREDICTOR_NAMES, Json
from lengthwise.cli.remaining import remaining_of
from lengthwise.cli.score_page import page
from lengthwise.cli.train import Data, Limit, check_limit, told_of_interrupt
from lengthwise.errors import counted

if TYPE_CHECKING:
    from lengthwise.learning.data import LengthData
    from lengthwise.learning.labels import Target
    from lengthwise.learning.scoring import Score
    from lengthwise.protocols import LengthPredictor


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
    num = _num_seen(Path(place), scored_on)
    _say_what_to_mind(predictor, found, num)
    remaining = remaining_of(chosen, scored_on)
    said = {"predictor": predictor, "num_seen": num, **found.to_json()}
    if remaining:
        said["remaining"] = [one.to_json() for one in remaining]
    typer.echo(json.dumps(said) if as_json else page(predictor, found, remaining))
    if plot is not None:
        _plot(chosen, scored_on, wanted, seed, plot, predictor)
    return 0


def _say_what_to_mind(predictor: str, found: Score, num_seen: int | None) -> None:
    """Why the page has dashes instead of figures, and where its figures are too good."""
    if found.figures["failure_ratio"] == 1:
        learns = "; it learns while a run goes on, or from DATA by `lengthwise train history`"
        say(f"{predictor} knows nothing of any of these prompts{learns if predictor == 'history' else ''}.")
    if num_seen:
        say(
            f"{predictor} was made from {num_seen:,} of these {counted(found.num_prompts, 'prompt')}, so the figures "
            "flatter it; score it on others."
        )


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
