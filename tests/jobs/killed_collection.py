"""The program that the tests of collections kill: no model, and told where to die; see `killed_job.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from lengthwise.jobs.collecting import CollectJob, CollectOptions
from lengthwise.pipeline import Pipeline
from tests.jobs.killed_job import arm
from tests.jobs.samples import WatchedEngine


def main(settings: dict[str, Any]) -> None:
    if settings["fault"]:
        arm(*settings["fault"])
    options = CollectOptions(
        Path(settings["prompts"]), Path(settings["answers"]), temperatures=(0.0, 0.5), num_samples=2
    )
    pipeline = Pipeline(engine=WatchedEngine(failing=["bad"]), predictor="none")
    with CollectJob.open(options) as job, pipeline:
        job.run(pipeline)


main(json.loads(sys.argv[1]))
