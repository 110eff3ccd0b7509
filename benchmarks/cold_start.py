"""What a job teaches itself: how good it gets by how many answers, and what that is worth.

    python benchmarks/cold_start.py LENGTHS [requests] [seeds]     # alpaca-vicuna/train.jsonl 4000 3
    python benchmarks/cold_start.py MODEL_FOLDER [requests] [seeds]

With recorded lengths the replay engine's own clock is read: 64 rows, key/value memory for 64 whole answers or for 16.
First what is learned when 100, 200, 400, 800 answers have ended, scored on requests that are not in the job: from all
that was started ("at least" where an answer goes on), and from what is finished alone. `level` is the median of
predicted over true lengths. Then the time of the job: in arrival order, learning as it goes on, with what was learned
beforehand from other rows, and with true lengths. With a folder (a copy of the bundled model, which the shipped
predictor doesn't know) the bundled prompts are answered in the memory of 16 whole answers, on a processor, and its
time is read, which other programs don't change. Ends with one JSON line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import lengthwise
from lengthwise.bundled import PROMPTS_FILE
from lengthwise.cli.bench_inputs import read_requests
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.learning.data import LengthData, read_data
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.cold_start.cohort import Examples
from lengthwise.predictors.cold_start.predictor import ColdStartPredictor
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.protocols import LengthPredictor
from lengthwise.types import Capabilities, Completion

ROWS, LIMIT, WINDOW = 64, 512, 4096
MEMORIES = (64, 16)  # whole answers
POINTS = (100, 200, 400, 800)
NUM_OTHERS = 2_000  # requests that are not in the job

Found = dict[str, list[float]]


class Watched(ColdStartPredictor):
    """Learns nothing, and keeps what it could have learned from."""

    def learn(self, written: Callable[[], Mapping[str, int]] | None) -> bool:
        assert written is not None
        num_ended, points = self._cohort.num_ended, getattr(self, "points", {})
        for point in POINTS:
            if num_ended >= point and point not in points:
                points[point] = self._cohort.by_progress(written())
        self.points: dict[int, Examples] = points
        return False


def replayed(data: LengthData, predictor: LengthPredictor | str, num_whole: int) -> float:
    """Seconds of the job, by the engine's clock."""
    lengths = {request.id: int(length) for request, length in zip(data.requests, data.lengths[:, 0], strict=True)}
    longest_prompt = max(1 + len(request.text) // 4 for request in data.requests)
    capabilities = Capabilities(max_running=ROWS, kv_tokens=num_whole * (longest_prompt + LIMIT))
    engine = ReplayEngine(lengths, ReplayConfig(capabilities))
    with Pipeline(engine=engine, predictor=predictor, window=WINDOW, clock=engine.clock) as pipeline:
        assert sum(1 for _ in pipeline.stream(data.requests)) == len(data)
    return engine.now_s


def score_points(job: LengthData, others: LengthData, seed: int, found: Found) -> None:
    """What could have been learned at each of POINTS."""
    watched = Watched("replay", seed=seed)
    replayed(job, watched, MEMORIES[0])
    for point, examples in watched.points.items():
        is_finished = ~examples.is_censored | (examples.lengths >= LIMIT)
        for name, seen in {"all started": examples, "finished alone": examples[np.flatnonzero(is_finished)]}.items():
            learned = TextPredictor.fit(seen.requests, seen.lengths, seen.is_censored, model=None, seed=seed)
            predicted, true = np.minimum(learned.predict(others.requests).median, LIMIT), others.lengths[:, 0]
            figures = {
                "tau": kendalltau(predicted, true)[0],
                "level": float(np.median(predicted / true)),
                "mae": float(np.abs(predicted - true).mean()),
            }
            for figure, value in figures.items():
                found.setdefault(f"{point} answers, {name}: {figure}", []).append(round(float(value), 3))


def time_jobs(job: LengthData, others: LengthData, seed: int, found: Found) -> None:
    true = OraclePredictor(
        dict(zip((one.id for one in job.requests), job.lengths[:, 0].astype(int).tolist(), strict=True))
    )
    trained = TextPredictor.fit(others.requests, others.lengths[:, 0], others.is_cut[:, 0], model=None, seed=seed)
    for num_whole in MEMORIES:
        base_s = replayed(job, "none", num_whole)
        ways: dict[str, LengthPredictor | str] = {"learning": "auto", "trained before": trained, "true lengths": true}
        for name, predictor in ways.items():
            gain = base_s / replayed(job, predictor, num_whole)
            found.setdefault(f"memory for {num_whole}, {name}: gain", []).append(round(gain, 4))


def replay(source: Path, num_requests: int, num_seeds: int) -> Found:
    data, found = read_data(source), Found()
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        sample = rng.integers(data.num_samples)
        drawn = data[rng.permutation(len(data))[: num_requests + NUM_OTHERS]]
        one = LengthData(drawn.requests, drawn.lengths[:, [sample]], drawn.is_cut[:, [sample]], drawn.limit)
        job, others = one[:num_requests], one[num_requests:]
        score_points(job, others, seed, found)
        time_jobs(job, others, seed, found)
    return found


def answer(folder: Path, num_requests: int, num_seeds: int) -> Found:
    """The bundled prompts, answered by a model of which nothing is known beforehand."""
    requests = read_requests(PROMPTS_FILE, num_requests)
    found, known_model = Found(), load_model(ModelOptions(str(folder)))
    loaded = replace(known_model, identity=f"cold:{known_model.identity}")  # the shipped predictor learned from it
    kv_tokens = MEMORIES[1] * (max(len(loaded.encode_prompt(request)) for request in requests) + LIMIT)

    def timed(predictor: LengthPredictor | str, seed: int) -> tuple[float, list[Completion]]:
        engine = TransformersEngine(loaded, Prompts(loaded, LIMIT), RowEngineConfig(4 * ROWS, kv_tokens))
        with Pipeline(engine=engine, predictor=predictor, window=WINDOW, seed=seed) as pipeline:
            started_s = time.process_time()
            answers = pipeline.run(requests)
            taken_s = time.process_time() - started_s
            if isinstance(pipeline.predictor, ColdStartPredictor):
                print(pipeline.predictor.report(), flush=True)
            return taken_s, answers

    for seed in range(num_seeds):
        base_s, known = timed("none", seed)
        print(f"arrival order: {base_s:.1f} s", flush=True)
        true = OraclePredictor({one.id: one.completion_tokens for one in known})
        for name, predictor in {"learning": "auto", "true lengths": true}.items():
            taken_s, answers = timed(predictor, seed)
            assert [one.text for one in answers] == [one.text for one in known], f"{name} changes an answer"
            found.setdefault(f"{name}: gain", []).append(round(base_s / taken_s, 4))
            print(f"{name}: {taken_s:.1f} s", flush=True)
    return found


def main(source: str, num_requests: str = "4000", num_seeds: str = "3") -> None:
    measure = answer if Path(source).is_dir() else replay
    found = measure(Path(source), int(num_requests), int(num_seeds))
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    workload = {"source": Path(source).name, "requests": int(num_requests), "seeds": int(num_seeds)}
    print(json.dumps({"bench": "cold_start", "version": lengthwise.__version__, "workload": workload, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
