"""All contenders, by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from lengthwise.benchmarks.throughput.contender import Contender
from lengthwise.benchmarks.throughput.continuous import TRIED, TRIED_QUICKLY, ContinuousBatching
from lengthwise.benchmarks.throughput.generating import Generate
from lengthwise.benchmarks.throughput.piping import GeneratingPipeline
from lengthwise.benchmarks.throughput.scheduled import (
    MakePredictor,
    Scheduled,
    TrueLengths,
    paper_scheduler,
    whole_limits,
)
from lengthwise.benchmarks.throughput.vllm_cpu import PYTHON_VARIABLE, VllmCpu, find_python
from lengthwise.benchmarks.throughput.workload import BATCH, Setup
from lengthwise.errors import UsageError

log = logging.getLogger("lengthwise")

VLLM = "vllm_cpu"


def contenders(
    setup: Setup, predictors: Mapping[str, MakePredictor], *, is_quick: bool = False
) -> dict[str, Contender]:
    """By name, peers first. The first of `predictors` is what `default` goes by; further ones stand beside it under
    `default:` and their names. `is_quick`: fewer settings are tried for the peers that have any."""
    peers = [*_static(setup), *_continuous(setup, is_quick)]
    listed = [*peers, *_ours(setup, predictors)]
    return {contender.name: contender for contender in listed}


def choose(known: Mapping[str, Contender], names: Sequence[str] | None) -> list[Contender]:
    """Those of `names`, in their order; None: all. Raises UsageError, with the names that there are."""
    for name in names or ():
        if name == VLLM and name not in known:
            raise UsageError(
                f"There is no vLLM here for a model on this device: {PYTHON_VARIABLE} must name the Python of an "
                "environment that holds its CPU build, and the model must be on the CPU."
            )
        if name not in known:
            raise UsageError(f"There is no contender {name!r}; choose from {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names or known)]


def _static(setup: Setup) -> Iterator[Contender]:
    rows = setup.batch_rows
    yield Generate("arrival16", f"model.generate, batches of {rows}, arrival order", setup)
    yield GeneratingPipeline("pipeline16", f"transformers' pipeline, batches of {rows}", setup)
    yield Generate("no_end16", f"model.generate, batches of {rows}, all to the limit", setup, finds_end=False)


def _continuous(setup: Setup, is_quick: bool) -> Iterator[Contender]:
    yield ContinuousBatching("continuous", "transformers' continuous batching", setup)
    tried = TRIED_QUICKLY if is_quick else TRIED
    yield ContinuousBatching("continuous_tuned", "transformers' continuous batching, tuned", setup, tried)
    python = find_python()
    if python is not None and setup.loaded.device.type == "cpu":
        yield VllmCpu(VLLM, "vLLM's CPU build", setup, python, threads=(1,) if is_quick else ())
    else:
        log.info("vLLM's CPU build is left out: %s names none, or the model is on another device.", PYTHON_VARIABLE)


def _ours(setup: Setup, predictors: Mapping[str, MakePredictor]) -> Iterator[Contender]:
    first, *others = predictors
    best = predictors[first]
    yield Scheduled(
        "reference",
        "the paper's scheduling, model.generate",
        setup,
        best,
        paper_scheduler,
        generates=True,
    )
    yield Scheduled("paper", "the paper's scheduling, this engine", setup, best, paper_scheduler)
    yield Scheduled("ours_arrival", "this engine, arrival order", setup)
    yield Scheduled("worst_case", "this engine, whole limits reserved", setup, best, whole_limits)
    yield Scheduled("slots16", f"default, at most {BATCH} rows", setup, best, max_rows=BATCH)
    yield Scheduled("default", f"default ({first})", setup, best)
    for name in others:
        yield Scheduled(f"default:{name}", f"default ({name})", setup, predictors[name])
    yield Scheduled("oracle", "default (true lengths)", setup, TrueLengths(setup))
