"""Policies compared on draws of one log: how much each gains, from which load on, and how good a predictor must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.simulation.arrivals import resampled, stretch
from lengthwise.simulation.guesses import exact, kendall_tau, of_tau
from lengthwise.simulation.load import at_load, load_of
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import BASE, policy
from lengthwise.simulation.simulator import simulate
from lengthwise.simulation.workload import Doubles, Workload

FIGURES = ("mean_latency_s", "p99_latency_s", "mean_wait_s", "makespan_s")
HIT_RATE = "prefix_hit_rate"  # where there is a prefix cache

# Less than this share of the mean latency is no gain: a cost model is not known better.
MIN_GAIN = 0.03
# A policy whose 99th percentile of latency grows beyond this is not advised, whatever it gains on average: somebody
# else pays. (`promise` allows the longest wait a factor of 1.25.)
MAX_P99_RATIO = 1.3

LOADS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
TAUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)

Guess = Callable[[Workload, np.random.Generator], LengthEstimates]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study. Raises UsageError on a value out of range."""

    engine: EngineModel = field(default_factory=EngineModel)
    policies: tuple[str, ...] = (BASE,)
    num_seeds: int = 5  # the log itself, and draws of stretches of it
    max_requests: int = 10_000  # of a run
    load: float | None = None  # None: as recorded

    def __post_init__(self) -> None:
        if self.num_seeds < 1 or self.max_requests < 1:
            raise UsageError(f"{self.num_seeds} seeds of {self.max_requests} requests: each must be 1 or more.")
        for name in self.policies:
            policy(name)


@dataclass(frozen=True, eq=False)
class Figures:
    """One policy's figures, a value a seed in each column."""

    columns: dict[str, Doubles]

    def mean(self, name: str) -> float:
        return float(self.columns[name].mean())

    def ci95(self, name: str) -> tuple[float, float] | None:
        ends = interval(self.columns[name])
        most = 1.0 if name == HIT_RATE else math.inf
        return None if ends is None else (max(0.0, ends[0]), min(most, ends[1]))

    def ratio(self, base: Figures, name: str) -> Doubles:
        """To arrival order's, seed by seed, of a figure that is never 0 (latencies, makespan)."""
        found: Doubles = self.columns[name] / base.columns[name]
        return found


@dataclass(frozen=True)
class Ratio:
    """Geometric mean over seeds of a figure by arrival order's, with its 95 % interval (None: one seed)."""

    mean: float
    ci95: tuple[float, float] | None

    @classmethod
    def of(cls, figures: Figures, base: Figures, name: str) -> Ratio:
        logs = np.log(figures.ratio(base, name))
        ends = interval(logs)
        return cls(math.exp(logs.mean()), None if ends is None else (math.exp(ends[0]), math.exp(ends[1])))

    @property
    def is_gain(self) -> bool:
        """Less by MIN_GAIN or more, and that is no accident."""
        return self.mean <= 1 - MIN_GAIN and (self.ci95 is None or self.ci95[1] < 1)


def interval(values: Doubles) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for one value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


@dataclass(frozen=True, eq=False)
class Study:
    """One log, one engine, one predictor (`guess`)."""

    log: Workload
    guess: Guess
    config: StudyConfig
    told: Progress = lambda told: None

    def draw(self, seed: int) -> Workload:
        """The log itself for seed 0 (or a stretch of it), else one that is drawn from it, at the load asked for."""
        rng = np.random.default_rng([seed, 1])
        num = min(len(self.log), self.config.max_requests)
        drawn = resampled(self.log, num, rng) if seed else stretch(self.log, num, rng)
        drawn = drawn.arriving(drawn.arrival_s - drawn.arrival_s[0])
        return drawn if self.config.load is None else at_load(drawn, self.config.load, self.config.engine)

    def compare(self, names: Sequence[str], guess: Guess | None = None) -> dict[str, Figures]:
        """Every policy on the same draws, with the same estimates."""
        found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        for seed in range(self.config.num_seeds):
            workload = self.draw(seed)
            estimates = (guess or self.guess)(workload, np.random.default_rng([seed, 2]))
            for name in names:
                self.told(f"{name}, draw {seed + 1} of {self.config.num_seeds}")
                for figure, value in run(name, workload, estimates, self.config.engine).items():
                    found[name].setdefault(figure, []).append(value)
        return {
            name: Figures({key: np.array(values) for key, values in columns.items()}) for name, columns in found.items()
        }

    def tau(self) -> float:
        """Kendall's tau of the predictor on the first draw."""
        workload = self.draw(0)
        return kendall_tau(self.guess(workload, np.random.default_rng([0, 2])), workload.output_tokens)

    def loads(self) -> list[float]:
        return [load_of(self.draw(seed), self.config.engine) for seed in range(self.config.num_seeds)]

    def by_load(self, name: str, loads: Sequence[float] = LOADS) -> dict[float, Ratio]:
        """Mean latency by arrival order's, at other loads."""
        return {load: replace(self, config=replace(self.config, load=load))._ratio(name, self.guess) for load in loads}

    def by_tau(self, name: str, taus: Sequence[float] = TAUS) -> dict[float, Ratio]:
        """Mean latency by arrival order's, with predictors of another quality."""
        return {tau: self._ratio(name, guess_of_tau(tau)) for tau in taus}

    def _ratio(self, name: str, guess: Guess) -> Ratio:
        found = self.compare([BASE, name], guess)
        return Ratio.of(found[name], found[BASE], "mean_latency_s")


def run(name: str, workload: Workload, estimates: LengthEstimates, engine: EngineModel) -> dict[str, float]:
    """One policy's figures on one workload."""
    chosen = policy(name)
    model = chosen.on(engine)
    return simulate(workload, estimates, chosen.make(model), model).figures()


def guess_exactly(workload: Workload, rng: np.random.Generator) -> LengthEstimates:
    return exact(workload.output_tokens)


def guess_nothing(workload: Workload, rng: np.random.Generator) -> LengthEstimates:
    return LengthEstimates.unknown(len(workload))


def guess_of_tau(tau: float) -> Guess:
    return lambda workload, rng: of_tau(workload.output_tokens, tau, rng)


def starts_to_pay(ratios: dict[float, Ratio]) -> float | None:
    """The lowest from which on all gain; None where the highest does not."""
    found = None
    for level in sorted(ratios, reverse=True):
        if not ratios[level].is_gain:
            break
        found = level
    return found


@dataclass(frozen=True)
class Verdict:
    """What is advised. `name` is the policy with the lowest mean latency of those whose tail stays near arrival
    order's, None where there is none but arrival order itself."""

    name: str | None
    ratio: Ratio
    p99_ratio: Ratio

    @property
    def is_gain(self) -> bool:
        return self.name is not None and self.ratio.is_gain


def verdict(found: dict[str, Figures]) -> Verdict:
    base = found[BASE]
    ratios = {name: Ratio.of(figures, base, "mean_latency_s") for name, figures in found.items()}
    tails = {name: Ratio.of(figures, base, "p99_latency_s") for name, figures in found.items()}
    safe = [name for name in found if name != BASE and tails[name].mean <= MAX_P99_RATIO]
    if not safe:
        return Verdict(None, ratios[BASE], tails[BASE])
    best = min(safe, key=lambda name: ratios[name].mean)
    return Verdict(best, ratios[best], tails[best])
