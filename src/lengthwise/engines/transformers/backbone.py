"""A model as predictors use it: asked for short answers, and looked into. The one that answers is not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lengthwise.engines.driving import answered
from lengthwise.engines.transformers.appended import PLACE, states_of_vector
from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine, is_out_of_memory
from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.hidden import last_hidden, pooled
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.memory import KvLayout, kv_layout, kv_tokens, release_memory
from lengthwise.engines.transformers.model import EncodePrompt, LoadedModel
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.engines.transformers.sharing import sharing_weights, with_adapter
from lengthwise.engines.transformers.supported import max_shared_rope_tokens, why_unsupported
from lengthwise.engines.transformers.templates import PromptEncoder
from lengthwise.errors import PredictorError, RequestError
from lengthwise.estimates import Floats
from lengthwise.protocols import Engine, Pooling
from lengthwise.types import Request

MAX_ROWS = 64  # asked at once: short answers, so that most of the time goes into reading prompts, which rows share
MEMORY_SHARE = 0.2  # of what is free, for keys and values: the engine that answers has taken its part, or will
MAX_BATCH_TOKENS = 4096  # padded, read at once: as the row engine does

ReadBatch = Callable[[Tensor, Sequence[int]], Tensor]
"""Ids padded on the right (rows × tokens) and how many are each row's → one state a row, rows × width in float32."""


def open_backbone(options: ModelOptions) -> LocalBackbone:
    """Load a model, to be asked and looked into; nothing is measured. Raises ModelError."""
    return LocalBackbone(load_model(options))


