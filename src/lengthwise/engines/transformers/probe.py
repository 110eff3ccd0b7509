"""How many rows are worth running at once on the device at hand: a short measurement, kept for the next time.

One decode step is timed with 1, 2, 4, ... rows, through the same pass that the engine runs, until more rows give no
more tokens per second. A small model takes well under a second, a large one as long as some twenty of its steps.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from lengthwise.engines.transformers import probe_store
from lengthwise.engines.transformers.cache import num_blocks_for
from lengthwise.engines.transformers.engine import is_out_of_memory
from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.rows import Row
from lengthwise.engines.transformers.sampling import Sampler
from lengthwise.types import SamplingParams

log = logging.getLogger("lengthwise")

# Tokens that every row has while it is timed: what a decode step sees on average in answers like Vicuna-7B's to Alpaca
# prompts (sum of squared lengths over twice their sum: 108), with a prompt of 40.
CONTEXT_TOKENS = 150
MAX_ROWS = 1024
# The fewest rows within 10 % of the best rate: memory and the time of one answer grow with rows, the rate hardly.
WORTH = 0.9
# Two doublings in a row that give less than 10 % each end the measurement; one may be noise.
IMPROVEMENT = 1.1
# A count of rows is timed three times or more, for 30 ms, and the best counts (other programs only ever make a step
# slower); a step longer than 0.1 s is timed once. After 30 s (a large model on a CPU) what is known must do.
NUM_REPEATS = 3
REPEAT_S = 0.03
LONG_STEP_S = 0.1
MAX_PROBE_S = 30.0
# More rows never take less time. Where they seemed to, by more than this, something else ran on the device: what was
# measured then is measured again, twice at most; what is still so is used (the shorter time holds for both), not kept.
MAX_CONTRADICTION = 1.5
NUM_MORE_TRIES = 2
# On a CPU, a measurement during which the process got less of one core than this was one of the other programs: it is
# used, not kept. (The main thread works all the time, so alone it gets a core or more. On a crowded machine a step of
# one row was seen to take 160 times as long; the bound itself is a choice.)
MIN_CPU_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of one decode step, linear in rows, at `context_tokens` a row. `relative_error` is the root mean square
    of the fit's relative deviations from what was measured."""

    fixed_s: float
    row_s: float
    relative_error: float
    context_tokens: int

    def step_s(self, num_rows: int) -> float:
        return self.fixed_s + self.row_s * num_rows


@dataclass(frozen=True)
class Probe:
    """What was measured: (rows, seconds of a step), both ascending, at least one. `is_exhausted`: more rows would
    have been measured, had the memory allowed them."""

    samples: tuple[tuple[int, float], ...]
    context_tokens: int
    is_exhausted: bool

    def max_running(self, max_rows: int) -> int:
        """The fewest rows, at most `max_rows`, whose tokens per second are within 10 % of the best: by the fitted cost,
        since a single sample may be off by as much."""
        rates = [(rows, rows / self.step_cost.step_s(rows)) for rows, _ in self.samples if rows <= max_rows]
        best = max((rate for _, rate in rates), default=0.0)
        return min((rows for rows, rate in rates if rate >= WORTH * best), default=1)

    def covers(self, max_rows: int) -> bool:
        """Whether measuring again, with room for `max_rows`, could tell more."""
        return not self.is_exhausted or self.samples[-1][0] >= max_rows

    @cached_property
    def step_cost(self) -> StepCost:
        """Least squares of the relative deviations, both terms 0 or more."""
        rows, seconds = (np.array(column, dtype=float) for column in zip(*self.samples, strict=True))
        terms = np.stack([np.ones_like(rows), rows], axis=1) / seconds[:, None]
        (fixed_s, row_s), _ = nnls(terms, np.ones_like(rows))
        deviations = terms @ [fixed_s, row_s] - 1
        return StepCost(float(fixed_s), float(row_s), float(np.sqrt(np.mean(deviations**2))), self.context_tokens)


def probe(loaded: LoadedModel, max_rows: int) -> Probe:
    """The kept measurement for this model, device and software, or a new one, which is kept. At most `max_rows` rows
    of CONTEXT_TOKENS tokens are tried: what the memory has room for."""
    key = _key(loaded)
    kept = probe_store.read(key, from_json)
    if kept is not None and kept.covers(max_rows):
        return kept
    context_tokens = min(CONTEXT_TOKENS, loaded.context_tokens)
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    with StepTimer(loaded, context_tokens, max_rows) as timer:
        samples, is_exhausted = measure(timer.step_s, max_rows)
        for _ in range(NUM_MORE_TRIES):
            if not is_plausible(samples):
                samples, is_exhausted = measure(timer.step_s, max_rows)
    found = Probe(without_contradictions(samples), context_tokens, is_exhausted)
    cpu_share = (time.process_time() - started_cpu_s) / (time.perf_counter() - started_s)
    if is_plausible(samples) and (loaded.device.type != "cpu" or cpu_share >= MIN_CPU_SHARE):
        probe_store.write(key, _to_json(found))
    else:
        log.warning("The device was busy with something else while it was measured: measuring again next time.")
    return found


