"""`lengthwise bench`: what scheduling gains here, that it changes no answer; how good predictors are."""

from __future__ import annotations

import json

import typer

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli import bench_paper, bench_predictors, bench_throughput, bench_transfer
from lengthwise.cli import options as o
from lengthwise.cli.bench_inputs import Limit, PromptsFile, open_rows, read_requests, that_fit
from lengthwise.cli.console import listen, quiet_transformers, say
from lengthwise.engines.transformers import ModelOptions

app = typer.Typer(
    help="Measure: throughput of several ways to answer a file, whether answers stay the same, and how good predictors "
    "are."
)
app.command("throughput")(bench_throughput.throughput)
app.command("predictors")(bench_predictors.predictors)
app.command("transfer")(bench_transfer.transfer)
app.command("paper")(bench_paper.paper)


@app.command()
def identity(
    prompts: PromptsFile = PROMPTS_FILE,
    model: o.Model = o.MODEL.model,
    dtype: o.Dtype = o.MODEL.dtype,
    device: o.Device = o.MODEL.device,
    max_tokens: o.MaxTokens = o.RUN.max_tokens,
    batch_size: o.BatchSize = o.RUN.batch_size,
    predictor: o.Predictor = "auto",
    schedule: o.ScheduleOption = "default",
    limit: Limit = None,
    json_: o.Json = False,
) -> int:
    """Compare scheduled greedy answers, token by token, with `model.generate` one request at a time.

    Exit code 1 if an answer differs and the two tokens are no tie (logits within 1e-4)."""
    from lengthwise.benchmarks.identity import differences
    from lengthwise.engines.transformers.loading import load_model
    from lengthwise.pipeline import Pipeline
    from lengthwise.predictors.saved import resolve

    listen(False)
    quiet_transformers()
    loaded = load_model(ModelOptions(model=model, dtype=dtype, device=device))
    engine = open_rows(loaded, max_tokens, batch_size)
    requests, _ = that_fit(engine, read_requests(prompts, limit), max_tokens)
    answers = Pipeline(engine=engine, predictor=resolve(predictor, engine.model), scheduler=schedule).run(requests)
    found = []
    for difference in differences(loaded, requests, answers, max_tokens):
        found.append(difference)
        say(f"{difference} ({'a tie' if difference.is_tie else 'NOT a tie'})")
    num_ties = sum(difference.is_tie for difference in found)
    num_same = len(requests) - len(found)
    num_wrong = len(found) - num_ties
    say(f"{num_same:,} of {len(requests):,} answers are the same, {num_ties} differ by a tie, {num_wrong} not.")
    if json_:
        line = {"bench": "identity", "requests": len(requests), "same": num_same, "ties": num_ties}
        typer.echo(json.dumps({**line, "different": num_wrong, "model": engine.model}))
    return 1 if num_wrong else 0
