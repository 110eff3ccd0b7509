"""`lengthwise bench`: what scheduling gains here, that it changes no answer; how good predictors are."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli import bench_predictors, bench_transfer
from lengthwise.cli import options as o
from lengthwise.cli.console import listen, quiet_transformers, say
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import UsageError
from lengthwise.types import Prepared, Request, SamplingParams

if TYPE_CHECKING:
    from lengthwise.benchmarks.throughput import Bench, Sample

TABLE_WIDTH = 140  # where there is no terminal to ask

app = typer.Typer(
    help="Measure: throughput of several ways to answer a file, whether answers stay the same, and how good predictors "
    "are."
)
app.command("predictors")(bench_predictors.predictors)
app.command("transfer")(bench_transfer.transfer)

PromptsFile = Annotated[Path, typer.Argument(metavar="[PROMPTS]", help="Prompts; without them, the bundled ones.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many prompts.", min=1)]
Rounds = Annotated[int, typer.Option(help="How often each contender runs.", min=1)]
Contenders = Annotated[str | None, typer.Option(help="Names, with commas between them; without it, all.")]


@app.command()
def throughput(
    prompts: PromptsFile = PROMPTS_FILE,
    model: o.Model = o.MODEL.model,
    dtype: o.Dtype = o.MODEL.dtype,
    device: o.Device = o.MODEL.device,
    max_tokens: o.MaxTokens = o.RUN.max_tokens,
    batch_size: o.BatchSize = o.RUN.batch_size,
    predictor: o.Predictor = "auto",
    limit: Limit = None,
    rounds: Rounds = 3,
    contenders: Contenders = None,
    json_: o.Json = False,
) -> int:
    """Answer the prompts greedily in several ways, in turn, and compare requests/s, useful work and answers."""
    requests = read_requests(prompts, limit)
    bench = open_bench(ModelOptions(model=model, dtype=dtype, device=device), max_tokens, batch_size, predictor)
    chosen = contenders.split(",") if contenders is not None else None
    facts = {"model": bench.engine.model, "max_tokens": max_tokens, "rounds": rounds, "temperature": 0.0}
    measure(bench, requests, rounds, chosen, facts, is_json=json_)
    return 0


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
    from lengthwise.pipeline import Pipeline

    requests = read_requests(prompts, limit)
    bench = open_bench(ModelOptions(model=model, dtype=dtype, device=device), max_tokens, batch_size, predictor)
    requests = that_fit(bench, requests)
    answers = Pipeline(engine=bench.engine, predictor=bench.predictor, scheduler=schedule).run(requests)
    found = []
    for difference in differences(bench.loaded, requests, answers, max_tokens):
        found.append(difference)
        say(f"{difference} ({'a tie' if difference.is_tie else 'NOT a tie'})")
    num_ties = sum(difference.is_tie for difference in found)
    num_same = len(requests) - len(found)
    num_wrong = len(found) - num_ties
    say(f"{num_same:,} of {len(requests):,} answers are the same, {num_ties} differ by a tie, {num_wrong} not.")
    if json_:
        line = {"bench": "identity", "requests": len(requests), "same": num_same, "ties": num_ties}
        typer.echo(json.dumps({**line, "different": num_wrong, "model": bench.engine.model}))
    return 1 if num_wrong else 0


def read_requests(prompts: Path, limit: int | None) -> list[Request]:
    """The file's prompts, greedy and up to the common limit whatever their rows ask for, so that all contenders do the
    same; rows in error are left out and counted aloud."""
    from lengthwise.jobs.ids import named_rows
    from lengthwise.jobs.sources import open_source

    rows = list(named_rows(open_source(prompts), SamplingParams()))
    contents = [(row.id, row.content) for row in rows if isinstance(row.content, Request)]
    good = [Request(name, content.prompt, is_raw=content.is_raw) for name, content in contents]
    if len(good) < len(rows):
        say(f"{len(rows) - len(good)} rows of {prompts} are no requests and are left out.")
    if not good:
        raise UsageError(f"{prompts} holds no request that could be answered.")
    return good[:limit]


def that_fit(bench: Bench, requests: list[Request]) -> list[Request]:
    """Those with room for an answer up to the limit; the others, which contenders might treat differently, are
    counted aloud."""
    prepared = zip(requests, bench.engine.prepare(requests), strict=True)
    fit = [request for request, one in prepared if isinstance(one, Prepared) and one.max_tokens == bench.max_tokens]
    if len(fit) < len(requests):
        say(f"{len(requests) - len(fit)} prompts leave no room for {bench.max_tokens} tokens and are left out.")
    if not fit:
        raise UsageError(f"No prompt leaves room for an answer of {bench.max_tokens} tokens; lower --max-tokens.")
    return fit


def open_bench(model: ModelOptions, max_tokens: int, batch_size: int | None, predictor: str) -> Bench:
    from lengthwise.benchmarks.throughput import Bench
    from lengthwise.engines.transformers.loading import load_model
    from lengthwise.engines.transformers.open import OpenedRowEngine, engine_for
    from lengthwise.predictors.saved import resolve

    listen(False)
    quiet_transformers()
    loaded = load_model(model)
    engine = engine_for(loaded, RunOptions(max_tokens=max_tokens, batch_size=batch_size))
    if not isinstance(engine, OpenedRowEngine):
        raise UsageError(f"This model runs by `generate` only; there is nothing to compare. {engine.description}")
    return Bench(loaded, engine, resolve(predictor, engine.model), max_tokens)


def measure(
    bench: Bench,
    requests: list[Request],
    num_rounds: int,
    names: list[str] | None,
    facts: dict[str, Any],
    *,
    is_json: bool,
) -> dict[str, list[Sample]]:
    """Run the rounds, saying each sample as it comes; then the table, and one JSON line on stdout."""
    from lengthwise.benchmarks import tables
    from lengthwise.benchmarks.throughput import rounds

    known = bench.contenders()
    for name in names or ():
        if name not in known:
            raise UsageError(f"There is no contender {name!r}; choose from {', '.join(known)}.")
    requests = that_fit(bench, requests)
    chosen = {name: known[name] for name in names or known}
    samples: dict[str, list[Sample]] = defaultdict(list)
    for number, name, sample in rounds(list(chosen.values()), requests, num_rounds):
        samples[name].append(sample)
        say(f"round {number + 1}: {chosen[name].title}: {sample.requests_per_s:.2f} requests/s")
    ordered = {name: samples[name] for name in chosen}
    shown = Console(stderr=is_json)
    if not shown.is_terminal:
        shown.width = TABLE_WIDTH
    shown.print(tables.table(chosen, ordered))
    if is_json:
        typer.echo(json.dumps(tables.json_line(chosen, ordered, requests, facts)))
    return ordered
