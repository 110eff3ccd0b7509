"""`lengthwise calibrate PREDICTOR DATA -o DIR`: a predictor's chances, corrected on answers that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lengthwise.bundled import PREDICTOR_DIR
from lengthwise.cli import backbones as b
from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.train import Data, Limit, check_folder, check_limit, save, told_of_interrupt
from lengthwise.errors import UsageError, counted


def calibrate(
    predictor: Annotated[
        str, typer.Argument(metavar="PREDICTOR", help="A folder, po, pia, po:ADAPTER_DIR; auto is the shipped one.")
    ],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the calibrated one goes.")],
    target: Annotated[
        str | None,
        typer.Option(metavar="answer|max|mean|median|q0.9", help="What a length is; without it, what it learned."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="So many prompts, drawn by the seed; without it, all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the drawn prompts and samples.")] = 0,
    limit: Limit = None,
    model: b.Model = b.DEFAULTS.model,
    chat_template: b.ChatTemplate = b.DEFAULTS.chat_template,
    base_url: b.BaseUrl = b.DEFAULTS.base_url,
    api_key_env: b.ApiKeyEnv = b.DEFAULTS.api_key_env,
    mirror: Mirror = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a predictor in DIR.")] = False,
) -> int:
    """Make intervals hold what they promise on prompts like those of DATA, which it must not have learned from: for
    other prompts, or for another model, about 100 answers are enough. Those that were cut count as "at least"; 20 must
    not be."""
    from lengthwise.learning.calibration import calibrate as correct
    from lengthwise.learning.calibration import drawn_rows
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.seen import digests_of, num_seen, remembered
    from lengthwise.learning.training import target_of
    from lengthwise.predictors.saved import load_predictor

    listen(is_quiet=False)
    if rows is not None and rows < 1:
        raise UsageError(f"rows is {rows}; it must be 1 or more, or left out.")
    check_folder(output, overwrite)
    place = str(PREDICTOR_DIR) if predictor == "auto" else predictor
    backbone = b.BackboneChoice(model, chat_template, base_url, api_key_env).open_for(place)
    trained = load_predictor(place, backbone)
    if not hasattr(trained, "save"):
        raise UsageError(f"{predictor} can't be saved, and so not calibrated; give a folder, or po.")
    wanted = target_of(trained) if target is None else Target(target)
    with told_of_interrupt():
        fresh = read_data(data, mirror, check_limit(limit))
        corrected = correct(trained, fresh, wanted, num_rows=rows, seed=seed, model=fresh.model)
        drawn = fresh[drawn_rows(len(fresh), rows, seed)].requests
        seen = remembered(Path(place)) or frozenset()
        save(corrected, output, digests_of(drawn) | seen)
    if num := num_seen(seen, drawn):
        say(
            f"{predictor} was made from {num:,} of these {counted(len(drawn), 'prompt')}, so intervals may promise too "
            "much; calibrate it on others."
        )
    card = corrected.card
    say(
        f"{output}: corrected by {card['num_answers']:,} answers, {card['num_cut']:,} of them cut (`at least`). A "
        f"prompt's median is now that of before times {card['length_factor']:.2f}."
    )
    return 0
