"""Batched answers from the bundled model, with plain `generate`."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
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

    def _cut(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids


@dataclass(frozen=True)
class Batch:
    """Prompts answered together; the seed makes a sampled answer independent of which process draws it."""

    rows: tuple[int, ...]
    prompts: tuple[str, ...]
    temperature: float
    seed: int


class AnswererPool:
    """Processes of one thread each: on two cores that is twice as fast as one process of two threads."""

    def __init__(self, folder: Path, num_processes: int, batch_size: int):
        self._batch_size = batch_size
        self._pool = multiprocessing.get_context("spawn").Pool(num_processes, _start_worker, (folder,))

    def answer_all(
        self, prompts: Sequence[str], like_length: Sequence[float], temperature: float = 0.0, seed: int = 0
    ) -> list[list[int]]:
        """One answer a prompt, in the prompts' order; `like_length` sorts them into batches of like length."""
        order = sorted(range(len(prompts)), key=lambda row: -like_length[row])
        chunks = [tuple(order[start : start + self._batch_size]) for start in range(0, len(order), self._batch_size)]
        batches = [
            Batch(rows, tuple(prompts[row] for row in rows), temperature, 1000 * seed + index)
            for index, rows in enumerate(chunks)
        ]
        answers: list[list[int]] = [[] for _ in prompts]
        for batch, batch_answers in zip(batches, self._pool.imap(_answer_batch, batches), strict=True):
            for row, answer in zip(batch.rows, batch_answers, strict=True):
                answers[row] = answer
        return answers

    def close(self) -> None:
        """Ends the processes."""
        self._pool.terminate()
        self._pool.join()


_worker: Answerer


def _start_worker(folder: Path) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = Answerer(folder)


def _answer_batch(batch: Batch) -> list[list[int]]:
    torch.manual_seed(batch.seed)
    return _worker.answer(batch.prompts, batch.temperature)


def count_lengths(answers: list[list[int]]) -> np.ndarray:
    """Tokens of each answer, end token included."""
    return np.array([len(answer) for answer in answers])