def measure(
    step_s: Callable[[int], float], max_rows: int, clock: Callable[[], float] = time.monotonic
) -> tuple[tuple[tuple[int, float], ...], bool]:
    """Samples of `step_s(rows)` for 1, 2, 4, ... rows until the rate stops to improve, and whether memory ended it."""
    samples: list[tuple[int, float]] = []
    best, num_stale, deadline_s = 0.0, 0, clock() + MAX_PROBE_S
    for rows in _row_counts(max_rows):
        try:
            samples.append((rows, step_s(rows)))
        except RuntimeError as error:
            if not samples or not is_out_of_memory(error):
                raise
            return tuple(samples), True
        rate = rows / samples[-1][1]
        num_stale = 0 if rate > IMPROVEMENT * best else num_stale + 1
        best = max(best, rate)
        if num_stale == 2 or clock() > deadline_s:
            return tuple(samples), False
    return tuple(samples), samples[-1][0] < MAX_ROWS


def without_contradictions(samples: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The same, no count of rows slower than a larger one."""
    return tuple((rows, min(seconds for _, seconds in samples[i:])) for i, (rows, _) in enumerate(samples))


def is_plausible(samples: Sequence[tuple[int, float]]) -> bool:
    clean = without_contradictions(samples)
    return all(raw <= MAX_CONTRADICTION * least for (_, raw), (_, least) in zip(samples, clean, strict=True))


class StepTimer:
    """Times decode steps of the row engine's own pass, sampling and the transfer of tokens included.

    The rows' keys and values are zeros that nobody computed: a step costs the same whatever stands in the cache, and
    reading prompts would take most of the time.
    """

    def __init__(self, loaded: LoadedModel, context_tokens: int, max_rows: int) -> None:
        self._model = RowModel(loaded, max_rows * num_blocks_for(context_tokens), context_tokens, 0)
        self._prompt = [0] * (context_tokens - 1)
        self._rows: list[Row] = []

    def step_s(self, num_rows: int) -> float:
        """Seconds of one step, the best of a few, after one that allocates."""
        while len(self._rows) < num_rows:
            self._rows.append(Row(str(len(self._rows)), SamplingParams(), self._prompt, [], 2, 2))
        with torch.inference_mode():
            warm_s = self._timed(num_rows)
            num_repeats = 1 if warm_s > LONG_STEP_S else max(NUM_REPEATS, int(REPEAT_S / warm_s))
            return min(self._timed(num_rows) for _ in range(num_repeats))

    def _timed(self, num_rows: int) -> float:
        rows = self._rows[:num_rows]
        started_s = time.perf_counter()
        logits = self._model.step(rows)
        sampler = Sampler(rows, logits.shape[1], logits.device)
        sampler.choose(logits, np.zeros(num_rows, dtype=np.int64)).cpu()
        return time.perf_counter() - started_s

    def __enter__(self) -> StepTimer:
        return self

    def __exit__(self, *error: object) -> None:
        self._model.close()


def _row_counts(max_rows: int) -> Iterator[int]:
    """1, 2, 4, ... and `max_rows` itself, at most MAX_ROWS."""
    last = max(1, min(max_rows, MAX_ROWS))
    rows = 1
    while rows < last:
        yield rows
        rows *= 2
    yield last


# -- keeping ---------------------------------------------------------------------------------------------------


def _key(loaded: LoadedModel) -> dict[str, str | int]:
    """All that a step's time depends on."""
    return {
        "model": loaded.identity,
        "dtype": str(loaded.model.dtype),
        "device": device_name(loaded.device),
        "device_map": str(getattr(loaded.model, "hf_device_map", "")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "lengthwise": version("lengthwise"),
        "context_tokens": min(CONTEXT_TOKENS, loaded.context_tokens),
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
    cost = found.step_cost
    return {
        "samples": found.samples,
        "is_exhausted": found.is_exhausted,
        "context_tokens": found.context_tokens,
        "step_cost": {"fixed_s": cost.fixed_s, "row_s": cost.row_s, "relative_error": cost.relative_error},
    }


def from_json(value: dict[str, object]) -> Probe:
    """Raises KeyError, TypeError or ValueError on anything that this file did not write."""
    raw, context_tokens, is_exhausted = value["samples"], value["context_tokens"], value["is_exhausted"]
    if not isinstance(raw, list) or not isinstance(context_tokens, int) or not isinstance(is_exhausted, bool):
        raise TypeError("not a probe")
    samples = tuple((int(rows), float(seconds)) for rows, seconds in raw)
    if not samples or any(rows < 1 or not 0 < seconds < float("inf") for rows, seconds in samples):
        raise ValueError("samples out of range")
    return Probe(samples, context_tokens, is_exhausted)
