"""Options → an engine that is ready: load, look at the memory, measure, and choose the loop."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Protocol

from lengthwise.costs import StepCost
from lengthwise.engines.transformers.cache import BLOCK_TOKENS
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine, is_out_of_memory
from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.memory import KvLayout, kv_layout, kv_tokens
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.options import ModelOptions, RunOptions
from lengthwise.engines.transformers.probe import CONTEXT_TOKENS, Probe, probe
from lengthwise.engines.transformers.probe_points import MAX_ROWS
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.engines.transformers.supported import why_unsupported
from lengthwise.errors import ModelError
from lengthwise.protocols import Engine, Timed

log = logging.getLogger("lengthwise")

# Rows of `model.generate` where nobody asks for another number: the paper's (batch size 16), and what most scripts
# take. More rows mean more waiting for the longest answer, so this is not measured.
GENERATE_ROWS = 16
# While the block cache grows, one layer at a time is held twice (`cache`): a quarter more covers four layers and up.
CACHE_GROWTH = 1.25


class OpenedEngine(Engine, Timed, Protocol):
    """An engine that can say in one line how it runs."""

    description: str


@dataclass(frozen=True, slots=True)
class Size:
    """How much an engine takes at once, and where that comes from. `measured` is None where a number was given."""

    max_running: int
    kv_tokens: float
    measured: Probe | None

    def __str__(self) -> str:
        tokens = "" if math.isinf(self.kv_tokens) else f", {self.kv_tokens:,.0f} key/value tokens"
        if self.measured is None:
            return f"{self.max_running} rows (given){tokens}"
        seconds = dict(self.measured.samples)[self.max_running]
        rate = f"{self.max_running / seconds:,.0f} tokens/s at {self.measured.context_tokens} tokens a row"
        return f"{self.max_running} rows (measured: {rate}){tokens}"


class OpenedRowEngine(TransformersEngine):
    """The row engine, with what was found out when it was opened."""

    def __init__(self, loaded: LoadedModel, prompts: Prompts, size: Size) -> None:
        super().__init__(loaded, prompts, RowEngineConfig(size.max_running, size.kv_tokens))
        self.description = f"{_name(loaded)}, own loop, {size}."
        self.step_cost = size.measured.step_cost if size.measured is not None else None


class OpenedGenerateEngine(GenerateEngine):
    """The fallback, with the reason for it."""

    def __init__(self, loaded: LoadedModel, prompts: Prompts, max_running: int, kv_tokens: float, why: str) -> None:
        super().__init__(loaded, prompts, max_running, kv_tokens)
        self.step_cost: StepCost | None = None
        lengths = "" if self.can_pad else ", prompts of one length in each (it reads padding)"
        self.description = f"{_name(loaded)}, model.generate in batches of {max_running}{lengths}, because {why}."


def open_engine(options: ModelOptions, run: RunOptions) -> OpenedEngine:
    """Load a model and open an engine for it. Raises ModelError."""
    return engine_for(load_model(options), run)


def engine_for(loaded: LoadedModel, run: RunOptions) -> OpenedEngine:
    """An engine for a model that is loaded: our own loop where its cache can be held row by row, else `generate`.

    Its `description` is logged: as a warning when it is the fallback and nobody asked for it. Raises ModelError when
    `rows` is asked for and can't be, or when not even one row fits into the memory.
    """
    try:
        return _engine_for(loaded, run)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"The memory of {loaded.device} holds {loaded.identity} and not one row of it: use a 16 bit dtype, "
            "quantization, or device_map='auto'."
        ) from error


def _engine_for(loaded: LoadedModel, run: RunOptions) -> OpenedEngine:
    prompts = Prompts(loaded, run.max_tokens)
    why = "it was asked for" if run.loop == "generate" else why_unsupported(loaded)
    if why is None:
        rows = OpenedRowEngine(loaded, prompts, row_size(loaded, run))
        log.info(rows.description)
        return rows
    if run.loop == "rows":
        raise ModelError(f"This model can't be run by our own loop, because {why}: use loop 'auto' or 'generate'.")
    max_running = run.batch_size or GENERATE_ROWS
    tokens = kv_tokens(kv_layout(loaded), max_running, loaded.context_tokens, run.memory_share)
    engine = OpenedGenerateEngine(loaded, prompts, max_running, tokens, why)
    log.log(logging.INFO if run.loop == "generate" else logging.WARNING, engine.description)
    return engine


def row_size(loaded: LoadedModel, run: RunOptions) -> Size:
    """Rows and key/value tokens of our own loop, from the memory that is free and a measurement of this device."""
    layout = kv_layout(loaded).without_windows()
    if run.batch_size is not None:
        return Size(run.batch_size, _row_tokens(layout, run.batch_size, loaded, run), None)
    room = kv_tokens(layout, MAX_ROWS, loaded.context_tokens, run.memory_share / CACHE_GROWTH)
    limit = max(1, int(room // (CONTEXT_TOKENS + BLOCK_TOKENS)))
    measured = probe(loaded, limit)
    max_running = measured.max_running(limit)
    return Size(max_running, _row_tokens(layout, max_running, loaded, run), measured)


def _row_tokens(layout: KvLayout, max_rows: int, loaded: LoadedModel, run: RunOptions) -> float:
    """The token budget of the block cache, in whole blocks; what its growth takes is kept back."""
    tokens = kv_tokens(layout, max_rows, loaded.context_tokens, run.memory_share / CACHE_GROWTH)
    return tokens if tokens == math.inf else max(1, tokens // BLOCK_TOKENS * BLOCK_TOKENS)


def _name(loaded: LoadedModel) -> str:
    return f"{loaded.identity} ({str(loaded.model.dtype).removeprefix('torch.')} on {loaded.device})"
