"""`lengthwise calibrate PREDICTOR DATA -o DIR`: a predictor's chances, corrected on answers that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.train import Data, Limit, check_folder, check_limit, save, told_of_interrupt
from lengthwise.errors import UsageError


def calibrate(
    predictor: Annotated[str, typer.Argument(metavar="PREDICTOR", help="The folder of a trained predictor.")],
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the calibrated one goes.")],
    target: Annotated[
        str | None,
        typer.Option(metavar="answer|max|mean|median|q0.9", help="What a length is; without it, what it learned."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="So many prompts, drawn by the seed; without it, all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the drawn prompts and samples.")] = 0,
    limit: Limit = None,
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
    from lengthwise.learning.seen import digests_of, remembered
    from lengthwise.learning.training import target_of
    from lengthwise.predictors.saved import load_predictor

    listen(is_quiet=False)
    if rows is not None and rows < 1:
        raise UsageError(f"rows is {rows}; it must be 1 or more, or left out.")
    if not Path(predictor).is_dir():
        raise UsageError(f"calibrate takes the folder of a trained predictor only, and {predictor!r} is no folder.")
    check_folder(output, overwrite)
    trained = load_predictor(predictor)
    wanted = target_of(trained) if target is None else Target(target)
    with told_of_interrupt():
        fresh = read_data(data, mirror, check_limit(limit))
        corrected = correct(trained, fresh, wanted, num_rows=rows, seed=seed)
        drawn = fresh[drawn_rows(len(fresh), rows, seed)].requests
        save(corrected, output, digests_of(drawn) | (remembered(Path(predictor)) or frozenset()))
    card = corrected.card
    say(
        f"{output}: corrected by {card['num_answers']:,} answers, {card['num_cut']:,} of them cut (`at least`). A "
        f"prompt's median is now that of before times {card['length_factor']:.2f}."
    )
    return 0
