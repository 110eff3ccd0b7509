"""Where length order pays: loads × slots × how far lengths spread, by simulation of the log's own requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lengthwise.report.scales import Doubles
from lengthwise.simulation.arrivals import poisson
from lengthwise.simulation.policies import BASE
from lengthwise.simulation.study import MAX_P99_RATIO, Ratio, Study, StudyConfig, guess_of_tau
from lengthwise.simulation.workload import Ints, Workload

LOADS = (0.5, 0.7, 0.9, 1.1)
SPREADS = (0.5, 1.0, 1.5)  # of log length around its mean; 1: as in the log
NUM_SEEDS, MAX_REQUESTS = 4, 1_500  # of a cell, of which there are 48

SPARING = "promise:1"  # shortest first, and nobody waits longer than arrival order's longest wait: at any load

Told = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """What a policy does at one load, number of slots and spread (`deviation`: standard deviation of log length)."""

    spread: float
    deviation: float
    slots: int
    load: float
    mean: Ratio
    p99: Ratio

    @property
    def pays(self) -> bool:
        """By the rule that the command goes by, too: less on average, and the slowest are spared."""
        return self.mean.is_gain and self.p99.mean <= MAX_P99_RATIO


def where_it_pays(study: Study, name: str, tau: float, told: Told = lambda said: None) -> list[Place]:
    """A policy against arrival order, with a predictor of this quality. Nothing where there are no two requests.

    A log without times is taken as random arrivals; `Workload` is otherwise the log's, with its bursts.
    """
    if len(study.log) < 2:
        return []
    guess = guess_of_tau(min(1.0, max(0.0, tau)))
    places = []
    for spread in SPREADS:
        log = with_spread(_with_times(study.log), spread, study.config.engine.kv_tokens)
        for slots in _slots(study):
            told(f"where it pays: spread {spread:g}, {slots} slots")
            engine = replace(study.config.engine, slots=slots)
            config = StudyConfig(engine, (BASE, name), NUM_SEEDS, MAX_REQUESTS)
            places += [_place(Study(log, guess, replace(config, load=load)), name, spread, load) for load in LOADS]
    return places


def _place(study: Study, name: str, spread: float, load: float) -> Place:
    found = study.compare([BASE, name])
    ratios = [Ratio.of(found[name], found[BASE], f"{which}_latency_s") for which in ("mean", "p99")]
    return Place(spread, deviation_of(study.log.answer_tokens), study.config.engine.slots, load, *ratios)


def deviation_of(lengths: Ints) -> float:
    return float(np.log(lengths).std())


def with_spread(log: Workload, spread: float, kv_tokens: float) -> Workload:
    """The same requests with log lengths so many times as far from each other, and the same mean length (as far as
    whole tokens and the cache allow)."""
    if spread == 1.0:
        return log
    lengths = log.answer_tokens
    logs = np.log(lengths)
    moved = np.exp(logs.mean() + spread * (logs - logs.mean()))
    moved *= lengths.mean() / moved.mean()
    room = np.maximum(1, np.minimum(kv_tokens, 2**40) - log.prompt_tokens)
    whole = np.clip(np.round(moved), 1, np.maximum(room, lengths)).astype(np.int64)
    limit = 2 ** int(whole.max()).bit_length()
    return replace(log, output_tokens=whole, max_tokens=np.full(len(log), limit))


def _with_times(log: Workload) -> Workload:
    if log.arrival_s[-1] > log.arrival_s[0]:
        return log
    arrivals: Doubles = poisson(len(log), 1.0, np.random.default_rng(0))
    return log.arriving(arrivals)


def _slots(study: Study) -> list[int]:
    """Fewer and more than asked for, as far as a step's tokens allow."""
    own, most = study.config.engine.slots, study.config.engine.chunk_tokens
    found = {max(1, own // 16), max(1, own // 4), own, own * 4}
    return sorted(slots for slots in found if most is None or slots < most)
