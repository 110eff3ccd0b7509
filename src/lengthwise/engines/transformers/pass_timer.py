"""Times single passes of the row engine's own kind: decode steps, and what reading prompts adds to them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from lengthwise.engines.transformers.cache import num_blocks_for
from lengthwise.engines.transformers.engine import RowEngineConfig
from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.rows import Row
from lengthwise.engines.transformers.sampling import Sampler
from lengthwise.types import SamplingParams

# A pass is timed three times or more, for 30 ms, and the best counts (other programs only ever make a pass slower);
# one longer than 0.1 s is timed once.
NUM_REPEATS = 3
REPEAT_S = 0.03
LONG_PASS_S = 0.1
MAX_READ_TOKENS, MAX_RIDING_TOKENS = RowEngineConfig.max_read_tokens, RowEngineConfig.max_riding_tokens
BESIDE_ROWS, BESIDE_TOKENS = 16, 32  # that run while others ride
LEAST_S = 1e-6  # of a difference of two times, both of which vary


class PassTimer:
    """Times passes of up to `max_rows` rows, whose keys and values take no more memory than at `context_tokens` a row.

    In a step keys and values are zeros that nobody computed: it costs the same whatever stands in the cache, and
    reading prompts would take most of the time. Sampling and the transfer of tokens are included.
    """

    def __init__(self, loaded: LoadedModel, context_tokens: int, max_rows: int) -> None:
        self.max_blocks = max_rows * num_blocks_for(context_tokens)
        self._device = loaded.device
        self._model = RowModel(loaded, self.max_blocks, MAX_READ_TOKENS, 0, MAX_RIDING_TOKENS)
        self._context_tokens = context_tokens
        self._rows: list[Row] = []

    @torch.inference_mode()
    def step_s(self, num_rows: int, context_tokens: int | None = None) -> float:
        """Seconds of one step with so many tokens a row (None: `context_tokens`), after one that allocates."""
        tokens = context_tokens or self._context_tokens
        if self._rows and self._rows[0].position != tokens - 1:
            self._clear()
        while len(self._rows) < num_rows:
            self._rows.append(_row(len(self._rows), tokens))
        return _best(lambda: self._step_s(self._rows[:num_rows]))

    @torch.inference_mode()
    def read_s(self, num_rows: int, num_tokens: int) -> float:
        """Seconds that reading so many prompts of so many tokens each takes, after one reading that allocates: a pass,
        or what it adds to a step of other rows where that reads them along."""
        self._clear()
        rows = [_row(index, num_tokens + 1) for index in range(num_rows)]
        if num_rows * num_tokens > MAX_RIDING_TOKENS:
            return _best(lambda: self._read_s(rows))
        num_free = self.max_blocks - num_rows * num_blocks_for(num_tokens + 1)
        self._rows = [_row(num_rows + index, BESIDE_TOKENS) for index in range(min(BESIDE_ROWS, num_free))]
        return max(LEAST_S, _best(lambda: self._enter_s(rows, reads=True)) - _best(lambda: self._enter_s(rows)))

    def _step_s(self, rows: list[Row]) -> float:
        started_s = time.perf_counter()
        logits = self._model.step(rows)
        sampler = Sampler(rows, logits.shape[1], logits.device)
        sampler.choose(logits, np.zeros(len(rows), dtype=np.int64)).cpu()
        return time.perf_counter() - started_s

    def _enter_s(self, rows: list[Row], *, reads: bool = False) -> float:
        """Seconds of a step in which these are new beside others."""
        if reads:
            self._model.read(rows)
        taken_s = self._step_s(self._rows + rows)
        self._leave(rows)
        return taken_s

    def _read_s(self, rows: list[Row]) -> float:
        started_s = time.perf_counter()
        self._model.read(rows)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        taken_s = time.perf_counter() - started_s
        self._leave(rows)
        return taken_s

    def _clear(self) -> None:
        self._leave(self._rows)
        self._rows = []

    def _leave(self, rows: list[Row]) -> None:
        for row in rows:
            self._model.leave(row)

    def __enter__(self) -> PassTimer:
        return self

    def __exit__(self, *error: object) -> None:
        self._model.close()


def _row(index: int, prompt_tokens: int) -> Row:
    return Row(str(index), SamplingParams(), [0] * prompt_tokens, [], 2, 2)


def _best(timed: Callable[[], float]) -> float:
    """The shortest of a few times, the first of which does not count."""
    warm_s = timed()
    num_repeats = 1 if warm_s > LONG_PASS_S else max(NUM_REPEATS, int(REPEAT_S / warm_s))
    return min(timed() for _ in range(num_repeats))