class LocalBackbone:
    """A loaded model, a second time over the same weights (`sharing_weights`).

    Prompts are encoded as the engine does, chat template and all; one that is longer than the context is read by its
    beginning and its end. All methods go by bounded batches, so memory does not grow with the number of requests.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = sharing_weights(loaded)
        self.model = loaded.identity

    def ask(self, requests: Sequence[Request], max_tokens: int) -> list[str | None]:
        """Greedy answers of at most `max_tokens` tokens, each that of the request alone, whatever the request says of
        sampling and limit. None where a prompt can't be encoded, or there is no memory for it."""
        room = max(1, self.loaded.context_tokens - max_tokens)
        prompts = {str(i): ids for i, ids in enumerate(self._encode(requests, room)) if ids}
        answers: list[str | None] = [None] * len(requests)
        engine = self._engine(prompts, max_tokens)
        # Rows of like length enter together, with little padding.
        questions = [Request(name, "") for name in sorted(prompts, key=lambda name: len(prompts[name]))]
        try:
            for answer in answered(engine, questions, max_tokens):
                answers[int(answer.id)] = answer.text
        finally:
            engine.close()
        return answers

    def states(self, requests: Sequence[Request], pooling: Pooling) -> Floats:
        """The last layer's states (behind the last norm) over the prompt's tokens, pooled: n × width, float32."""
        prompts = self._encode(requests, self.loaded.context_tokens)
        model = self.loaded.model
        return self._read_all(prompts, lambda ids, lengths: pooled(model, last_hidden(model, ids), lengths, pooling))

    def last_state_after(self, requests: Sequence[Request], vector: Floats) -> Floats:
        """The last layer's states (behind the last norm) of `vector` (width) behind each prompt: n × width, float32.
        Raises PredictorError on a vector of another width."""
        width = self._width
        if vector.shape != (width,):
            raise PredictorError(
                f"The vector has shape {vector.shape}, and the model's embeddings have {width} numbers."
            )
        prompts = [[*ids, PLACE] if ids else [] for ids in self._encode(requests, self.loaded.context_tokens - 1)]
        model, learned = self.loaded.model, torch.from_numpy(vector).to(self.loaded.device)
        return self._read_all(
            prompts, lambda ids, lengths: states_of_vector(model, ids, torch.tensor(lengths).to(ids.device), learned)
        )

    def with_adapter(self, folder: Path) -> LocalBackbone:
        """The same model with a LoRA adapter in PEFT's layout (safetensors, or the older pickle, of which nothing but
        tensors is read). Raises PredictorError where it can't be read, or doesn't fit."""
        return LocalBackbone(with_adapter(self.loaded, folder))

    # -- prompts -----------------------------------------------------------------------------------------------

    def _encode(self, requests: Sequence[Request], max_tokens: int) -> list[list[int]]:
        """Ids, at most `max_tokens` of them; none where a prompt can't be encoded."""
        encode = self.loaded.encode_prompt
        if isinstance(encode, PromptEncoder):
            found = encode.many(requests)
        else:
            found = [_encoded(encode, request) for request in requests]
        return [[] if isinstance(ids, RequestError) else _clipped(ids, max_tokens) for ids in found]

    # -- asking ------------------------------------------------------------------------------------------------

    def _engine(self, prompts: dict[str, list[int]], max_tokens: int) -> Engine:
        """A fresh one: what it holds goes when the questions are answered."""
        loaded = replace(self.loaded, encode_prompt=lambda request: prompts[request.id])
        encoded = Prompts(loaded, max_tokens)
        tokens = kv_tokens(self._layout, MAX_ROWS, loaded.context_tokens, MEMORY_SHARE)
        if self._runs_by_rows:
            return TransformersEngine(loaded, encoded, RowEngineConfig(MAX_ROWS, max(1, tokens)))
        return GenerateEngine(loaded, encoded, MAX_ROWS, tokens)

    @cached_property
    def _layout(self) -> KvLayout:
        return kv_layout(self.loaded).without_windows()

    @cached_property
    def _runs_by_rows(self) -> bool:
        return why_unsupported(self.loaded) is None

    # -- looking into it ---------------------------------------------------------------------------------------

    def _batches(self, prompts: Sequence[list[int]]) -> Iterator[list[int]]:
        """Rows of like length together, within MAX_BATCH_TOKENS, or one alone; those that can't be encoded nowhere."""
        max_shared_tokens = max_shared_rope_tokens(self.loaded)
        batch: list[int] = []
        for row in sorted((row for row, ids in enumerate(prompts) if ids), key=lambda row: len(prompts[row])):
            num = len(prompts[row])
            if batch and (num * (len(batch) + 1) > MAX_BATCH_TOKENS or num > max_shared_tokens):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @property
    def _width(self) -> int:
        return int(self.loaded.model.config.get_text_config().hidden_size)

    def _read_all(self, prompts: Sequence[list[int]], read: ReadBatch) -> Floats:
        """One state a prompt, NaN where it can't be encoded or there is no memory for it."""
        states = np.full((len(prompts), self._width), np.nan, np.float32)
        for rows in self._batches(prompts):
            self._fill(states, rows, prompts, read)
        return states

    def _fill(self, states: Floats, rows: list[int], prompts: Sequence[list[int]], read: ReadBatch) -> None:
        """Read these rows into `states`; where memory ends, in halves, and a row that has no room alone not at all."""
        try:
            states[rows] = self._read([prompts[row] for row in rows], read)
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory(self.loaded.device)  # outside the handler, whose traceback holds what filled the memory
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]) if half else ():
            self._fill(states, part, prompts, read)

    @torch.inference_mode()
    def _read(self, prompts: Sequence[list[int]], read: ReadBatch) -> Floats:
        lengths = [len(ids) for ids in prompts]
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        found: Floats = read(ids.to(self.loaded.device), lengths).cpu().numpy()
        return found


def _encoded(encode: EncodePrompt, request: Request) -> list[int] | RequestError:
    try:
        return encode(request)
    except RequestError as error:
        return error


def _clipped(ids: list[int], max_tokens: int) -> list[int]:
    """The beginning and the end of what is too long: the task stands there mostly, and the material in between."""
    if len(ids) <= max_tokens:
        return ids
    head = max_tokens // 2
    return ids[:head] + ids[len(ids) - (max_tokens - head) :]
