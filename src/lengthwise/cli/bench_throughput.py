"""`lengthwise bench throughput`: what scheduling gains on this machine, beside what users would take instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from lengthwise.bundled import MODEL_DIR, PROMPTS_FILE, is_bundled
from lengthwise.cli import options as o
from lengthwise.cli.bench_inputs import Limit, PromptsFile, open_rows, read_requests, that_fit
from lengthwise.cli.console import listen, quiet_transformers, say
from lengthwise.cli.data import Mirror
from lengthwise.engines.transformers import ModelOptions
from lengthwise.errors import EngineError
from lengthwise.types import Request

if TYPE_CHECKING:
    from lengthwise.benchmarks.throughput.contender import Samples
    from lengthwise.benchmarks.throughput.scheduled import MakePredictor
    from lengthwise.benchmarks.throughput.workload import Setup, Workload
    from lengthwise.engines.transformers.open import OpenedRowEngine
    from lengthwise.protocols import LengthPredictor

TABLE_WIDTH = 190  # where there is no terminal to ask
NUM_WARM_UP = 64  # requests: enough rows to tell settings of peers apart
QUICK_PROMPTS, QUICK_ROUNDS, QUICK_WARM_UP = 32, 1, 8

Rounds = Annotated[int, typer.Option(help="How often each contender runs.", min=1)]
Contenders = Annotated[str | None, typer.Option(help="Names, with commas between them; without it, all.")]
Predictors = Annotated[
    list[str] | None,
    typer.Option(
        "--predictor",
        metavar="auto|constant:N|DIR|...",
        help="What `default` goes by (without it, auto, or what was learned from --train); named again, further ones "
        "are contenders of their own.",
    ),
]
Lengths = Annotated[
    Literal["natural", "recorded"],
    typer.Option(
        help="natural: answers end where the model ends them. recorded: each has as many tokens as PROMPTS (then a "
        "set of `lengthwise data list`, or a file with lengths) records for it."
    ),
]
KvTokens = Annotated[
    int | None,
    typer.Option(
        help="Prompt and answer tokens that each contender may hold at once; without it, those of 16 requests at "
        "their worst.",
        min=1,
    ),
]
Train = Annotated[
    str | None, typer.Option(metavar="DATA", help="recorded: lengths that a text predictor and a constant learn from.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A first look: few prompts, one round, fewer settings tried.")]


def throughput(
    prompts: PromptsFile = PROMPTS_FILE,
    model: o.Model = o.MODEL.model,
    dtype: o.Dtype = o.MODEL.dtype,
    device: o.Device = o.MODEL.device,
    max_tokens: o.MaxTokens = o.RUN.max_tokens,
    batch_size: o.BatchSize = o.RUN.batch_size,
    kv_tokens: KvTokens = None,
    lengths: Lengths = "natural",
    train: Train = None,
    mirror: Mirror = None,
    predictor: Predictors = None,
    limit: Limit = None,
    rounds: Rounds = 3,
    contenders: Contenders = None,
    quick: Quick = False,
    json_: o.Json = False,
) -> int:
    """Answer the prompts greedily in several ways, in turn, within one memory budget, and compare requests/s, useful
    work, idle slots, memory and answers."""
    if quick:
        limit, rounds = min(limit or QUICK_PROMPTS, QUICK_PROMPTS), min(rounds, QUICK_ROUNDS)
    listen(False)
    workload = read_workload(prompts, lengths, max_tokens, limit, mirror)
    ground = open_ground(ModelOptions(model=model, dtype=dtype, device=device), workload, batch_size, kv_tokens)
    predictors = make_predictors(ground, predictor or [], train, mirror)
    facts = {"model": ground.setup.loaded.identity, "rounds": rounds, "temperature": 0.0, "is_quick": quick}
    names = contenders.split(",") if contenders is not None else None
    measure(ground, predictors, rounds, names, facts, is_quick=quick, is_json=json_)
    return 0


@dataclass(frozen=True)
class Ground:
    """What all contenders have, and the engine that found out how much this machine takes."""

    setup: Setup
    engine: OpenedRowEngine


def read_workload(
    prompts: Path, lengths: str, max_tokens: int, limit: int | None, mirror: Path | None = None
) -> Workload:
    from lengthwise.benchmarks.throughput.workload import Workload, recorded_workload
    from lengthwise.learning.data import read_data

    if lengths == "natural":
        return Workload(tuple(read_requests(prompts, limit)), max_tokens)
    data = read_data(str(prompts), mirror)
    return recorded_workload(data[:limit], max_tokens)


def open_ground(
    model: ModelOptions, workload: Workload, batch_size: int | None, kv_tokens: int | None, *, is_bounded: bool = True
) -> Ground:
    """Load the model, and settle the budget; `is_bounded` False: what the machine's memory holds. Prompts that leave no
    room for the limit are left out. Raises UsageError on a budget that is smaller than one request."""
    from lengthwise.benchmarks.throughput.workload import Setup, kv_budget
    from lengthwise.engines.transformers.loading import load_model

    quiet_transformers()
    loaded = load_model(model)
    engine = open_rows(loaded, workload.max_tokens, batch_size)
    requests, prepared = that_fit(engine, workload.requests, workload.max_tokens)
    longest = max(one.prompt_tokens for one in prepared)
    budget = kv_budget(longest, workload.max_tokens, kv_tokens) if is_bounded else engine.capabilities.kv_tokens
    path = str(MODEL_DIR) if model.model is None or is_bundled(model.model) else model.model
    chosen = replace(workload, requests=tuple(requests))
    return Ground(Setup(loaded, path, chosen, longest, budget, engine.capabilities.max_running), engine)


def make_predictors(
    ground: Ground, names: Sequence[str], train: str | None = None, mirror: Path | None = None
) -> dict[str, MakePredictor]:
    """Those named, then those that learned from `train`. Raises PredictorError where one can't be had."""
    if not names and train is None:
        names = ["auto"]
        if ground.setup.workload.lengths is not None:
            say(
                "Nothing was learned from recorded lengths: what is known of this model's own is guessed with. --train."
            )
    found = {name: _by_name(ground, name) for name in names}
    for make in found.values():
        make(())  # that it can't be had is known before anything runs
    return found | (_learned(ground.setup, train, mirror) if train is not None else {})


