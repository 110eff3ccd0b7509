"""`lengthwise demo`: the main job on the bundled model, against `model.generate` in batches of 16."""

from __future__ import annotations

from typing import Annotated

import typer

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli.bench import measure, open_bench, read_requests
from lengthwise.engines.transformers import ModelOptions

NUM_PROMPTS = 256  # the plain way takes them in half a minute on two cores


def demo(limit: Annotated[int, typer.Option(help="How many of the bundled prompts.", min=1)] = NUM_PROMPTS) -> int:
    """Answer bundled prompts with the bundled model in two ways, and show both side by side."""
    requests = read_requests(PROMPTS_FILE, limit)
    bench = open_bench(ModelOptions(), max_tokens=512, batch_size=None, predictor="auto")
    samples = measure(bench, requests, 1, ["generate", "default"], {}, is_json=False)
    plain, ours = samples["generate"][0], samples["default"][0]
    num_same = sum(ours.texts[request.id] == plain.texts[request.id] for request in requests)
    answer = "yes" if num_same == len(requests) else f"no: {len(requests) - num_same} of {len(requests)} differ"
    typer.echo(f"Answers identical: {answer}.")
    return 0
