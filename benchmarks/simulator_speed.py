"""How many requests a second the simulator gets through on one core, by the processor's time.

    python benchmarks/simulator_speed.py [number of requests] [rounds]

64 slots, lengths like Vicuna-7B's (log-normal), a predictor of tau 0.6, the command's default cost; all at once and
Poisson arrivals at two loads, in rounds that take the ways in turn. Estimates are made beforehand, as a study makes
them once for all its policies. Says medians over rounds, and ends with one line of JSON: raw samples, versions, and a
digest of what came out, which a change that is only about speed leaves as it is.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import sys
import time

import numpy as np

from lengthwise.simulation.arrivals import at_once, poisson
from lengthwise.simulation.guesses import of_tau
from lengthwise.simulation.load import at_load
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import policy
from lengthwise.simulation.simulator import simulate
from lengthwise.simulation.workload import Workload

SLOTS, SEED, TAU = 64, 0, 0.6
NAMES = ("arrival", "shortest", "promise", "ratio", "gittins")
LOADS = (0.5, 0.9, 1.1)


def workloads(num: int, model: EngineModel) -> dict[str, Workload]:
    rng = np.random.default_rng(SEED)
    lengths = np.clip(rng.lognormal(4.5, 0.85, num), 1, 512).astype(np.int64)
    once = Workload.of(at_once(num), rng.integers(10, 60, num), lengths, 512)
    random = once.arriving(poisson(num, 1.0, rng))
    return {"all at once": once} | {f"Poisson, load {load}": at_load(random, load, model) for load in LOADS}


def main(num_requests: str = "20000", num_rounds: str = "5") -> None:
    num, model = int(num_requests), EngineModel(SLOTS)
    found = workloads(num, model)
    estimates = of_tau(found["all at once"].output_tokens, TAU, np.random.default_rng(SEED + 1))
    rates: dict[str, list[float]] = {}
    digest = hashlib.sha256()
    for number in range(int(num_rounds)):
        for when, work in found.items():
            for name in NAMES:
                started_s = time.process_time()
                outcome = simulate(work, estimates, policy(name).make(model), model)
                rates.setdefault(f"{name}, {when}", []).append(num / (time.process_time() - started_s))
                if not number:
                    digest.update(outcome.start_s.tobytes() + outcome.end_s.tobytes())
    print("| requests/s | median | slowest | fastest |\n| --- | --- | --- | --- |")
    for way, samples in rates.items():
        cells = (statistics.median(samples), min(samples), max(samples))
        print(f"| {way} | {' | '.join(f'{cell:,.0f}' for cell in cells)} |")
    about = {"num_requests": num, "slots": SLOTS, "seed": SEED, "tau": TAU, "outcomes_sha256": digest.hexdigest()}
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    print(json.dumps({"requests_per_s": rates, **about, **versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
