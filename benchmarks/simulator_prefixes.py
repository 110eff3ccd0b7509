"""Where length order loses: prompts that share prefixes in a prefix cache, simulated.

    python benchmarks/simulator_prefixes.py [seeds]
    python benchmarks/simulator_prefixes.py [seeds] MOONCAKE_FILE

Without a file: groups of requests that share a long prefix and come together, Poisson arrivals of groups, all drawn
anew for each seed. With it: Mooncake's published conversations with their prefixes, the log itself and block bootstraps
of it. A load is what is asked of the engine where a cache without bounds serves arrival order. Cost: what the data
sheet of one A100 80 GB gives for 8 billion parameters in 16 bits, half of it attained. Says a table for each case, and
ends with one line of JSON: raw samples.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lengthwise.costs import StepCost
from lengthwise.simulation.arrivals import poisson
from lengthwise.simulation.load import at_load, engine_s_a_request
from lengthwise.simulation.logs import read_log
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import BASE
from lengthwise.simulation.prefixes import BLOCK_TOKENS, PrefixCache
from lengthwise.simulation.study import (
    HIT_RATE,
    Figures,
    Guess,
    Ratio,
    Study,
    StudyConfig,
    guess_exactly,
    guess_of_tau,
    run,
    verdict,
)
from lengthwise.simulation.workload import Workload

# 16 GB of weights at 1 TB/s; 131 kB of keys and values a token (8 heads of 128, 32 layers); 16 GFLOP a token of a
# prompt at 156 TFLOP/s; a row's share of a step's other work is a guess.
COST = StepCost(0.016, 0.0001, 1.3e-7, 0.016, 1e-4)
ENGINE = EngineModel(64, 300_000, cost=COST)
NAMES = (BASE, "promise:1", "promise", "ratio", "shortest", "longest")
SHOWN = ("mean_latency_s", "p99_latency_s", "makespan_s")

NUM_GROUPS, GROUP_SIZE, OWN_TOKENS = 125, 16, 200


@dataclass(frozen=True)
class Case:
    """One table: traffic, what is known of lengths, and the tokens that the prefix cache holds."""

    traffic: str
    known: str
    cache_tokens: int
    load: float
    prefix_blocks: int | None = None  # of groups

    @property
    def guess(self) -> Guess:
        return guess_exactly if self.known == "exactly" else guess_of_tau(float(self.known.removeprefix("tau ")))

    @property
    def engine(self) -> EngineModel:
        return replace(ENGINE, prefix_cache_tokens=self.cache_tokens)


def load_without_cache(load: float, work: Workload) -> float:
    """As `at_load` counts it: what a cache without bounds finds is read there."""
    assert work.prefixes is not None
    cache = PrefixCache(2**60)
    pairs = zip(work.prefixes, work.prompt_tokens.tolist(), strict=True)
    found = sum(cache.read(prefix, prompt_tokens) for prefix, prompt_tokens in pairs) / len(work)
    whole_s = engine_s_a_request(work, ENGINE)
    return load * whole_s / (whole_s - found * COST.read_token_s)


def groups(seed: int, prefix_blocks: int) -> Workload:
    """Groups that come at once, at random times; answers like Vicuna-7B's, no longer or shorter by their group."""
    rng = np.random.default_rng(seed)
    num = NUM_GROUPS * GROUP_SIZE
    prefixes = [tuple(range(i * prefix_blocks, (i + 1) * prefix_blocks)) for i in range(NUM_GROUPS)]
    return Workload.of(
        np.repeat(poisson(NUM_GROUPS, 1.0, rng), GROUP_SIZE),
        prefix_blocks * BLOCK_TOKENS + rng.integers(OWN_TOKENS // 2, 2 * OWN_TOKENS, num),
        np.clip(rng.lognormal(4.5, 0.85, num), 1, 512).astype(np.int64),
        512,
        prefixes=[prefixes[i // GROUP_SIZE] for i in range(num)],
    )


def drawn_groups(case: Case, num_seeds: int) -> dict[str, Figures]:
    columns: dict[str, dict[str, list[float]]] = {name: {} for name in NAMES}
    for seed in range(num_seeds):
        work = groups(seed, case.prefix_blocks or 0)
        work = at_load(work, load_without_cache(case.load, work), ENGINE)
        estimates = case.guess(work, np.random.default_rng([seed, 2]))
        for name in NAMES:
            for figure, value in run(name, work, estimates, case.engine).items():
                columns[name].setdefault(figure, []).append(value)
    return {name: Figures({key: np.array(one) for key, one in found.items()}) for name, found in columns.items()}


Drawn = Callable[[Case, int], dict[str, Figures]]


def drawn_log(log: Workload) -> Drawn:
    def drawn(case: Case, num_seeds: int) -> dict[str, Figures]:
        load = load_without_cache(case.load, log)
        return Study(log, case.guess, StudyConfig(case.engine, NAMES, num_seeds, len(log), load)).compare(NAMES)

    return drawn


def cases_of_groups() -> Iterator[Case]:
    for prefix_blocks in (4, 16):
        for load, sizes in ((0.9, (4,)), (1.1, (0, 2, 4, 16, NUM_GROUPS))):
            for num_held in sizes:
                yield Case("groups", "exactly", num_held * prefix_blocks * BLOCK_TOKENS, load, prefix_blocks)
        yield Case("groups", "tau 0.6", 4 * prefix_blocks * BLOCK_TOKENS, 1.1, prefix_blocks)


def cases_of_log() -> Iterator[Case]:
    for load, sizes in ((0.9, (1_000_000,)), (1.1, (0, 250_000, 1_000_000, 4_000_000, 100_000_000))):
        for size in sizes:
            yield Case("Mooncake", "exactly", size, load)
    yield Case("Mooncake", "tau 0.6", 1_000_000, 1.1)


def say(case: Case, found: dict[str, Figures]) -> dict[str, object]:
    said = verdict(found)
    told = f"{said.name} {said.ratio.mean:.3f}" if said.is_gain else "no gain"
    told_of = f" of {case.prefix_blocks} blocks" if case.prefix_blocks else ""
    print(f"\n{case.traffic}{told_of}, load {case.load}, lengths {case.known}, {case.cache_tokens:,} tokens: {told}\n")
    print(f"| policy | in the cache | {' | '.join(SHOWN)} |\n| --- | --- | {' | '.join('---' for _ in SHOWN)} |")
    for name, figures in found.items():
        cells = [f"{figures.mean(one):.1f} s: {ratio_of(figures, found[BASE], one)}" for one in SHOWN]
        print(f"| {name} | {figures.mean(HIT_RATE):.1%} | {' | '.join(cells)} |", flush=True)
    raw = {name: {one: figures.columns[one].tolist() for one in (*SHOWN, HIT_RATE)} for name, figures in found.items()}
    return {"case": vars(case), "verdict": told, "figures": raw}


def ratio_of(figures: Figures, base: Figures, name: str) -> str:
    ratio = Ratio.of(figures, base, name)
    low, high = ratio.ci95 or (math.nan, math.nan)
    return f"{ratio.mean:.3f} [{low:.3f}, {high:.3f}]"


def main(num_seeds: str = "5", file: str = "") -> None:
    if file:
        drawn: Drawn = drawn_log(read_log(Path(file), keeps_prefixes=True).workload)
    else:
        drawn = drawn_groups
    told = [say(case, drawn(case, int(num_seeds))) for case in (cases_of_log() if file else cases_of_groups())]
    print(json.dumps({"cases": told, "engine": vars(ENGINE) | {"cost": COST.to_json()}, "seeds": int(num_seeds)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
