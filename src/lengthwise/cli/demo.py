"""`lengthwise demo`: the main job on the bundled model, against `model.generate` in batches of 16."""

from __future__ import annotations

from typing import Annotated

import typer

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli.bench_throughput import make_predictors, measure, open_ground, read_workload
from lengthwise.cli.console import listen
from lengthwise.engines.transformers import ModelOptions

NUM_PROMPTS = 256  # the plain way takes them in half a minute on two cores


def demo(limit: Annotated[int, typer.Option(help="How many of the bundled prompts.", min=1)] = NUM_PROMPTS) -> int:
    """Answer bundled prompts with the bundled model in two ways, and show both side by side."""
    listen(is_quiet=False)
    workload = read_workload(PROMPTS_FILE, "natural", 512, limit)
    ground = open_ground(ModelOptions(), workload, None, None, is_bounded=False)
    samples = measure(ground, make_predictors(ground, []), 1, ["arrival16", "default"], {})
    plain, ours, requests = samples["arrival16"][0], samples["default"][0], ground.setup.workload.requests
    num_same = sum(ours.texts[request.id] == plain.texts[request.id] for request in requests)
    answer = "yes" if num_same == len(requests) else f"no: {len(requests) - num_same} of {len(requests)} differ"
    typer.echo(f"Answers identical: {answer}.")
    return 0
