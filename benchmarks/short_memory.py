"""What knowing lengths is worth where memory is short: bundled prompts in the key/value budget of 16 whole answers.

    python benchmarks/short_memory.py [number of prompts] [rounds]

Says the seconds of each way, in turn, and the medians of its gains over refilling with whole limits. The texts of all
must be the same.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli.bench_inputs import read_requests
from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.saved import resolve
from lengthwise.protocols import LengthPredictor, Scheduler
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.named import grouped, refill
from lengthwise.types import Completion

WHOLE_ANSWERS, MAX_ROWS, LIMIT = 16, 256, 512
REFERENCE = "refilled in arrival order, whole limits"


def default() -> Scheduler:
    return refill(makes_room=True)


Way = tuple[Callable[[], Scheduler], LengthPredictor | str]


def main(num_prompts: str = "1000", num_rounds: str = "3") -> None:
    requests = read_requests(PROMPTS_FILE, int(num_prompts))
    loaded = load_model(ModelOptions())
    longest_prompt = max(len(loaded.encode_prompt(request)) for request in requests)
    kv_tokens = WHOLE_ANSWERS * (longest_prompt + LIMIT)

    def answer(way: Way) -> tuple[float, list[Completion]]:
        make, predictor = way
        engine = TransformersEngine(loaded, Prompts(loaded, LIMIT), RowEngineConfig(MAX_ROWS, kv_tokens))
        with Pipeline(engine=engine, predictor=predictor, scheduler=make()) as pipeline:
            started_s = time.perf_counter()
            answers = pipeline.run(requests)
            return time.perf_counter() - started_s, answers

    learned = resolve("auto", loaded.identity)
    _, known = answer((refill, learned))
    ways: dict[str, Way] = {
        "static batches, arrival order": (lambda: ArrivalScheduler(MAX_ROWS), "none"),
        REFERENCE: (refill, "none"),
        "refilled, whole limits": (refill, learned),
        "sorted batches, cut and continued": (grouped, learned),
        "default": (default, learned),
        "true lengths": (default, OraclePredictor({one.id: one.completion_tokens for one in known})),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(int(num_rounds)):
        shift = number % len(ways)
        for name in [*list(ways)[shift:], *list(ways)[:shift]]:
            taken_s, answers = answer(ways[name])
            assert [one.text for one in answers] == [one.text for one in known], f"{name} changes an answer"
            seconds[name].append(taken_s)
            print(f"round {number + 1}: {name}: {taken_s:.1f} s", flush=True)
    for name, runs in seconds.items():
        gain = statistics.median(base / run for base, run in zip(seconds[REFERENCE], runs, strict=True))
        print(f"{name}: {gain:.2f}, {kv_tokens:,} key/value tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
