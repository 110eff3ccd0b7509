"""Measures the bundled model and writes its card: `python -m tools.bundled_model.measure --foreign-prompts FILE`.

FILE holds prompts from elsewhere as JSON lines with `instruction` and, if there is one, `input`. Without it the numbers
about foreign prompts are kept if the weights are the ones that they were measured on, and dropped otherwise.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import torch
import transformers

from lengthwise.types import instruction_prompt
from tools.bundled_model.card import write_card
from tools.bundled_model.corpus import Prompt, answer_prompt, held_out_prompts, training_side_prompts
from tools.bundled_model.generation import TEMPERATURE, Answerer, AnswererPool, count_lengths
from tools.bundled_model.statistics import (
    BOUNDS,
    FOREIGN_BOUNDS,
    MAX_NEW_TOKENS,
    foreign_statistics,
    held_out_statistics,
    misses,
    text_predictor_tau,
)
from tools.bundled_model.train import DEFAULT_OUT

NUM_SAMPLES = 4
NUM_FIT_PROMPTS = 2000
FIT_SEED = 30_000
SAMPLING_SEED = 0
BATCH_SIZE = 64
NUM_PROCESSES = 2


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measure_held_out(pool: AnswererPool, num_prompts: int, num_fit_prompts: int) -> dict[str, object]:
    """Statistics on held-out prompts, and the lengths that they come from."""
    held_out = held_out_prompts()[:num_prompts]
    prompts = [prompt.text for prompt in held_out]
    greedy = count_lengths(pool.answer_all(prompts, guess_lengths(held_out)))
    columns = [
        count_lengths(pool.answer_all(prompts, greedy.tolist(), TEMPERATURE, SAMPLING_SEED + index))
        for index in range(NUM_SAMPLES)
    ]
    sampled = np.stack(columns, axis=1)
    statistics = held_out_statistics(greedy, sampled)
    statistics |= measure_text_predictor(pool, prompts, sampled, num_fit_prompts)
    return {"statistics": statistics, "lengths": np.column_stack([greedy, sampled]).tolist()}


def measure_text_predictor(
    pool: AnswererPool, prompts: list[str], sampled: np.ndarray, num_fit_prompts: int
) -> dict[str, float]:
    """How well a bag of words, fitted on one sampled answer to each training-side prompt, orders the lengths."""
    fit = training_side_prompts(num_fit_prompts, FIT_SEED)
    texts = [prompt.text for prompt in fit]
    lengths = count_lengths(pool.answer_all(texts, guess_lengths(fit), TEMPERATURE, SAMPLING_SEED + NUM_SAMPLES))
    return text_predictor_tau(texts, lengths, prompts, sampled)


def guess_lengths(prompts: list[Prompt]) -> list[int]:
    """Characters of an answer by the generator: good enough to batch prompts of like length."""
    rng = random.Random(0)
    return [len(answer_prompt(prompt, rng)) for prompt in prompts]


def read_foreign(path: Path) -> list[str]:
    """One user message a row, as a job reads it."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [instruction_prompt(row["instruction"], row.get("input") or "") for row in rows]


def measure_foreign(pool: AnswererPool, prompts: list[str], end_id: int) -> dict[str, float]:
    """Statistics of greedy answers to foreign prompts."""
    answers = pool.answer_all(prompts, [len(prompt) for prompt in prompts])
    without_end = [[token for token in answer if token != end_id] for answer in answers]
    return foreign_statistics(without_end, count_lengths(answers))


def how_measured(num_prompts: int, num_fit_prompts: int) -> dict[str, object]:
    """Everything needed to repeat the measurement."""
    return {
        "command": "python -m tools.bundled_model.measure --foreign-prompts FILE",
        "num_prompts": num_prompts,
        "num_samples": NUM_SAMPLES,
        "temperature": TEMPERATURE,
        "max_new_tokens": MAX_NEW_TOKENS,
        "sampling_seed": SAMPLING_SEED,
        "batch_size": BATCH_SIZE,
        "num_text_predictor_fit_prompts": num_fit_prompts,
        "dtype": "float32",
        "device": "cpu",
        "foreign_prompts": "1,000 Alpaca prompts, instruction and input as one user message, greedy",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def kept_foreign(path: Path, model_sha256: str) -> dict[str, float] | None:
    """The foreign numbers of an earlier measurement of the same weights."""
    if not path.exists():
        return None
    earlier = json.loads(path.read_text(encoding="utf-8"))
    return earlier["foreign"] if earlier["model_sha256"] == model_sha256 else None


def measure(folder: Path, foreign_path: Path | None, num_prompts: int, num_fit_prompts: int) -> dict[str, object]:
    """The content of statistics.json."""
    answerer = Answerer(folder)
    model_sha256 = sha256_of(folder / "model.safetensors")
    pool = AnswererPool(folder, NUM_PROCESSES, BATCH_SIZE)
    if foreign_path is None:
        foreign = kept_foreign(folder / "statistics.json", model_sha256)
    else:
        prompts = read_foreign(foreign_path)[:num_prompts]
        foreign = measure_foreign(pool, prompts, answerer.tokenizer.eos_token_id)
        print(json.dumps(foreign), flush=True)
    held_out = measure_held_out(pool, num_prompts, num_fit_prompts)
    pool.close()
    return {
        "model_sha256": model_sha256,
        "num_parameters": answerer.model.num_parameters(),
        "how": how_measured(num_prompts, num_fit_prompts),
        "held_out": held_out["statistics"],
        "foreign": foreign,
        "columns": ["greedy", *(f"sample_{index}" for index in range(NUM_SAMPLES))],
        "lengths": held_out["lengths"],
    }


def report(numbers: dict[str, object]) -> list[str]:
    """Lines for each number outside its bound; empty if all is well."""
    lines = misses(numbers["held_out"], BOUNDS)
    return lines + (misses(numbers["foreign"], FOREIGN_BOUNDS) if numbers["foreign"] else ["foreign: not measured"])


def dump(numbers: dict[str, object]) -> str:
    """JSON with one line for each prompt's lengths."""
    head = json.dumps({key: value for key, value in numbers.items() if key != "lengths"}, indent=2)
    rows = ",\n".join(f"    {json.dumps(row)}" for row in numbers["lengths"])
    return head.removesuffix("\n}") + ',\n  "lengths": [\n' + rows + "\n  ]\n}\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--foreign-prompts", type=Path)
    parser.add_argument("--num-prompts", type=int, default=1000, help="fewer for a quick look, which writes nothing")
    parser.add_argument("--num-fit-prompts", type=int, default=NUM_FIT_PROMPTS)
    arguments = parser.parse_args()
    numbers = measure(arguments.model, arguments.foreign_prompts, arguments.num_prompts, arguments.num_fit_prompts)
    if arguments.num_prompts == 1000:
        (arguments.model / "statistics.json").write_text(dump(numbers), encoding="utf-8")
        write_card(arguments.model)
    shown = {key: value for key, value in numbers.items() if key != "lengths"}
    print(json.dumps(shown | {"misses": report(numbers)}, indent=2))


if __name__ == "__main__":
    main()
