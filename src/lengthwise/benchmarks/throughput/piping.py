"""`pipeline("text-generation", batch_size=16)` of `transformers`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import GenerationConfig, TextGenerationPipeline

from lengthwise.benchmarks.baseline import writing_on
from lengthwise.benchmarks.throughput.contender import Contender
from lengthwise.benchmarks.throughput.generating import Tally, batches, endless
from lengthwise.benchmarks.throughput.sample import Sample
from lengthwise.benchmarks.throughput.workload import Setup
from lengthwise.engines.transformers.model import EncodePrompt
from lengthwise.types import Request


class GeneratingPipeline(Contender):
    """One call over all prompts. Of recorded lengths one call a batch, since a call has one length for all."""

    def __init__(self, name: str, title: str, setup: Setup) -> None:
        super().__init__(name, title)
        self._setup = setup
        self._pipeline = _pipeline(setup)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"batch_size": self._setup.batch_rows}

    def run(self, requests: Sequence[Request]) -> Sample:
        tally, workload = Tally(self._setup), self._setup.workload
        is_endless = workload.lengths is not None
        size = self._setup.batch_rows if is_endless else len(requests)
        with writing_on(self._setup.loaded) if is_endless else nullcontext():
            for part in batches(requests, size):
                self._call(tally, part, workload.longest(part))
        return tally.sample()

    def _call(self, tally: Tally, requests: Sequence[Request], max_tokens: int) -> None:
        loaded, rows = self._setup.loaded, self._setup.batch_rows
        eos = list((loaded if self._setup.workload.lengths is None else endless(loaded)).eos_token_ids) or None
        pad = self._pipeline.tokenizer.pad_token_id
        config = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad)
        one_by_one = (request for request in requests)  # a list would be read to its end before the first answer
        answers, written = self._pipeline(one_by_one, generation_config=config), []
        started_s = tally.now_s
        for number, new_tokens in enumerate(answers, start=1):
            written.append(new_tokens)
            if len(written) == rows or number == len(requests):
                tally.add(requests[number - len(written) : number], written, started_s)
                written, started_s = [], tally.now_s


class _TokensPipeline(TextGenerationPipeline):  # type: ignore[misc]
    """Takes requests, and gives new tokens: all contenders read the same prompts, and know what they wrote."""

    encode: EncodePrompt

    def preprocess(self, prompt_text: Request, **kwargs: Any) -> dict[str, Any]:
        ids = torch.tensor([self.encode(prompt_text)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "prompt_text": ""}

    def postprocess(self, model_outputs: Mapping[str, Any], **kwargs: Any) -> list[int]:
        width = model_outputs["input_ids"].shape[-1]
        new_tokens: list[int] = model_outputs["generated_sequence"][0][0][width:].tolist()
        return new_tokens


def _pipeline(setup: Setup) -> _TokensPipeline:
    loaded = setup.loaded
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = (loaded.eos_token_ids or (0,))[0]
    made = _TokensPipeline(model=loaded.model, tokenizer=tokenizer, device=loaded.device, batch_size=setup.batch_rows)
    made.encode = loaded.encode_prompt
    return made
