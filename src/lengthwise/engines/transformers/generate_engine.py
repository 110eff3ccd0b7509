"""`model.generate` in static batches: for models whose cache can't be held row by row.

Slower than our own loop (a batch lasts until its longest answer ends, and what has ended is computed on), with the
same answers: sampling, seeds, penalties, stop strings, caps and limits are those of each row.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from lengthwise.engines.transformers.answer_text import AnswerText
from lengthwise.engines.transformers.engine import RowsEngine, is_out_of_memory
from lengthwise.engines.transformers.memory import release_memory
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.engines.transformers.rows import Row
from lengthwise.engines.transformers.sampling import Sampler
from lengthwise.engines.transformers.supported import max_error, max_shared_rope_tokens, relative_error
from lengthwise.types import Capabilities, Event

log = logging.getLogger("lengthwise")


class GenerateEngine(RowsEngine):
    """Answers of a causal model by `model.generate`, up to `max_running` rows in a static batch, left-padded.

    All rows that are started enter the next batch, and `poll` returns when that batch has ended, whatever its
    timeout: `generate` can't be left half-way. So there is no progress, and a row can be cancelled only before its
    batch. Rows of different length share a batch only if the model takes padding without a difference, and rows that
    reach positions where the longest of a batch changes all of them (`max_shared_rope_tokens`) run alone.

    Greedy answers are those of the request alone, up to rounding; a sampled one depends on its seed only. When memory
    runs out, the batch is run again in halves; a row that does not fit alone fails (`out_of_memory`), and one whose
    logits are no numbers does (`nan_logits`).
    `num_row_steps` counts a position for every row of a batch and every step that it ran.
    """

    def __init__(self, loaded: LoadedModel, prompts: Prompts, max_running: int, kv_tokens: float = math.inf) -> None:
        super().__init__(loaded, prompts)
        self.can_pad = takes_padding(loaded)
        self._config_max_running = self._max_running = max_running
        self._kv_tokens = kv_tokens
        self._max_shared_tokens = min(loaded.context_tokens, max_shared_rope_tokens(loaded))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self._max_running, self._kv_tokens, can_refill=False, reports_progress=False)

    def cancel(self, request_id: str) -> None:
        self._prompts.forget(request_id)  # it may never come back
        for row in [row for row in self._waiting if row.id == request_id]:
            self._cut(row, "cancelled")

    def poll(self, timeout_s: float) -> list[Event]:
        """Run one batch, if anything waits and nothing has ended yet; as long as it takes."""
        while self._waiting and not self._ended:
            self._run(self._next_batch())
        events, self._ended = self._ended, []
        return events

    def close(self) -> None:
        self._waiting = []

    # -- batches -----------------------------------------------------------------------------------------------

    def _next_batch(self) -> list[Row]:
        """The rows that wait longest, as many as fit; they still wait. One always fits."""
        batch: list[Row] = []
        for row in self._waiting:
            if len(batch) < self._max_running and self._fits([*batch, row]):
                batch.append(row)
        return batch

    def _fits(self, batch: Sequence[Row]) -> bool:
        """Padding counts: every row takes the longest prompt and the longest rest of an answer together. They must
        stay within the context, or a row that has ended would be computed at positions that the model does not have."""
        widths = {row.position + 1 for row in batch}
        if len(widths) > 1 and not self.can_pad:
            return False
        row_tokens = max(widths) + _max_new_tokens(batch)
        fits = row_tokens <= self._max_shared_tokens and len(batch) * row_tokens <= self._kv_tokens
        return fits or len(batch) == 1

    def _run(self, batch: list[Row]) -> None:
        try:
            new_tokens = _generate(self._loaded, batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            new_tokens = None
        if new_tokens is None:  # outside the handler, whose traceback holds the tensors that filled the memory
            return self._take_less(batch)
        self.num_row_steps += sum(map(len, new_tokens))
        for row, tokens in zip(batch, new_tokens, strict=True):
            self._take_in(row, tokens)

    def _take_in(self, row: Row, new_tokens: list[int]) -> None:
        """What the row's batch wrote; behind the row's end stands something else."""
        for token in new_tokens:
            self._settle(row, token, token in self._loaded.eos_token_ids)
            if row not in self._waiting:
                return
        raise AssertionError(f"{row.id}: generate stopped at {len(row.tokens)} tokens of {row.end}")

    def _leave(self, row: Row, event: Event, is_finite: bool) -> None:
        self._waiting.remove(row)
        self._ended.append(event)

    def _take_less(self, batch: list[Row]) -> None:
        """Memory ended. What the batch had written is lost, and nothing of it was given out: half of it comes next."""
        release_memory(self._loaded.device)
        if len(batch) == 1:
            self._max_running = self._config_max_running  # the row is to blame, not their number
            return self._fail_as_too_large(batch[0])
        self._max_running = len(batch) // 2
        log.warning("Out of memory with %d rows: going on with %d.", len(batch), self._max_running)


# -- generate --------------------------------------------------------------------------------------------------


def takes_padding(loaded: LoadedModel) -> bool:
    """Whether a prompt that is padded on the left gives the logits that it gives alone: found out by trying, two
    tokens each. Some recurrent models read their padding. Raises the device's out-of-memory error."""
    vocabulary_size = len(loaded.model.get_input_embeddings().weight)
    draw = torch.Generator().manual_seed(0)
    long, short = (torch.randint(vocabulary_size, (num,), generator=draw).tolist() for num in (9, 4))
    alone, padded = _logits(loaded, [short]), _logits(loaded, [short, long])
    return relative_error(padded, alone) <= max_error(loaded)


