"""What a window over the input costs: the time of a whole job, simulated, by how many requests may wait at once.

    python benchmarks/window.py [requests] [seeds]      # 16384 5

Lengths like those of chat answers, a predictor that is off by a log-normal factor of sigma 0.5, the default scheduler,
the replay engine's own clock. Says each window's time over that of a job whose requests are all read before the first
starts: median and range over the seeds. Ends with one JSON line.
"""

from __future__ import annotations

import json
import statistics
import sys

import lengthwise
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.testing import NoisyOracle, recorded_lengths
from lengthwise.types import Capabilities, Request

WINDOWS = (256, 1024, 4096, 8192, 32768)
ROWS = (64, 256)
SIGMA = 0.5


def makespan_s(lengths: dict[str, int], max_rows: int, window: int | None, seed: int) -> float:
    engine = ReplayEngine(lengths, ReplayConfig(Capabilities(max_running=max_rows)))
    predictor = NoisyOracle(lengths, SIGMA, seed)
    with Pipeline(engine=engine, predictor=predictor, window=window, clock=engine.clock) as pipeline:
        num_answers = sum(1 for _ in pipeline.stream(Request(name, "prompt") for name in lengths))
    assert num_answers == len(lengths)
    return engine.now_s


def main(num_requests: str = "16384", num_seeds: str = "5") -> None:
    samples: dict[str, list[float]] = {}
    for seed in range(int(num_seeds)):
        lengths = recorded_lengths(int(num_requests), seed)
        for max_rows in ROWS:
            whole_s = makespan_s(lengths, max_rows, None, seed)
            for window in WINDOWS:
                ratio = makespan_s(lengths, max_rows, window, seed) / whole_s
                samples.setdefault(f"{max_rows} rows, window {window}", []).append(round(ratio, 4))
    for name, ratios in samples.items():
        print(f"{name}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    workload = {"requests": int(num_requests), "seeds": int(num_seeds), "sigma": SIGMA}
    print(json.dumps({"bench": "window", "version": lengthwise.__version__, "workload": workload, "ratios": samples}))


if __name__ == "__main__":
    main(*sys.argv[1:])
