"""The engine for `transformers` models: enter → step → settle, with rows of their own length."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lengthwise.engines.transformers.answer_text import AnswerText
from lengthwise.engines.transformers.cache import BLOCK_TOKENS, OutOfBlocks, num_blocks_for
from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.engines.transformers.rows import Row
from lengthwise.engines.transformers.sampling import INVALID_TOKEN, Sampler
from lengthwise.errors import RequestError
from lengthwise.protocols import Pooling
from lengthwise.types import Capabilities, Cut, ErrorInfo, Event, Failed, Finished, Prepared, Progress, Request

if TYPE_CHECKING:
    from lengthwise.engines.transformers.backbone import LocalBackbone

log = logging.getLogger("lengthwise")

_OUT_OF_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
_TOO_LARGE = (
    "There is not enough memory for this request alone (prompt of {} tokens, answer of {} so far). Shorten the "
    "prompt, lower max_tokens, or take a smaller dtype or a device with more memory."
)


@dataclass(frozen=True)
class RowEngineConfig:
    """How much the engine takes at once. Raises ValueError on a value that can't work."""

    max_running: int = 64  # rows; on two cores a 4M-parameter model gains little beyond
    kv_tokens: float = math.inf  # prompt and answer tokens in the cache at once; see `memory` for what fits
    max_read_tokens: int = 4096  # padded prompt tokens in one forward pass: bounds the memory of entering
    max_padding_tokens: int = 64  # in one such pass: on two cores a 4M-parameter model takes as long for a pass more
    max_riding_tokens: int = 256  # read along with a step: two cores, beside 16 or 60 rows, a prompt of 25 tokens adds
    # half of what a pass of its own takes, one of 250 as much
    patience_row_steps: int = 16  # longer prompts wait for company until their waiting costs as much as their pass:
    # two cores, 64 rows, a row that ends every other step: 5 ms a pass, 0.2 ms a row and step
    progress_interval_s: float = 0.5  # a person's eye needs no more; a scheduler is told whenever a row has left

    def __post_init__(self) -> None:
        for name in ("max_running", "kv_tokens", "max_read_tokens"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; the engine could run nothing. Give 1 or more.")
        for name in ("max_padding_tokens", "max_riding_tokens", "patience_row_steps", "progress_interval_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more.")


class RowsEngine(ABC):
    """What engines that answer with rows of their own have in common: how a row begins and ends."""

    def __init__(self, loaded: LoadedModel, prompts: Prompts) -> None:
        self.model = loaded.identity
        self.num_row_steps = 0  # rows that were in decode steps, summed over all steps so far
        self._loaded = loaded
        self._prompts = prompts
        self._waiting: list[Row] = []
        self._ended: list[Event] = []
        self._backbone: LocalBackbone | None = None

    def backbone(self) -> LocalBackbone:
        """The model for predictors that ask it or look into it, over the same weights; made at first use. What is done
        there changes nothing here."""
        if self._backbone is None:
            from lengthwise.engines.transformers.backbone import LocalBackbone

            self._backbone = LocalBackbone(self._loaded)
        return self._backbone

    def prepare(self, requests: Sequence[Request]) -> list[Prepared | ErrorInfo]:
        return self._prompts.prepare(requests)

    def start(self, request: Request, tokens_so_far: Sequence[int], cap: int, priority: float | None) -> None:
        try:
            row = self._make_row(request, list(tokens_so_far), cap)
        except RequestError as error:
            self._ended.append(Failed(request.id, ErrorInfo.of(error)))
            return
        self._waiting.append(row)
        if len(row.tokens) >= row.end:
            self._reach_end(row)

    def text_of(self, tokens: Sequence[int]) -> str:
        """See `protocols.PartialText`."""
        return str(self._loaded.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @abstractmethod
    def _leave(self, row: Row, event: Event, is_finite: bool) -> None:
        """Report the row's end, and know it no longer. `is_finite`: it ends by itself, so a step over all that it has
        has just given numbers."""

    def _make_row(self, request: Request, tokens: list[int], cap: int) -> Row:
        prompt = self._prompts.token_ids(request)
        max_tokens = self._prompts.max_tokens(request, len(prompt))
        stop = request.sampling.stop
        text = AnswerText(self._loaded.tokenizer, stop, tokens) if stop else None
        return Row(request.id, request.sampling, prompt, tokens, cap, max_tokens, text)

    def _settle(self, row: Row, token: int, is_eos: bool) -> None:
        """Take in the row's new token, and let the row go if that was its last."""
        if token == INVALID_TOKEN:
            return self._fail(row, "nan_logits", "The model's output is not a number. Try another dtype.")
        row.tokens.append(token)
        if is_eos or (row.text is not None and row.text.push(token)):
            self._finish(row, "stop")
        elif len(row.tokens) >= row.end:
            self._reach_end(row)

    def _reach_end(self, row: Row) -> None:
        if len(row.tokens) >= row.max_tokens:
            self._finish(row, "length")
        else:
            self._cut(row, "cap")

    def _finish(self, row: Row, reason: Literal["stop", "length"]) -> None:
        self._prompts.forget(row.id)
        self._leave(row, Finished(row.id, self._text(row), reason, len(row.tokens), tuple(row.tokens)), is_finite=True)

    def _cut(self, row: Row, reason: Literal["cap", "cancelled", "memory"]) -> None:
        self._leave(row, Cut(row.id, tuple(row.tokens), reason), is_finite=reason == "cap")

    def _fail(self, row: Row, type: str, message: str) -> None:
        self._prompts.forget(row.id)
        self._leave(row, Failed(row.id, ErrorInfo(type, message)), is_finite=False)

    def _fail_as_too_large(self, row: Row) -> None:
        self._fail(row, "out_of_memory", _TOO_LARGE.format(len(row.prompt), len(row.tokens)))

    def _text(self, row: Row) -> str:
        if row.text is not None and row.text.is_stopped:
            return row.text.text
        return self.text_of(row.tokens)


@dataclass(frozen=True)
class _Batch:
    """What rows that run together have in common while none enters or leaves. `ends` (rows): from how many tokens on
    each may end by a new one that is no end in itself; with stop strings to look for, always."""

    sampler: Sampler
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Row], logits: Tensor) -> _Batch:
        ends = np.array([row.end if row.text is None else 0 for row in rows], dtype=np.int64)
        return cls(Sampler(rows, logits.shape[1], logits.device), ends)


