"""Batched answers from the bundled model, with plain `generate`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.bundled_model.statistics import MAX_NEW_TOKENS

TEMPERATURE = 0.7


class Answerer:
    """The model in a folder, in float32 on the CPU."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, prompts: Sequence[str], temperature: float = 0.0) -> list[list[int]]:
        """Token ids of one answer a prompt, its end token included; without it if cut at MAX_NEW_TOKENS.

        Temperature 0 is greedy; otherwise it draws from torch's global generator, with neither top-k nor top-p.
        """
        inputs = self.tokenizer.apply_chat_template(
            [[{"role": "user", "content": prompt}] for prompt in prompts],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, **sampling)
        return [self._cut(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def answer_in_batches(
        self, prompts: Sequence[str], batch_size: int, temperature: float = 0.0, order: np.ndarray | None = None
    ) -> list[list[int]]:
        """The same for many prompts, answers in the prompts' order; `order` puts like lengths into one batch."""
        order = np.arange(len(prompts)) if order is None else order
        answers: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(prompts), batch_size):
            rows = order[start : start + batch_size]
            for row, answer in zip(rows, self.answer([prompts[row] for row in rows], temperature), strict=True):
                answers[row] = answer
        return answers

    def _cut(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids


def count_lengths(answers: list[list[int]]) -> np.ndarray:
    """Tokens of each answer, end token included."""
    return np.array([len(answer) for answer in answers])
