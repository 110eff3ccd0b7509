"""Simulated against really run: the bundled model on its own prompts, cost measured beforehand on other prompts.

    python benchmarks/simulator_truth.py [number of prompts] [rounds] [slots] [load]

In each round, the steps of runs of as many other prompts (all at once, and as they come) are timed one by one, with
what is read of prompts that enter, and a line is fitted to them. Then each policy is run and simulated in turn, on the
same requests with their true lengths known: all at once in static batches and with rows refilled, and as they come
(Poisson arrivals at `load`). Says for each the medians over rounds of real ÷ simulated, and ends with one line of JSON.
On a machine that others use, speed changes from run to run, and near a full load waiting answers a few per cent of it
with tens: a second table takes the cost times what the run's own passes took of it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

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


class Timed(NamedTuple):
    """A run: its passes, and the seconds in which requests were there and no pass ran."""

    passes: list[Pass]
    beside_s: float


def fitted(runs: Sequence[Timed], beside_step_s: float) -> StepCost:
    """Least squares of relative deviations, no term below 0, scaled such that they add up to all the seconds of passes;
    and what is spent beside a step."""
    passes = [one for run in runs for one in run.passes]
    rows, cached, read, seconds = (np.array(column, float) for column in zip(*passes, strict=True))
    terms = np.stack([np.ones_like(rows), rows, cached, np.minimum(read, 1.0), read], axis=1)
    shares = nnls(terms / seconds[:, None], np.ones_like(seconds))[0]
    fixed_s, row_s, context_s, read_fixed_s, read_token_s = (shares * seconds.sum() / (terms @ shares).sum()).tolist()
    return StepCost(fixed_s + beside_step_s, row_s, context_s, read_fixed_s, read_token_s)


def probed(loaded: LoadedModel, requests: Sequence[Request], slots: int, load: float) -> EngineModel:
    """From a run in static batches and one in which rows are refilled, so that every number of rows was seen, and from
    one in which requests come one by one, which says what taking one in costs, beside passes and by slowing them."""
    model, once = EngineModel(slots, memory="reserve"), at_once(len(requests))

    def timed(name: str, arrival_s: np.ndarray) -> tuple[Timed, dict[str, int]]:
        engine = TimedEngine(loaded, slots)
        figures, lengths = run(engine, policy(name).make(model), requests, arrival_s, None)
        beside_s = figures["makespan_s"] - figures["idle_s"] - sum(one.seconds for one in engine.passes)
        return Timed(engine.passes, beside_s), lengths

    static, lengths = timed("static-arrival", once)
    refilled, _ = timed("refill", once)
    beside_step_s = (static.beside_s + refilled.beside_s) / (len(static.passes) + len(refilled.passes))
    model = replace(model, cost=fitted([static, refilled], beside_step_s))
    live, _ = timed("arrival", as_they_come(workload(loaded, requests, lengths), load, model, seed=1).arrival_s)
    cost = fitted([static, refilled, live], beside_step_s)
    more_s = live.beside_s + sum(one.seconds for one in live.passes) - foretold_s(live.passes, cost)
    return replace(model, intake_s=max(0.0, more_s) / len(requests), cost=cost)


def foretold_s(passes: Sequence[Pass], cost: StepCost) -> float:
    steps_s = sum(cost.step_s(one.num_rows, one.cached_tokens) for one in passes)
    return steps_s + sum(cost.read_s(one.read_tokens) for one in passes if one.read_tokens)


def workload(loaded: LoadedModel, requests: Sequence[Request], lengths: dict[str, int]) -> Workload:
    """All at once."""
    prompt_tokens = np.array([len(loaded.encode_prompt(request)) for request in requests])
    output_tokens = np.array([lengths[request.id] for request in requests])
    return Workload.of(at_once(len(requests)), prompt_tokens, output_tokens, LIMIT)


def as_they_come(work: Workload, load: float, model: EngineModel, seed: int) -> Workload:
    drawn = work.arriving(poisson(len(work), 1.0, np.random.default_rng(seed)))
    return at_load(drawn.arriving(drawn.arrival_s - drawn.arrival_s[0]), load, model)


def pace(passes: Sequence[Pass], busy_s: float, model: EngineModel, num_intakes: int) -> float:
    """How many times as long a run took as the model says of its very passes: the machine's speed since the probe, and
    the cost's own error, apart from what the simulator makes of both."""
    return busy_s / (foretold_s(passes, model.cost) + model.intake_s * num_intakes)


def at_pace(model: EngineModel, factor: float) -> EngineModel:
    seconds = {name: value * factor for name, value in model.cost.to_json().items() if name.endswith("_s")}
    return replace(model, cost=replace(model.cost, **seconds), intake_s=model.intake_s * factor)


def main(num_prompts: str = "300", num_rounds: str = "3", slots: str = "16", load: str = "0.8") -> None:
    loaded, rows = load_model(ModelOptions()), int(slots)
    prompts = read_requests(PROMPTS_FILE, 2 * int(num_prompts))
    others, requests = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
    probed(loaded, others[:32], rows, float(load))  # the first pass through a model is slower
    model = probed(loaded, others, rows, float(load))
    once = at_once(len(requests))
    _, lengths = run(TimedEngine(loaded, rows), policy("refill").make(EngineModel(rows)), requests, once, None)
    work = workload(loaded, requests, lengths)
    ways = {f"{name}, at once": (name, work, 1) for name in AT_ONCE}
    come = as_they_come(work, float(load), model, seed=0)
    ways |= {f"{name}, load {load}": (name, come, len(requests)) for name in AS_THEY_COME}
    found: dict[str, Ratios] = {way: defaultdict(list) for way in ways}
    at_own_pace: dict[str, Ratios] = {way: defaultdict(list) for way in ways}
    for number in range(int(num_rounds)):
        if number:  # what a step takes drifts from round to round
            model = probed(loaded, others, rows, float(load))
        print(f"cost: {model.cost.to_json()}, intake {model.intake_s * 1e3:.2f} ms", flush=True)
        shift = number % len(ways)
        for way in [*list(ways)[shift:], *list(ways)[:shift]]:
            name, traffic, num_intakes = ways[way]
            engine = TimedEngine(loaded, rows)
            real, _ = run(engine, policy(name).make(model), requests, traffic.arrival_s, lengths)
            factor = pace(engine.passes, real["makespan_s"] - real["idle_s"], model, num_intakes)
            for seen, machine in ((found[way], model), (at_own_pace[way], at_pace(model, factor))):
                estimates = exact(traffic.output_tokens)
                foretold = simulate(traffic, estimates, policy(name).make(machine), machine).figures()
                for figure in BOUNDS:
                    seen[figure].append(real[figure] / foretold[figure])
            told = ", ".join(f"{key} {real[key]:.3f} s, {found[way][key][-1]:.3f} times simulated" for key in BOUNDS)
            print(f"round {number + 1}: {way}: {told}; pace {factor:.3f}", flush=True)
    say("real ÷ simulated", found)
    say("at the pace of each run's own passes", at_own_pace)
    about = {"slots": rows, "num_prompts": len(requests), "device": device_name(loaded.device)}
    engine_model = {"cost": model.cost.to_json(), "intake_s": model.intake_s, "torch": torch.__version__}
    tables = {"real_by_simulated": found, "at_own_pace": at_own_pace, "bounds": BOUNDS}
    print(json.dumps({**tables, **engine_model, **about}))


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