class TransformersEngine(RowsEngine):
    """Answers of a `transformers` model, many rows at once, each entering and leaving when it likes.

    Greedy answers in float32 are those of the request run alone, and a sampled answer depends on its seed only, up
    to the rounding of sums that any change of batch brings (a tie, where it shows).

    When the device runs out of memory, half of the rows (the newest) come back as Cut (`memory`) with the tokens
    that they have, and `capabilities.max_running` becomes what is left; a row that does not fit alone fails
    (`out_of_memory`). A row whose logits are no numbers fails (`nan_logits`).
    """

    def __init__(self, loaded: LoadedModel, prompts: Prompts, config: RowEngineConfig) -> None:
        super().__init__(loaded, prompts)
        self._config = config
        self._max_running = config.max_running
        self._eos = frozenset(loaded.eos_token_ids)
        self._ending = self._eos | {INVALID_TOKEN}
        max_blocks = _max_blocks(config, loaded.context_tokens)
        num_reserved = max_blocks if math.isfinite(config.kv_tokens) else 0
        limits = config.max_read_tokens, config.max_padding_tokens, config.max_riding_tokens
        self._model = RowModel(loaded, max_blocks, *limits, num_reserved)
        self._running: list[Row] = []
        self._batch: _Batch | None = None  # of the rows that run; None when they have changed
        self._waited_row_steps = 0
        self._last_attempt: tuple[Row, int] | None = None  # the row that was alone when memory ended, and its tokens
        self._last_progress_s = -math.inf

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self._max_running, self._config.kv_tokens, BLOCK_TOKENS, makes_room=True)

    def pool_prompts(self, pooling: Pooling | None) -> bool:
        """See `protocols.PromptPooling`. For `entropy` the prompts' logits are made as well, a part at a time."""
        return self._model.prompts.set_pooling(pooling)

    @torch.inference_mode()
    def cancel(self, request_id: str) -> None:
        self._prompts.forget(request_id)  # it may never come back
        for row in self._waiting + self._running:
            if row.id == request_id:
                self._cut(row, "cancelled")

    @torch.inference_mode()
    def poll(self, timeout_s: float) -> list[Event]:
        """Step until a row ends or the time is over; at least once, if anything runs. Rows that were started enter on
        the way, when the cache has room and nothing is gained by waiting for others to enter with."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ended and (self._waiting or self._running):
            if self._is_time_to_enter:
                self._survive(self._enter)
            self._survive(self._step)
            if time.monotonic() >= deadline_s:
                break
        return self._take_events()

    def close(self) -> None:
        self._waiting, self._running, self._batch = [], [], None
        self._model.close()

    def _leave(self, row: Row, event: Event, is_finite: bool) -> None:
        if row in self._running:
            self._running.remove(row)
            self._batch = None
        else:
            self._waiting.remove(row)
        self._model.leave(row, is_finite)
        self._ended.append(event)

    # -- all rows -----------------------------------------------------------------------------------------------

    @property
    def _is_time_to_enter(self) -> bool:
        """Short prompts ride along with any step. A longer one takes a pass, which takes about as long for several: it
        waits until that has cost as much as a pass of its own (which is at most twice the least that could be had)."""
        is_enough = not self._running or self._waited_row_steps >= self._config.patience_row_steps
        return bool(self._waiting) and (is_enough or all(map(self._model.rides, self._waiting)))

    def _enter(self) -> None:
        """Read the rows that wait, as far as the cache has room: first come, first served."""
        self._waited_row_steps = 0
        num_fitting = self._model.num_fitting(self._waiting, self._running)
        entering = self._waiting[: num_fitting if self._running else max(1, num_fitting)]
        self._model.read(entering)
        if entering:
            self._running += entering
            self._waiting, self._batch = self._waiting[len(entering) :], None

    def _step(self) -> None:
        if not self._running:
            return
        self._waited_row_steps += len(self._waiting)
        logits = self._model.step(self._running)
        self.num_row_steps += len(self._running)
        batch = self._batch or _Batch.of(self._running, logits)
        num_tokens = np.array([len(row.tokens) for row in self._running], dtype=np.int64)
        tokens = batch.sampler.choose(logits, num_tokens).tolist()
        self._batch = batch
        may_end = (num_tokens + 1 >= batch.ends).tolist()
        for row, token, is_due in zip(list(self._running), tokens, may_end, strict=True):
            if is_due or token in self._ending:
                self._settle(row, token, token in self._eos)
            else:
                row.tokens.append(token)

    # -- memory -------------------------------------------------------------------------------------------------

    def _survive(self, work: Callable[[], None]) -> None:
        """Do the work; if memory ends, put rows back. The work changes no answer before all of it is done."""
        try:
            return work()
        except OutOfBlocks:
            make_room = self._drop_newest
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            make_room = self._halve
        make_room()  # outside the handlers, whose traceback holds the tensors that filled the memory

    def _drop_newest(self) -> None:
        """The cache is full: the newest row gives way, so that the oldest always gets on."""
        if len(self._running) > 1:
            self._cut(self._running[-1], "memory")
        else:
            self._fail_as_too_large((self._running or self._waiting)[0])

    def _halve(self) -> None:
        """The device is full: the newer half of the rows gives way, and so many are no longer taken. One row alone is
        tried once more without the blocks that others have left. If it is too large then, it is to blame, not the
        number of rows: as many as before are taken again."""
        self._batch = None
        rows = self._running + self._waiting
        num_kept = len(rows) // 2
        if num_kept == 0:
            attempt = (rows[0], len(rows[0].tokens))
            if attempt != self._last_attempt:
                self._last_attempt = attempt
                return self._compact()
            self._fail_as_too_large(rows[0])
        for row in reversed(rows[num_kept:] if num_kept else []):
            self._cut(row, "memory")
        self._max_running = num_kept or self._config.max_running
        log.warning("Out of memory with %d rows: going on with %d.", len(rows), self._max_running)
        self._compact()

    def _compact(self) -> None:
        """Shrink the cache to what the rows need, if there is memory for it."""
        try:
            self._model.compact()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            log.warning("No memory to shrink the key/value cache: it stays as large.")

    def _take_events(self) -> list[Event]:
        events, self._ended = [*self._model.prompts.take(), *self._ended], []
        now_s = time.monotonic()
        if events or now_s - self._last_progress_s >= self._config.progress_interval_s:
            self._last_progress_s = now_s
            events += [Progress(row.id, len(row.tokens)) for row in self._running]
        return events


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device ran out of memory. CUDA's allocator has a class for it; its libraries, MPS and the CPU's
    allocator only have a text."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _OUT_OF_MEMORY_SIGNS)


def _max_blocks(config: RowEngineConfig, context_tokens: int) -> int:
    """Blocks for `kv_tokens`, at most what full rows need."""
    tokens_of_full_rows = config.max_running * num_blocks_for(context_tokens) * BLOCK_TOKENS
    return num_blocks_for(int(min(config.kv_tokens, tokens_of_full_rows)))
