"""`lengthwise calibrate PREDICTOR DATA -o DIR`: a predictor's chances, corrected on answers that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.train import Data, Limit, check_folder, check_limit
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
    other prompts, or for another model, about 100 answers are enough."""
    from lengthwise.learning.calibration import calibrate as correct
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.training import target_of
    from lengthwise.predictors.saved import load_predictor

    listen(is_quiet=False)
    if rows is not None and rows < 1:
        raise UsageError(f"rows is {rows}; it must be 1 or more, or left out.")
    check_folder(output, overwrite)
    trained = load_predictor(predictor)
    wanted = target_of(trained) if target is None else Target(target)
    corrected = correct(trained, read_data(data, mirror, check_limit(limit)), wanted, num_rows=rows, seed=seed)
    try:
        corrected.save(output)
    except OSError as error:
        raise UsageError(f"{output} can't be written ({error.strerror}); use another -o.") from error
    say(f"{output}: lengths times {2**corrected.octaves:.2f}, chances corrected.")
    return 0