def _logits(loaded: LoadedModel, prompts: Sequence[list[int]]) -> Tensor:
    """Of the first prompt's first two tokens."""
    ids, mask = _left_padded(prompts, loaded)
    config = _config(loaded, max_new_tokens=2, min_new_tokens=2, output_logits=True, return_dict_in_generate=True)
    generate: Any = loaded.model.generate
    with torch.inference_mode():
        out = generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return torch.stack([logits[0] for logits in out.logits]).float()


def _generate(loaded: LoadedModel, batch: Sequence[Row]) -> list[list[int]]:
    """New tokens of each row; behind a row's end stands something, up to the length of the longest."""
    ids, mask = _left_padded([row.prompt + row.tokens for row in batch], loaded)
    choose = _Choose(batch)
    generate: Any = loaded.model.generate
    with torch.inference_mode():
        generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=_config(loaded, max_new_tokens=_max_new_tokens(batch)),
            logits_processor=[choose],
            stopping_criteria=[_RowEnds(batch, loaded)],
        )
    new_tokens: list[list[int]] = torch.stack(choose.chosen, dim=1).tolist()
    return new_tokens


class _Choose(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token as our own loop does, and leaves `generate` no other. `chosen` holds one tensor a step,
    with INVALID_TOKEN for a row whose logits are no numbers."""

    def __init__(self, batch: Sequence[Row]) -> None:
        self._batch = batch
        self._num_tokens = np.array([len(row.tokens) for row in batch], dtype=np.int64)
        self._sampler: Sampler | None = None
        self.chosen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._sampler is None:
            self._sampler = Sampler(self._batch, scores.shape[1], scores.device)
        tokens = self._sampler.choose(scores, self._num_tokens + len(self.chosen))
        self.chosen.append(tokens)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens.clamp(min=0).unsqueeze(1), 0)


class _RowEnds(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its own cap or limit, and at its stop strings (read from the device only where there are any);
    `generate` looks for end-of-sequence tokens itself."""

    def __init__(self, batch: Sequence[Row], loaded: LoadedModel) -> None:
        self._rest = torch.tensor([row.end - len(row.tokens) for row in batch], device=loaded.device)
        self._texts = [
            (index, AnswerText(loaded.tokenizer, row.sampling.stop, row.tokens))
            for index, row in enumerate(batch)
            if row.sampling.stop
        ]
        self._num_steps = 0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self._num_steps += 1
        is_done = self._rest <= self._num_steps
        if self._texts:
            newest = input_ids[:, -1].tolist()
            is_stopped = [index for index, text in self._texts if text.push(newest[index])]
            is_done[is_stopped] = True
        return is_done


def _left_padded(prompts: Sequence[list[int]], loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, prompts × longest."""
    width = max(map(len, prompts))
    ids = [[_pad_token_id(loaded)] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=loaded.device), torch.tensor(mask, device=loaded.device)


def _config(loaded: LoadedModel, **changes: Any) -> GenerationConfig:
    eos = list(loaded.eos_token_ids) or None
    make: Any = GenerationConfig
    config: GenerationConfig = make(
        do_sample=False, eos_token_id=eos, pad_token_id=_pad_token_id(loaded), use_cache=True, **changes
    )
    return config


def _pad_token_id(loaded: LoadedModel) -> int:
    """A token that the model has; it is masked, and cut off behind an answer's end."""
    pad = loaded.tokenizer.pad_token_id
    vocabulary_size = len(loaded.model.get_input_embeddings().weight)
    return pad if isinstance(pad, int) and pad < vocabulary_size else (loaded.eos_token_ids or (0,))[0]


def _max_new_tokens(batch: Sequence[Row]) -> int:
    return max(row.end - len(row.tokens) for row in batch)
