"""The program that the tests kill: a job without a model, at a pace, which may be told where to die.

    python killed_job.py '{"prompts": ..., "answers": ..., "starts": ..., "fault": ["tear-journal", 7], ...}'

Each request's first start in this process is a line in the file `starts`. Faults happen at their nth occasion:
`tear-journal` and `tear-answers` in the middle of a line, `before-rename`, `after-rename`, and `sync` before a flush.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.jobs import Job, JobOptions
from lengthwise.pipeline import Pipeline
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.testing import NoisyOracle
from lengthwise.types import Capabilities

MAX_RUNNING = 8
NUM_LENGTHS = 1000


class LoggingEngine(ReplayEngine):
    def __init__(self, lengths: dict[str, int], config: ReplayConfig, starts: Path) -> None:
        super().__init__(lengths, config)
        self._starts = os.open(starts, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._seen: set[str] = set()
        self._write = os.write  # before it is made to fail

    def start(self, request: Any, *rest: Any) -> None:
        if request.id not in self._seen:
            self._seen.add(request.id)
            self._write(self._starts, f"{request.id}\n".encode())
        super().start(request, *rest)


class Death:
    """The process kills itself, as `kill -9` does, at the nth occasion."""

    def __init__(self, occasion: int) -> None:
        self._num_left = occasion

    def is_now(self) -> bool:
        self._num_left -= 1
        return self._num_left == 0

    def come(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(self, act: Callable[..., None]) -> Callable[..., None]:
        def die_or_act(*arguments: Any) -> None:
            if self.is_now():
                self.come()
            act(*arguments)

        return die_or_act

    def after(self, act: Callable[..., None]) -> Callable[..., None]:
        def act_and_die(*arguments: Any) -> None:
            act(*arguments)
            if self.is_now():
                self.come()

        return act_and_die

    def amid(self, write: Callable[..., int]) -> Callable[..., int]:
        """Half of a line of JSON is written."""

        def torn(descriptor: int, data: bytes, *offset: int) -> int:
            if data.startswith(b"{") and self.is_now():
                write(descriptor, data[: len(data) // 2], *offset)
                self.come()
            return write(descriptor, data, *offset)

        return torn


def arm(fault: str, occasion: int) -> None:
    death = Death(occasion)
    if fault == "tear-journal":
        os.pwrite = death.amid(os.pwrite)
    elif fault == "tear-answers":
        os.write = death.amid(os.write)
    elif fault == "sync":
        os.fsync = death.before(os.fsync)
    else:
        os.replace = {"before-rename": death.before, "after-rename": death.after}[fault](os.replace)


def main(settings: dict[str, Any]) -> None:
    options = JobOptions(Path(settings["prompts"]), Path(settings["answers"]), as_completed=settings["as_completed"])
    lengths = {f"r{i}": 1 + i * 37 % 60 for i in range(NUM_LENGTHS)}
    config = ReplayConfig(Capabilities(max_running=MAX_RUNNING), step_fixed_s=settings["step_s"], is_paced=True)
    engine = LoggingEngine(lengths, config, Path(settings["starts"]))
    scheduler = ArrivalScheduler(MAX_RUNNING)
    if settings["fault"] is not None:
        arm(*settings["fault"])
    with (
        Job.open(options) as job,
        Pipeline(engine=engine, predictor=NoisyOracle(lengths, 0.5), scheduler=scheduler, window=32) as pipeline,
    ):
        job.run(pipeline)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