def _by_name(ground: Ground, name: str) -> MakePredictor:
    from lengthwise.predictors import saved

    def make(requests: Sequence[Request]) -> LengthPredictor:
        backbone = ground.engine.backbone() if saved.needs_backbone(name) else None
        return saved.resolve(name, ground.engine.model, backbone)

    return make


def _learned(setup: Setup, train: str, mirror: Path | None) -> dict[str, MakePredictor]:
    """A text predictor, and a constant: what is left of the gain where the prompt says nothing. Whoever wrote these
    answers, the model at hand is made to write as long ones."""
    from lengthwise.learning.data import read_data
    from lengthwise.learning.labels import Target
    from lengthwise.learning.training import TrainConfig
    from lengthwise.learning.training import train as fit

    data = read_data(train, mirror, setup.workload.max_tokens)
    config = TrainConfig(model=setup.loaded.identity)
    known = {kind: fit(kind, data, Target(), config) for kind in ("text", "constant")}
    return {kind: _always(predictor) for kind, predictor in known.items()}


def _always(predictor: LengthPredictor) -> MakePredictor:
    return lambda requests: predictor


def measure(
    ground: Ground,
    predictors: Mapping[str, MakePredictor],
    num_rounds: int,
    names: Sequence[str] | None,
    facts: Mapping[str, Any],
    *,
    is_quick: bool = False,
    is_json: bool = False,
) -> Samples:
    """Run the rounds, saying each sample as it comes; then the table, and one JSON line on stdout."""
    from lengthwise.benchmarks.throughput import page
    from lengthwise.benchmarks.throughput.contender import Rounds
    from lengthwise.benchmarks.throughput.contenders import choose, contenders

    setup = ground.setup
    known = contenders(setup, predictors, is_quick=is_quick)
    rounds = Rounds(choose(known, names), setup.loaded.device, say)
    requests = setup.workload.requests
    samples = rounds.run(requests, num_rounds, QUICK_WARM_UP if is_quick else NUM_WARM_UP)
    if not samples:
        raise EngineError("No contender answered; each one said why.")
    shown = Console(stderr=is_json)
    if not shown.is_terminal:
        shown.width = TABLE_WIDTH
    shown.print(page.table(rounds.contenders, samples))
    if is_json:
        typer.echo(json.dumps(page.json_line(rounds.contenders, samples, setup, facts)))
    return samples
