"""`lengthwise simulate LOG`: would knowing lengths help this traffic, and how much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lengthwise.cli.console import listen, say
from lengthwise.cli.data import Mirror
from lengthwise.cli.options import Json
from lengthwise.cli.report import Report, check_report
from lengthwise.cli.simulate_cost import ENGINE_PANEL, CostFile, ProbedModel, cost_basis
from lengthwise.cli.train import told_of_interrupt
from lengthwise.errors import UsageError

if TYPE_CHECKING:
    from lengthwise.simulation.logs import Log
    from lengthwise.simulation.machine import EngineModel
    from lengthwise.simulation.study import Guess, Study

_STUDY = "Study"


def simulate(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG",
            help="A trace of `lengthwise data list`, or a file of CSV or JSON lines with arrivals, prompt and output "
            "tokens, gzip or not: as Azure, Mooncake and ServeGen publish them, or named arrival_s, prompt_tokens (or "
            "prompt), output_tokens.",
        ),
    ],
    slots: Annotated[int, typer.Option(help="Requests that run at once.", rich_help_panel=ENGINE_PANEL)] = 64,
    load: Annotated[
        float | None,
        typer.Option(
            help="Make arrivals so fast or slow that they ask for this share of what the engine can do; without it, as "
            "recorded.",
            rich_help_panel=_STUDY,
        ),
    ] = None,
    kv_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens in the cache at once; without it, memory is no limit.", rich_help_panel=ENGINE_PANEL),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            help="Read prompts in pieces, a step takes so many tokens; without it, prompts are read alone.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = None,
    prefix_cache_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens of prompts that were read and are kept: what begins alike is not read again. The log needs "
            "hash_ids; 0: none is kept.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = 0,
    cost: CostFile = None,
    probe: ProbedModel = None,
    predictor: Annotated[
        str,
        typer.Option(
            metavar="tau:X|oracle|none|classes:FILE|DIR",
            help="What is known of lengths: their order with a Kendall tau of X, all, nothing, classes with recorded "
            "errors, or a predictor (the log needs prompts).",
            rich_help_panel=_STUDY,
        ),
    ] = "tau:0.6",
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policies to compare with arrival order; may be given often.", rich_help_panel=_STUDY),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Draws of the log that intervals rest on.", rich_help_panel=_STUDY)] = 5,
    requests: Annotated[int, typer.Option(help="Most requests of a run.", rich_help_panel=_STUDY)] = 10_000,
    arrivals: Annotated[
        str,
        typer.Option(
            metavar="log|once|poisson|bursty:V",
            help="When requests come: as in the log, all at once, at random, or in bursts (gaps that vary by V times "
            "their mean). The last two need --load.",
            rich_help_panel=_STUDY,
        ),
    ] = "log",
    mirror: Mirror = None,
    report: Report = None,
    as_json: Json = False,
) -> int:
    """Replay a log under several policies and say which one pays, by how much, and when none does."""
    from lengthwise.cli.simulate_page import page
    from lengthwise.report.page import save
    from lengthwise.report.simulation_page import simulation_page
    from lengthwise.simulation.machine import EngineModel
    from lengthwise.simulation.policies import BASE, DEFAULT
    from lengthwise.simulation.study import Study, StudyConfig

    listen(is_quiet=as_json)
    check_report(report, Path(log))
    basis = cost_basis(cost, probe)
    model = EngineModel(
        slots,
        float("inf") if kv_tokens is None else kv_tokens,
        chunk_tokens=chunk_tokens,
        prefix_cache_tokens=prefix_cache_tokens,
        cost=basis.cost,
    )
    names = tuple(dict.fromkeys([BASE, *(policy or DEFAULT)]))
    config = StudyConfig(model, names, seeds, requests, load)
    with told_of_interrupt():
        guess, needs_prompts = _guess(predictor)
        read = _read(log, mirror, keeps_prompts=needs_prompts, keeps_prefixes=bool(prefix_cache_tokens))
        workload = _arriving(read.workload, arrivals, load, model)
        read = replace(read, workload=workload, notes=(*read.notes, *basis.notes, *_cache_notes(model)))
        study = Study(read.workload, guess(read), config)
        found = _answer(study, read)
        found |= {
            "log": log,
            "predictor": predictor,
            "slots": slots,
            "kv_tokens": kv_tokens,
            "prefix_cache_tokens": prefix_cache_tokens,
            "cost": basis.cost.to_json(),
            "cost_source": basis.source,
        }
        if report is not None:
            save(simulation_page(study, found, say), report)
    typer.echo(json.dumps(found) if as_json else page(found))
    if report is not None:
        say(f"{report} shows it in pictures.")
    return 0


def _read(log: str, mirror: Path | None, *, keeps_prompts: bool, keeps_prefixes: bool) -> Log:
    from lengthwise.learning import data_fetch
    from lengthwise.learning.data_catalogue import CATALOGUE
    from lengthwise.simulation.logs import read_log

    path = data_fetch.get(log, mirror) if log in CATALOGUE else Path(log)
    read = read_log(path, keeps_prompts=keeps_prompts, keeps_prefixes=keeps_prefixes)
    for note in read.notes:
        say(note)
    return read


def _cache_notes(engine: EngineModel) -> tuple[str, ...]:
    if not engine.prefix_cache_tokens or engine.cost.read_token_s:
        return ()
    return ("Reading costs nothing here, so a prefix cache saves nothing: give a cost that has it (--cost, --probe).",)


def _arriving(workload: Any, arrivals: str, load: float | None, engine: EngineModel) -> Any:
    from lengthwise.simulation.arrivals import at_once, bursty
    from lengthwise.simulation.load import engine_s_a_request

    if arrivals == "log":
        return workload
    if arrivals == "once":
        return workload.arriving(at_once(len(workload)))
    kind, _, variation = arrivals.partition(":")
    if kind not in ("poisson", "bursty") or (kind == "bursty") != bool(variation):
        raise UsageError(f"arrivals is {arrivals!r}; it must be log, once, poisson, or bursty:V.")
    if load is None:
        raise UsageError(f"--arrivals {arrivals} needs --load, which says how many come.")
    rate = load / engine_s_a_request(workload, engine)
    return workload.arriving(bursty(len(workload), rate, _number(variation or "1"), np.random.default_rng(0)))


def _guess(predictor: str) -> tuple[Any, bool]:
    """Log → what is known of its lengths, and whether that needs its prompts."""
    from lengthwise.simulation import guesses
    from lengthwise.simulation.study import guess_exactly, guess_nothing, guess_of_tau

    kind, _, value = predictor.partition(":")
    if predictor == "oracle":
        return lambda read: guess_exactly, False
    if predictor == "none":
        return lambda read: guess_nothing, False
    if kind == "tau":
        return lambda read: guess_of_tau(_number(value)), False
    if kind == "classes":
        if not Path(value).is_file():
            raise UsageError(f"{value} is no file; classes:FILE needs one with output_tokens and pred_multiclass.")
        recorded = guesses.ClassErrors.read(Path(value))
        return lambda read: lambda workload, rng: recorded.draw(workload.output_tokens, rng), False
    return lambda read: _predicted(predictor, read), True


def _predicted(predictor: str, read: Log) -> Guess:
    """A real predictor, asked once for all prompts."""
    from lengthwise.predictors.saved import load_predictor
    from lengthwise.types import Request

    assert read.prompts is not None, "the log was read with its prompts"
    chosen = load_predictor(predictor)
    estimates = chosen.predict([Request(str(row), prompt) for row, prompt in enumerate(read.prompts)])
    return lambda workload, rng: estimates[workload.rows]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} is no number.") from None


def _answer(study: Study, read: Log) -> dict[str, Any]:
    """Everything that the page and the JSON line say."""
    from lengthwise.simulation.policies import BASE, policy
    from lengthwise.simulation.study import (
        FIGURES,
        HIT_RATE,
        MAX_P99_RATIO,
        MIN_GAIN,
        Ratio,
        guess_exactly,
        starts_to_pay,
        verdict,
    )

    figures = (*FIGURES, HIT_RATE) if study.config.engine.prefix_cache_tokens else FIGURES
    found = study.compare(study.config.policies)
    said = verdict(found)
    asked = said.name or "promise"
    oracle = study.compare([BASE, asked], guess_exactly)
    quick = replace(study, config=replace(study.config, num_seeds=min(3, study.config.num_seeds)))
    has_times = np.isfinite(study.loads()).all()
    by_load = quick.by_load(asked) if has_times else {}
    by_tau = quick.by_tau(asked)
    return {
        "policies": {
            name: {"title": policy(name).title}
            | {figure: one.mean(figure) for figure in figures}
            | {"ci95": {figure: one.ci95(figure) for figure in figures}}
            | {f"{key}_ratio": vars(Ratio.of(one, found[BASE], f"{key}_latency_s")) for key in ("mean", "p99")}
            | {"makespan_ratio": vars(Ratio.of(one, found[BASE], "makespan_s"))}
            for name, one in found.items()
        },
        "verdict": "gain" if said.is_gain else "no_gain",
        "ratio": said.ratio.mean,
        "ratio_ci95": said.ratio.ci95,
        "p99_ratio": said.p99_ratio.mean,
        "policy": said.name,
        "rule": {"min_gain": MIN_GAIN, "max_p99_ratio": MAX_P99_RATIO},
        "oracle_ratio": vars(Ratio.of(oracle[asked], oracle[BASE], "mean_latency_s")),
        "by_load": {str(load): vars(ratio) for load, ratio in by_load.items()},
        "pays_from_load": starts_to_pay(by_load),
        "by_tau": {str(tau): vars(ratio) for tau, ratio in by_tau.items()},
        "pays_from_tau": starts_to_pay(by_tau),
        "asked": asked,
        "tau": study.tau(),
        "load": float(np.mean(study.loads())) if has_times else None,
        "num_requests": len(read.workload),
        "num_a_run": min(len(read.workload), study.config.max_requests),
        "num_seeds": study.config.num_seeds,
        "notes": list(read.notes),
    }
