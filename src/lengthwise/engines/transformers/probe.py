"""What passes take on the device at hand, and how many rows are worth running at once: a short measurement, kept for
the next time.

One decode step is timed with 1, 2, 4, ... rows, through the same pass that the engine runs, until more rows give no
more tokens per second; then a few steps with fewer and more tokens a row, and a few readings of prompts. A small model
takes a second or two, a large one as long as some thirty of its steps.
"""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch

from lengthwise.costs import StepCost
from lengthwise.engines.transformers import probe_store
from lengthwise.engines.transformers.cost_fit import ReadSample, StepSample, fit_cost
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.pass_timer import PassTimer
from lengthwise.engines.transformers.probe_points import (
    MAX_MORE_S,
    Timed,
    context_points,
    is_plausible,
    measure,
    measure_points,
    read_points,
    without_contradictions,
)

log = logging.getLogger("lengthwise")

# Tokens that every row has while it is timed: what a decode step sees on average in answers like Vicuna-7B's to Alpaca
# prompts (sum of squared lengths over twice their sum: 108), with a prompt of 40.
CONTEXT_TOKENS = 150
# The fewest rows within 10 % of the best rate: memory and the time of one answer grow with rows, the rate hardly.
WORTH = 0.9
NUM_MORE_TRIES = 2  # where what was measured contradicts itself
# On a CPU, a measurement during which the process got less of one core than this was one of the other programs: it is
# used, not kept. (The main thread works all the time, so alone it gets a core or more. On a crowded machine a step of
# one row was seen to take 160 times as long; the bound itself is a choice.)
MIN_CPU_SHARE = 0.8
# Of what is kept: 5 has attention by a kernel. Other formats are not looked at.
FORMAT = 5


@dataclass(frozen=True)
class Probe:
    """What was measured. `samples`: (rows, seconds of a step) at `context_tokens` a row, both ascending, at least one.
    `is_exhausted`: more rows would have been measured, had the memory allowed them. `contexts`: steps with other
    tokens a row; `reads`: readings of so many prompts at once."""

    samples: tuple[tuple[int, float], ...]
    context_tokens: int
    is_exhausted: bool
    contexts: Timed = ()
    reads: Timed = ()

    def max_running(self, max_rows: int) -> int:
        """The fewest rows, at most `max_rows`, whose tokens per second are within 10 % of the best: by the fitted cost,
        since a single sample may be off by as much."""
        cost = self.step_cost
        rates = [
            (rows, rows / cost.step_s(rows, rows * self.context_tokens)) for rows, _ in self.samples if rows <= max_rows
        ]
        best = max((rate for _, rate in rates), default=0.0)
        return min((rows for rows, rate in rates if rate >= WORTH * best), default=1)

    def covers(self, max_rows: int) -> bool:
        """Whether measuring again, with room for `max_rows`, could tell more."""
        return not self.is_exhausted or self.samples[-1][0] >= max_rows

    @cached_property
    def step_cost(self) -> StepCost:
        steps = [StepSample(rows, rows * self.context_tokens, seconds) for rows, seconds in self.samples]
        steps += [StepSample(rows, rows * tokens, seconds) for rows, tokens, seconds in self.contexts]
        return fit_cost(steps, [ReadSample(rows * tokens, seconds) for rows, tokens, seconds in self.reads])


def probe(loaded: LoadedModel, max_rows: int) -> Probe:
    """The kept measurement for this model, device and software, or a new one, which is kept. At most `max_rows` rows
    of CONTEXT_TOKENS tokens are tried: what the memory has room for."""
    key = _key(loaded)
    kept = probe_store.read(key, from_json)
    if kept is not None and kept.covers(max_rows):
        return kept
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    found, agrees = _measured(loaded, max_rows)
    cpu_share = (time.process_time() - started_cpu_s) / (time.perf_counter() - started_s)
    if agrees and (loaded.device.type != "cpu" or cpu_share >= MIN_CPU_SHARE):
        probe_store.write(key, _to_json(found))
    else:
        log.warning("The device was busy with something else while it was measured: measuring again next time.")
    return found


def _measured(loaded: LoadedModel, max_rows: int) -> tuple[Probe, bool]:
    """What is found, and whether its samples agree with each other."""
    context_tokens = min(CONTEXT_TOKENS, loaded.context_tokens)
    with PassTimer(loaded, context_tokens, max_rows) as timer:
        samples, is_exhausted = measure(timer.step_s, max_rows)
        for _ in range(NUM_MORE_TRIES):
            if not is_plausible(samples):
                samples, is_exhausted = measure(timer.step_s, max_rows)
        found = Probe(without_contradictions(samples), context_tokens, is_exhausted)
        points = context_points(found.max_running(max_rows), timer.max_blocks, context_tokens, loaded.context_tokens)
        deadline_s = time.monotonic() + MAX_MORE_S
        contexts = measure_points(timer.step_s, points, deadline_s)
        reads = measure_points(timer.read_s, read_points(timer.max_blocks, loaded.context_tokens), deadline_s)
    return replace(found, contexts=contexts, reads=reads), is_plausible(samples)


# -- keeping ---------------------------------------------------------------------------------------------------


def software_key() -> dict[str, str | int]:
    """What of this package and torch a step's time depends on, and what is kept of it."""
    return {
        "probe_format": FORMAT,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "lengthwise": version("lengthwise"),
    }


def _key(loaded: LoadedModel) -> dict[str, str | int]:
    """All that a step's time depends on."""
    return {
        "model": loaded.identity,
        "dtype": str(loaded.model.dtype),
        "device": device_name(loaded.device),
        "device_map": str(getattr(loaded.model, "hf_device_map", "")),
        "context_tokens": min(CONTEXT_TOKENS, loaded.context_tokens),
        **software_key(),
    }


def device_name(device: torch.device) -> str:
    """`NVIDIA H100 80GB HBM3`, `Intel(R) Xeon(R) ...`: what makes a difference in speed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
    return f"{device.type} {platform.processor() or platform.machine()}"


def _to_json(found: Probe) -> dict[str, object]:
    return {
        "samples": [(rows, found.context_tokens, seconds) for rows, seconds in found.samples],
        "context_tokens": found.context_tokens,
        "is_exhausted": found.is_exhausted,
        "contexts": found.contexts,
        "reads": found.reads,
        "step_cost": found.step_cost.to_json(),
    }


def from_json(value: dict[str, object]) -> Probe:
    """Raises KeyError, TypeError or ValueError on anything that this file did not write."""
    context_tokens, is_exhausted = value["context_tokens"], value["is_exhausted"]
    if not isinstance(context_tokens, int) or not isinstance(is_exhausted, bool):
        raise TypeError("not a probe")
    samples = tuple((rows, seconds) for rows, _, seconds in _timed(value["samples"]))
    if not samples:
        raise ValueError("nothing was measured")
    return Probe(samples, context_tokens, is_exhausted, _timed(value["contexts"]), _timed(value["reads"]))


def _timed(raw: object) -> Timed:
    if not isinstance(raw, list):
        raise TypeError("not a list of passes")
    found = tuple((int(rows), int(tokens), float(seconds)) for rows, tokens, seconds in raw)
    if any(rows < 1 or tokens < 1 or not 0 < seconds < float("inf") for rows, tokens, seconds in found):
        raise ValueError("a pass out of range")
    return found
