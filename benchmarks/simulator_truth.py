"""Simulated against really run: the bundled model on its own prompts, cost measured beforehand on other prompts.

    python benchmarks/simulator_truth.py [number of prompts] [rounds] [slots] [load]

In each round, the steps of runs of as many other prompts (all at once, and as they come) are timed one by one, with
what is read of prompts that enter, and a line is fitted to them. Then each policy is run and simulated in turn, on the
same requests with their true lengths known: all at once in static batches and with rows refilled, and as they come
(Poisson arrivals at `load`). Right before and after everything that is timed, a few other requests tell how fast the
machine is; the cost is taken times what that has changed since the probe. Says for each way the medians over rounds of
real ÷ simulated, with that and without it, and ends with one line of JSON.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy.optimize import nnls

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli.bench_inputs import read_requests
from lengthwise.costs import StepCost
from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.probe import device_name
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.protocols import Scheduler
from lengthwise.simulation.arrivals import at_once, poisson
from lengthwise.simulation.guesses import exact
from lengthwise.simulation.load import at_load
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import policy
from lengthwise.simulation.simulator import simulate
from lengthwise.simulation.workload import Workload
from lengthwise.types import Request

LIMIT = 512
AT_ONCE = ("static-arrival", "static-grouped", "refill", "arrival", "shortest")
AS_THEY_COME = ("arrival", "shortest", "promise", "ratio")
BOUNDS = {"makespan_s": 0.05, "mean_latency_s": 0.05, "p99_latency_s": 0.10}
NUM_BESIDE = 48  # requests that tell the machine's pace: some two seconds

T = TypeVar("T")
Ratios = dict[str, list[float]]  # by figure, one a round


class Pass(NamedTuple):
    """A step: its rows, their tokens in the cache, those that were read for it (0: nothing entered)."""

    num_rows: int
    cached_tokens: int
    read_tokens: int
    seconds: float


class TimedEngine(TransformersEngine):
    """Notes what every step had to do, and how long it took."""

    def __init__(self, loaded: LoadedModel, slots: int) -> None:
        self.config = RowEngineConfig(slots)
        super().__init__(loaded, Prompts(loaded, LIMIT), self.config)
        self.passes: list[Pass] = []
        self._read_tokens, self._read_s = 0, 0.0

    def _enter(self) -> None:
        before = len(self._running)
        started_s = time.perf_counter()
        super()._enter()
        self._read_s += time.perf_counter() - started_s
        self._read_tokens += sum(len(row.prompt) + len(row.tokens) for row in self._running[before:])

    def _step(self) -> None:
        rows = len(self._running)
        tokens = sum(len(row.prompt) + len(row.tokens) for row in self._running)
        started_s = time.perf_counter()
        super()._step()
        taken_s = time.perf_counter() - started_s
        if rows:
            self.passes.append(Pass(rows, tokens, self._read_tokens, self._read_s + taken_s))
            self._read_tokens, self._read_s = 0, 0.0


class TimedFeed:
    """Hands a request over when its time has come."""

    def __init__(self, requests: Sequence[Request], arrival_s: Sequence[float]) -> None:
        self._left = list(zip(arrival_s, requests, strict=True))[::-1]
        self._started_s = time.monotonic()
        self.idle_s = 0.0  # in which nothing was there to be done

    def take(self, num: int, may_wait: bool) -> list[Request] | None:
        if not self._left:
            return None
        if may_wait:
            before_s = self.now_s
            time.sleep(max(0.0, self._left[-1][0] - before_s))
            self.idle_s += self.now_s - before_s
        come: list[Request] = []
        while self._left and len(come) < num and self._left[-1][0] <= self.now_s:
            come.append(self._left.pop()[1])
        return come

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._started_s


def run(
    engine: TimedEngine,
    scheduler: Scheduler,
    requests: Sequence[Request],
    arrival_s: np.ndarray,
    lengths: dict[str, int] | None,
) -> tuple[dict[str, float], dict[str, int]]:
    """Figures of a real run (`idle_s`: nothing was there), and lengths by id. `lengths`: what is known of them."""
    at_s = {request.id: at for request, at in zip(requests, arrival_s.tolist(), strict=True)}
    known = "none" if lengths is None else OraclePredictor(lengths)
    with Pipeline(engine=engine, predictor=known, scheduler=scheduler, window=len(requests)) as one:
        feed = TimedFeed(requests, arrival_s.tolist())
        ended = [(answer, feed.now_s) for answer in one.stream(feed)]
    latency_s = np.array([now_s - at_s[answer.id] for answer, now_s in ended])
    figures = {
        "makespan_s": max(now_s for _, now_s in ended) - float(arrival_s[0]),
        "mean_latency_s": float(latency_s.mean()),
        "p99_latency_s": float(np.quantile(latency_s, 0.99)),
        "idle_s": feed.idle_s,
    }
    return figures, {answer.id: answer.completion_tokens for answer, _ in ended}


class Probing(NamedTuple):
    """A run that was timed: its passes, and the seconds in which requests were there and no pass ran."""

    passes: list[Pass]
    beside_s: float


def fitted(runs: Sequence[Probing]) -> StepCost:
    """Least squares of relative deviations, no term below 0, scaled such that they add up to all the seconds of passes.
    What was spent beside them is shared out among steps and those that began with rows that entered."""
    passes = [one for run in runs for one in run.passes]
    rows, cached, read, seconds = (np.array(column, float) for column in zip(*passes, strict=True))
    terms = np.stack([np.ones_like(rows), rows, cached, np.minimum(read, 1.0), read], axis=1)
    shares = nnls(terms / seconds[:, None], np.ones_like(seconds))[0]
    fixed_s, row_s, context_s, read_fixed_s, read_token_s = (shares * seconds.sum() / (terms @ shares).sum()).tolist()
    num = np.array([(len(run.passes), sum(one.read_tokens > 0 for one in run.passes)) for run in runs], float)
    beside_s = np.array([run.beside_s for run in runs])
    of_step_s, of_entry_s = nnls(num / beside_s[:, None], np.ones_like(beside_s))[0].tolist()
    return StepCost(fixed_s + of_step_s, row_s, context_s, read_fixed_s + of_entry_s, read_token_s)


def probed(loaded: LoadedModel, requests: Sequence[Request], slots: int, load: float) -> StepCost:
    """From a run in which rows are refilled, a run in static batches, so that every number of rows was seen, and one in
    which requests come one by one, each with a decision of its own."""
    model, once = EngineModel(slots, memory="reserve"), at_once(len(requests))
    runs: list[Probing] = []

    def timed(name: str, arrival_s: np.ndarray) -> dict[str, int]:
        engine = TimedEngine(loaded, slots)
        figures, lengths = run(engine, policy(name).make(model), requests, arrival_s, None)
        beside_s = figures["makespan_s"] - figures["idle_s"] - sum(one.seconds for one in engine.passes)
        runs.append(Probing(engine.passes, beside_s))
        return lengths

    timed("static-arrival", once)
    lengths = timed("refill", once)
    work = workload(loaded, requests, lengths)
    timed("arrival", as_they_come(work, load, replace(model, cost=fitted(runs)), seed=1).arrival_s)
    return fitted(runs)


def workload(loaded: LoadedModel, requests: Sequence[Request], lengths: dict[str, int]) -> Workload:
    """All at once."""
    prompt_tokens = np.array([len(loaded.encode_prompt(request)) for request in requests])
    output_tokens = np.array([lengths[request.id] for request in requests])
    return Workload.of(at_once(len(requests)), prompt_tokens, output_tokens, LIMIT)


def as_they_come(work: Workload, load: float, model: EngineModel, seed: int) -> Workload:
    drawn = work.arriving(poisson(len(work), 1.0, np.random.default_rng(seed)))
    return at_load(drawn.arriving(drawn.arrival_s - drawn.arrival_s[0]), load, model)


class Machine:
    """How fast it is just now: seconds that a few requests take, right before and after what is measured. Other
    programs change that within minutes, and near a full load waiting answers a few per cent of speed with tens."""

    def __init__(self, loaded: LoadedModel, requests: Sequence[Request], slots: int) -> None:
        self._loaded, self._requests, self._slots = loaded, requests, slots
        self._last_s = self._measured_s()

    def beside(self, work: Callable[[], T]) -> tuple[T, float]:
        """What the work gives, and the pace beside it."""
        before_s, done = self._last_s, work()
        self._last_s = self._measured_s()
        return done, math.sqrt(before_s * self._last_s)

    def _measured_s(self) -> float:
        engine, scheduler = TimedEngine(self._loaded, self._slots), policy("refill").make(EngineModel(self._slots))
        return run(engine, scheduler, self._requests, at_once(len(self._requests)), None)[0]["makespan_s"]


def at_pace(cost: StepCost, factor: float) -> StepCost:
    seconds = {name: value * factor for name, value in cost.to_json().items() if name.endswith("_s")}
    return replace(cost, **seconds)


def main(num_prompts: str = "300", num_rounds: str = "3", slots: str = "16", load: str = "0.8") -> None:
    loaded, rows = load_model(ModelOptions()), int(slots)
    prompts = read_requests(PROMPTS_FILE, 2 * int(num_prompts))
    others, requests = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
    probed(loaded, others[:32], rows, float(load))  # the first pass through a model is slower
    machine = Machine(loaded, others[:NUM_BESIDE], rows)
    cost, probe_s = machine.beside(lambda: probed(loaded, others, rows, float(load)))
    once = at_once(len(requests))
    _, lengths = run(TimedEngine(loaded, rows), policy("refill").make(EngineModel(rows)), requests, once, None)
    work = workload(loaded, requests, lengths)
    loaded_work = as_they_come(work, float(load), EngineModel(rows, memory="reserve", cost=cost), seed=0)
    ways: list[tuple[str, str, Workload]] = [("at once", name, work) for name in AT_ONCE]
    ways += [(f"load {load}", name, loaded_work) for name in AS_THEY_COME]
    found: dict[str, Ratios] = {f"{name}, {when}": defaultdict(list) for when, name, _ in ways}
    unpaced: dict[str, Ratios] = {f"{name}, {when}": defaultdict(list) for when, name, _ in ways}
    for number in range(int(num_rounds)):
        if number:
            cost, probe_s = machine.beside(lambda: probed(loaded, others, rows, float(load)))
        print(f"cost: {cost.to_json()}", flush=True)
        shift = number % len(ways)
        for when, name, traffic in [*ways[shift:], *ways[:shift]]:
            way = f"{name}, {when}"

            def simulated(cost: StepCost, name: str = name, traffic: Workload = traffic) -> Mapping[str, float]:
                model = EngineModel(rows, memory="reserve", cost=cost)
                return simulate(traffic, exact(traffic.output_tokens), policy(name).make(model), model).figures()

            def really(name: str = name, traffic: Workload = traffic) -> Mapping[str, float]:
                scheduler = policy(name).make(EngineModel(rows, memory="reserve"))
                return run(TimedEngine(loaded, rows), scheduler, requests, traffic.arrival_s, lengths)[0]

            real, beside_s = machine.beside(really)
            told, raw = simulated(at_pace(cost, beside_s / probe_s)), simulated(cost)
            for figure in BOUNDS:
                found[way][figure].append(real[figure] / told[figure])
                unpaced[way][figure].append(real[figure] / raw[figure])
            seen = ", ".join(f"{key} {real[key]:.3f} s real, {told[key]:.3f} s simulated" for key in BOUNDS)
            print(f"round {number + 1}: {way}: {seen}; pace {beside_s / probe_s:.3f}", flush=True)
    say("real ÷ simulated", found)
    say("without the machine's pace", unpaced)
    device = device_name(loaded.device)
    about = {"slots": rows, "num_prompts": len(requests), "device": device, "torch": torch.__version__}
    ratios = {"real_by_simulated": found, "without_pace": unpaced}
    print(json.dumps({**ratios, "cost": cost.to_json(), "bounds": BOUNDS, **about}))


def say(title: str, found: Mapping[str, Ratios]) -> None:
    print(f"| {title} | " + " | ".join(BOUNDS) + " |\n| " + " | ".join(["---"] * (len(BOUNDS) + 1)) + " |")
    for name, ratios in found.items():
        cells = []
        for figure, bound in BOUNDS.items():
            median = statistics.median(ratios[figure])
            cells.append(f"{median:.3f}{'' if abs(median - 1) <= bound else ' (out of bounds)'}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
