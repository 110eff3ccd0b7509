"""`lengthwise bench paper`: the paper's tables, on recorded lengths and on a model that is really run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise import bundled
from lengthwise.cli.bench_predictors import PageFile, chosen_seeds, tables_of, write_page
from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import Json
from lengthwise.cli.train import Settings
from lengthwise.errors import UsageError

if TYPE_CHECKING:
    from lengthwise.benchmarks.paper.rows import Row
    from lengthwise.benchmarks.paper.scale import Scale
    from lengthwise.benchmarks.paper.store import Store
    from lengthwise.benchmarks.paper.tables import Part
    from lengthwise.benchmarks.perception.cells import Source

PARTS = ("recorded", "others", "model")
EVERY = "alpaca-eval"  # stands for all sets whose names begin with it
TRAIN, TEST = "alpaca-vicuna/train", "alpaca-vicuna/eval-1000"
WORK = Path("paper-bench")

_RECORDED, _MODEL = "Recorded lengths", "A model that is run"


def paper(
    parts: Annotated[
        str,
        typer.Option(
            metavar="PART,PART",
            help="recorded: Vicuna's lengths, replayed; others: other models' lengths, replayed; model: a model that "
            "is really run.",
        ),
    ] = ",".join(PARTS),
    rows: Annotated[
        str | None, typer.Option(metavar="ROW,ROW", help="Tables and rows, by name; without it, all.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer prompts, one seed, no ablation of the model; says what is left out.")
    ] = False,
    seeds: Annotated[str | None, typer.Option(help="With commas between them; 0,1,2 without it.")] = None,
    train: Annotated[
        str, typer.Option(metavar="DATA", help="What is learned from.", rich_help_panel=_RECORDED)
    ] = TRAIN,
    test: Annotated[str, typer.Option(metavar="DATA", help="What is scheduled.", rich_help_panel=_RECORDED)] = TEST,
    lengths: Annotated[
        str,
        typer.Option(metavar="DATA,DATA", help="Sets of `others`; alpaca-eval: all twelve.", rich_help_panel=_RECORDED),
    ] = EVERY,
    cost: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON with the seconds of steps, as `simulate` takes it; without it, a model of 7B parameters.",
            rich_help_panel=_RECORDED,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="bundled|DIR_OR_HUB_ID", help="The model that is run.", rich_help_panel=_MODEL)
    ] = bundled.NAME,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A set's name, or a file of prompts; without it, the bundled ones.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Limit of the model's answers.", min=1, rich_help_panel=_MODEL)] = 512,
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Where finished figures and predictors stand: a run resumes.")
    ] = WORK,
    settings: Settings = None,
    mirror: Mirror = None,
    output: PageFile = None,
    as_json: Json = False,
) -> int:
    """All tables of the paper: predictors and ways to schedule by them, the paper's figures beside ours, and why they
    differ.

    What is finished in --work is not done again, as long as data, settings, model, machine and version are the same."""
    from lengthwise.benchmarks.paper.page import page
    from lengthwise.benchmarks.paper.scale import FULL, QUICK
    from lengthwise.benchmarks.paper.store import Store
    from lengthwise.benchmarks.perception.facts import facts
    from lengthwise.learning.training import TRAINERS

    listen(is_quiet=False)
    scale = QUICK if quick else FULL
    chosen = _parts(parts)
    numbers = chosen_seeds(scale.seeds if seeds is None else seeds)
    tables = tables_of(settings, list(TRAINERS))
    bench = _Bench(Store(work), scale, numbers, tables, None if rows is None else rows.split(","), mirror)
    bench.check_rows()
    found: list[Part] = []
    with _told_of_interrupt(work):
        if "recorded" in chosen:
            found.append(bench.recorded("recorded", train, test, cost))
        if "others" in chosen:
            found += [bench.recorded(name, train, name, cost) for name in _names(lengths)]
        if "model" in chosen:
            found.append(bench.model(model, prompts, max_tokens))
    titles = {"recorded": f"Recorded lengths: {test}", "model": f"Really run: {model}"}
    line = {
        "bench": "paper",
        "quick": quick,
        "left_out": list(scale.left_out),
        "seeds": numbers,
        **facts(),
        "parts": {part.name: part.on for part in found},
        "rows": {key: row for part in found for key, row in part.to_json().items()},
    }
    write_page(page(found, titles, scale.left_out), output, line, as_json)
    return 0


@contextmanager
def _told_of_interrupt(work: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"Stopped. What is finished stands in {work}: the same command goes on from there.")
        raise


@dataclass(frozen=True)
class _Bench:
    store: Store
    scale: Scale
    seeds: list[int]
    settings: dict[str, dict[str, Any]]
    names: list[str] | None
    mirror: Path | None
    sources: dict[str, Source] = field(default_factory=dict)  # by name, as far as they were read

    def check_rows(self) -> None:
        """Before anything is measured. Raises UsageError."""
        from lengthwise.benchmarks.paper.rows import Known, check_names, other_rows, paper_rows

        check_names([*paper_rows(Known("text", "max")), *other_rows()], self.names or [])

    def recorded(self, name: str, train: str, test: str, cost: Path | None) -> Part:
        from lengthwise.benchmarks.paper.recorded import RecordedLengths, ReplayConfig
        from lengthwise.benchmarks.paper.rows import Known, other_rows, paper_rows
        from lengthwise.benchmarks.paper.tables import measured
        from lengthwise.costs import StepCost

        model = StepCost() if cost is None else StepCost.read(cost)
        config = ReplayConfig(model, self.scale.num_draws, self.settings)
        on = RecordedLengths(self.store, self._source(train), self._source(test), config)
        part = "recorded" if name == "recorded" else "others"
        rows = paper_rows(Known("text", "max")) if part == "recorded" else other_rows()
        has_paper = test == TEST and cost is None
        return measured(name, on, self._chosen(part, rows), self.seeds, has_paper=has_paper)

    def model(self, model: str, prompts: str | None, max_tokens: int) -> Part:
        from lengthwise.benchmarks.paper.really_run import RealRuns, RunConfig
        from lengthwise.benchmarks.paper.rows import Known, paper_rows
        from lengthwise.benchmarks.paper.tables import measured
        from lengthwise.benchmarks.paper.ways import LARGEST_BATCH
        from lengthwise.cli.bench_inputs import open_rows, that_fit
        from lengthwise.cli.console import quiet_transformers
        from lengthwise.engines.transformers import ModelOptions
        from lengthwise.engines.transformers.loading import load_model

        requests = _requests(prompts, self.mirror)[: self.scale.num_prompts]
        quiet_transformers()
        loaded = load_model(ModelOptions(model=model))
        engine = open_rows(loaded, max_tokens, LARGEST_BATCH)
        fit, _ = that_fit(engine, requests, max_tokens)
        config = RunConfig(max_tokens, self.scale.temperatures, settings=self.settings)
        on = RealRuns(self.store, engine, fit, model, config)
        rows = [row for row in paper_rows(Known("lora", "max")) if row.known.kind != "encoder"]
        return measured("model", on, self._chosen("model", rows), self.seeds, has_paper=True)

    def _source(self, name: str) -> Source:
        from lengthwise.benchmarks.perception.cells import Source

        if name not in self.sources:
            self.sources[name] = Source.of(name, self.mirror, None)
        return self.sources[name]

    def _chosen(self, part: str, rows: list[Row]) -> list[Row]:
        from lengthwise.benchmarks.paper.rows import chosen

        return chosen(self.scale.kept(part, rows), self.names)


def _parts(parts: str) -> list[str]:
    chosen = parts.split(",")
    for part in chosen:
        if part not in PARTS:
            raise UsageError(f"There is no part {part!r}; choose from {', '.join(PARTS)}.")
    return chosen


def _names(lengths: str) -> list[str]:
    from lengthwise.learning.data_catalogue import CATALOGUE

    if lengths == EVERY:
        return [name for name in CATALOGUE if name.startswith(f"{EVERY}/")]
    return lengths.split(",")


def _requests(prompts: str | None, mirror: Path | None) -> list[Any]:
    from lengthwise.bundled import PROMPTS_FILE
    from lengthwise.cli.bench_inputs import read_requests
    from lengthwise.learning.data import read_data
    from lengthwise.learning.data_catalogue import CATALOGUE

    if prompts in CATALOGUE:
        return list(read_data(str(prompts), mirror).requests)
    return read_requests(PROMPTS_FILE if prompts is None else Path(prompts), None)
