"""One stage of a cell, in a process of its own: `python -m lengthwise.benchmarks.perception.worker STAGE CELL FOLDER
OUT`. Its peak of memory is then the stage's own, and nothing that a kind leaves behind reaches the next one.

CELL is the cell as JSON, FOLDER where its predictor stands, OUT the file that the result is written to.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.benchmarks.kept import write_whole
from lengthwise.benchmarks.perception.cells import Cell, open_model
from lengthwise.errors import LengthwiseError
from lengthwise.learning.labels import Target, label_one
from lengthwise.learning.scoring import ScoreConfig, Scored, compare, figures_of, score
from lengthwise.learning.scoring_memory import Added, peak_mib
from lengthwise.learning.seen import digests_of, num_seen, remember, remembered
from lengthwise.learning.training import TrainConfig
from lengthwise.learning.training import train as fit
from lengthwise.predictors.saved import load_folder

SCORE_SEED = 0  # of drawn answers and prompts: the same for all cells, so that their draws can be compared
NUM_DRAWS = 500
DRAWN = ("mae", "acc_50", "acc_100", "kendall_tau", "failure_ratio", "pinball", "coverage_90", "below_90", "above_90")

Stage = Callable[[Cell, Path], dict[str, Any]]


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train and save: seconds, also of processor time, the process's peak of memory, bytes on disk. Loading the
    language model is not counted."""
    data = cell.train.read()
    backbone = None if cell.model_name is None else open_model(cell.model_name)
    model = None if backbone is None else backbone.model
    config = TrainConfig(seed=cell.seed, model=model, backbone=backbone, settings=dict(cell.settings))
    started_s, started_cpu_s = time.perf_counter(), _cpu_s()
    predictor: Any = fit(cell.kind, data, Target(cell.target), config)
    train_s, train_cpu_s = time.perf_counter() - started_s, _cpu_s() - started_cpu_s
    predictor.save(folder)
    remember(folder, digests_of(data.requests))
    disk_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "train_s": round(train_s, 2),
        "train_cpu_s": round(train_cpu_s, 2),
        "train_peak_mib": _rounded(peak_mib()),
        "disk_bytes": disk_bytes,
    }


def measure(cell: Cell, folder: Path) -> dict[str, Any]:
    """Load, predict and score: the figures of `lengthwise score`, what loading and predicting adds to the memory, and
    what the main figures are for NUM_DRAWS samples of prompts, drawn alike for all cells."""
    learned, data, target = cell.train.read(), cell.test.read(), Target(cell.target)
    backbone = None if cell.model_name is None else open_model(cell.model_name)
    labels = label_one(data, target, SCORE_SEED)
    added = Added()
    with added.counted():
        predictor = load_folder(folder, backbone)
        estimates = predictor.predict(labels.requests)
    draws = _draws(compare(estimates, labels, data.limit))
    found = score(predictor, data, target, learned=learned, config=ScoreConfig(seed=SCORE_SEED))
    digests = remembered(folder)
    return {
        **found.to_json(),
        "num_seen": None if digests is None else num_seen(digests, data.requests),
        "memory_mib": _rounded(added.mib),
        "draws": draws,
    }


def _draws(scored: Scored) -> dict[str, list[float | None]]:
    num, rng = len(scored.labels), np.random.default_rng(SCORE_SEED)
    drawn = [figures_of(scored, rng.integers(0, num, num)) for _ in range(NUM_DRAWS)]
    return {name: [_rounded(one[name], 5) for one in drawn] for name in DRAWN}


def _cpu_s() -> float:
    """Of this process and of those that it started and that have ended: other programs take no part in it."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, digits)


STAGES: dict[str, Stage] = {"train": train, "measure": measure}


def main(arguments: list[str]) -> int:
    stage, cell, folder, out = arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        result = STAGES[stage](Cell.from_json(json.loads(cell)), Path(folder))
    except LengthwiseError as error:
        print(error, file=sys.stderr)
        return 1
    write_whole(Path(out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
