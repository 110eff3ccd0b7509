"""The bundled model's own lengths, to train predictors on and to score them: `python -m tools.leaderboard.own_lengths`.

Training prompts come from the generator, from the side that the model's training may use, with a seed of their own;
those that stand in the training text word for word are left out. Test prompts are the shipped ones, combinations that
are held out from both. Each is answered by `lengthwise collect` at four temperatures, as in the paper. What is there
already is not made again, and an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lengthwise.benchmarks.kept import write_text_whole
from tools.bundled_model.corpus import training_side_prompts, training_stream
from tools.bundled_model.prompts import read_prompts
from tools.bundled_model.tokenization import Encoder, token_counter
from tools.bundled_model.train import DEFAULT_OUT as MODEL_DIR
from tools.bundled_model.train import Recipe, Stage

NUM_TRAIN_PROMPTS = 4_000
SEED = 40_000  # the shipped predictor's prompts have 30,000
TEMPERATURES = (0.0, 0.3, 0.5, 0.7)  # the paper's
MAX_TOKENS = 512


def train_prompts(count: int) -> list[dict[str, str]]:
    """Prompts that neither the model's training text nor the test holds word for word."""
    unwanted = {row["prompt"] for row in read_prompts()} | trained_texts()
    drawn = (prompt for prompt in training_side_prompts(2 * count, SEED) if prompt.text not in unwanted)
    chosen = itertools.islice(drawn, count)
    return [
        {"id": f"own-{index:04d}", "prompt": prompt.text, "family": prompt.combination.family.name}
        for index, prompt in enumerate(chosen)
    ]


def trained_texts() -> set[str]:
    """All user messages of the model's training, drawn again: takes a minute or two."""
    return {text for stage in Recipe().stages for text in _stage_texts(stage)}


def _stage_texts(stage: Stage) -> Iterator[str]:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    encoder, num_tokens = Encoder(tokenizer), 0
    for conversation in training_stream(stage.seed, token_counter(tokenizer), stage.mix):
        yield from (message["content"] for message in conversation.messages if message["role"] == "user")
        num_tokens += len(encoder.encode(conversation).ids)
        # The number of steps was estimated from a sample: a tenth more, to be on the safe side.
        if num_tokens > 1.1 * stage.num_train_tokens:
            return


def write_prompts(rows: list[dict[str, str]], path: Path) -> None:
    """All or nothing: what stands there is taken for whole the next time."""
    write_text_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def collect_command(prompts: Path, lengths: Path) -> list[str]:
    temperatures = ",".join(f"{one:g}" for one in TEMPERATURES)
    options = ["--temperatures", temperatures, "--max-tokens", str(MAX_TOKENS), "--seed", str(SEED), "--keep-text"]
    return ["collect", str(prompts), "-o", str(lengths), *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--num-train-prompts", type=int, default=NUM_TRAIN_PROMPTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    makers = {"test": read_prompts, "train": lambda: train_prompts(options.num_train_prompts)}
    for name, make in makers.items():
        prompts, lengths = options.out / f"{name}-prompts.jsonl", options.out / f"{name}.jsonl"
        if not prompts.is_file():
            write_prompts(make(), prompts)
        command = [sys.executable, "-m", "lengthwise.cli", *collect_command(prompts, lengths)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
