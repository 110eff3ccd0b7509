"""Trains the bundled model from a seed: `python -m tools.bundled_model.train --out DIR`.

A step takes random conversations and cuts them into micro-batches of like length: no token is spent on padding or on
attention across conversations, and the gradient is still that of a random batch. Each process runs one thread and
takes every second micro-batch: on cores that others use too, threads that wait for each other at every product lose
more than half of their time.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import distributed, multiprocessing
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.bundled_model.corpus import FINAL_MIX, FIRST_MIX, SECOND_MIX, Mix, training_stream
from tools.bundled_model.tokenization import MODEL_MAX_LENGTH, Encoded, Encoder, token_counter, train_tokenizer

DEFAULT_OUT = Path(__file__).parents[2] / "src" / "lengthwise" / "bundled" / "model"


@dataclass(frozen=True)
class Stage:
    """One pass over a mix, with a learning rate that rises, then falls to zero.

    num_train_tokens counts all tokens of the conversations, prompts included.
    """

    mix: Mix
    seed: int
    num_train_tokens: int
    peak_learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on.

    The first stage binds length to the prompt: 10 million tokens do, 5 million gave fluent text whose length was as
    free within a prompt as between prompts. The second teaches varied sentences and longer foreign answers, after which
    77 % of these were distinct; the third binds them to more words of the prompt.
    """

    tokenizer_seed: int = 1
    stages: tuple[Stage, ...] = (
        Stage(FIRST_MIX, 1, 10_000_000, 3e-3),
        Stage(SECOND_MIX, 2, 4_500_000, 2e-3),
        Stage(FINAL_MIX, 3, 2_000_000, 1.5e-3),
    )
    conversations_per_step: int = 48
    micro_batches_per_step: int = 12
    num_warmup_steps: int = 100
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    num_processes: int = 2


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """3.7M parameters: two thirds in the feed-forward layers, a fifth in the tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MODEL_MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def split_by_length(batch: list[Encoded], num_groups: int) -> list[list[Encoded]]:
    """Groups of like length with about the same number of tokens each."""
    ordered = sorted(batch, key=lambda encoded: len(encoded.ids))
    group_tokens = sum(len(encoded.ids) for encoded in ordered) / num_groups
    groups: list[list[Encoded]] = [[] for _ in range(num_groups)]
    num_tokens = 0
    for encoded in ordered:
        groups[min(num_groups - 1, int(num_tokens / group_tokens))].append(encoded)
        num_tokens += len(encoded.ids)
    return [group for group in groups if group]


def pad_right(group: list[Encoded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and loss weights, both (rows, longest). Causal attention never looks right, so no mask is needed."""
    width = max(len(encoded.ids) for encoded in group)
    ids = torch.tensor([encoded.ids + [pad_id] * (width - len(encoded.ids)) for encoded in group])
    weights = torch.tensor([encoded.weights + [0.0] * (width - len(encoded.weights)) for encoded in group])
    return ids, weights


def weighted_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum of weight × cross-entropy of each next token; scores are computed at answer tokens only."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets, target_weights = ids[:, 1:], weights[:, 1:]
    wanted = target_weights > 0
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), targets[wanted], reduction="none")
    return (losses * target_weights[wanted]).sum()


def learning_rate_factor(step: int, num_steps: int, num_warmup_steps: int) -> float:
    """Linear warm-up to 1, then linear decay to zero."""
    warmup = (step + 1) / num_warmup_steps
    decay = (num_steps - step) / max(1, num_steps - num_warmup_steps)
    return min(1.0, warmup, decay)


def make_optimizer(model: LlamaForCausalLM, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; norms are not decayed."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, stage: Stage) -> Iterator[list[Encoded]]:
    """Endless batches of encoded conversations."""
    encoder = Encoder(tokenizer)
    stream = map(encoder.encode, training_stream(stage.seed, token_counter(tokenizer), stage.mix))
    while True:
        yield list(itertools.islice(stream, recipe.conversations_per_step))


def train_step(model: LlamaForCausalLM, batch: list[Encoded], recipe: Recipe, pad_id: int) -> float:
    """Accumulates the gradient of one batch; returns its weighted mean loss."""
    total_weight = sum(sum(encoded.weights) for encoded in batch)
    total_loss = torch.zeros(1)
    groups = split_by_length(batch, recipe.micro_batches_per_step)
    for group in groups[distributed.get_rank() :: recipe.num_processes]:
        loss = weighted_loss(model, *pad_right(group, pad_id)) / total_weight
        loss.backward()
        total_loss += loss.detach()
    sum_over_processes([*(parameter.grad for parameter in model.parameters()), total_loss])
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
    return total_loss.item()


def sum_over_processes(tensors: list[torch.Tensor]) -> None:
    """Replaces each tensor by its sum over the processes, in one message."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    offset = 0
    for tensor in tensors:
        tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()


def estimate_steps(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, stage: Stage) -> int:
    """Steps that use about the stage's tokens, from the first twenty batches."""
    sample = list(itertools.islice(batches(tokenizer, recipe, stage), 20))
    tokens_per_step = sum(len(encoded.ids) for batch in sample for encoded in batch) / len(sample)
    return round(stage.num_train_tokens / tokens_per_step)


def train(rank: int, recipe: Recipe, stage_index: int, out: Path, rendezvous: Path) -> None:
    """One process's part of a stage, which starts from the model in `out` unless it is the first.

    The first process prints a line now and then, and writes the model to `out` every 400 steps and at the end.
    """
    stage = recipe.stages[stage_index]
    torch.manual_seed(stage.seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=recipe.num_processes)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    model = LlamaForCausalLM.from_pretrained(out) if stage_index else LlamaForCausalLM(make_config(tokenizer))
    num_steps = estimate_steps(tokenizer, recipe, stage)
    for step, line in enumerate(run_steps(model, tokenizer, recipe, stage, num_steps)):
        if rank == 0 and (step % 10 == 0 or step == num_steps - 1):
            print(f"stage {stage_index + 1} step {step + 1} of {num_steps} {line}", flush=True)
        if rank == 0 and (step % 400 == 399 or step == num_steps - 1):
            save(model, tokenizer, out)


def run_steps(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, stage: Stage, num_steps: int
) -> Iterator[str]:
    """Trains the model in place; gives a line about each step."""
    model.train()
    optimizer = make_optimizer(model, recipe)
    started_s, num_tokens = time.monotonic(), 0
    for step, batch in enumerate(itertools.islice(batches(tokenizer, recipe, stage), num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = stage.peak_learning_rate * learning_rate_factor(step, num_steps, recipe.num_warmup_steps)
        loss = train_step(model, batch, recipe, tokenizer.pad_token_id)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        num_tokens += sum(len(encoded.ids) for encoded in batch)
        yield f"loss {loss:.4f} tokens {num_tokens} tokens/s {num_tokens / (time.monotonic() - started_s):.0f}"


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the folder that `from_pretrained` reads: tensors in float16, `dtype` float32, so they are widened."""
    out.mkdir(parents=True, exist_ok=True)
    tied = "lm_head.weight"
    halved = {name: tensor.to(torch.float16) for name, tensor in model.state_dict().items() if name != tied}
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=512,
    )
    model.save_pretrained(out, state_dict=halved)
    config = json.loads((out / "config.json").read_text())
    config["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer.save_pretrained(out)


def _name(function: Callable) -> str:
    return function.__name__


def write_summary(recipe: Recipe, seconds: float, out: Path) -> None:
    """training.json: the line about the training in the model card."""
    tokens = " + ".join(f"{stage.num_train_tokens / 1e6:g}" for stage in recipe.stages)
    summary = f"{tokens} million tokens in {len(recipe.stages)} stages, {seconds / 60:.0f} minutes on two shared cores."
    (out / "training.json").write_text(
        json.dumps({"summary": summary, "recipe": asdict(recipe)}, indent=2, default=_name) + "\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--first-stage", type=int, default=1, help="later ones start from the model in --out")
    arguments = parser.parse_args()
    recipe = Recipe()
    if arguments.first_stage == 1:
        train_tokenizer(recipe.tokenizer_seed).save_pretrained(arguments.out)
    started_s = time.monotonic()
    for stage_index in range(arguments.first_stage - 1, len(recipe.stages)):
        with tempfile.TemporaryDirectory() as folder:
            rendezvous = Path(folder) / "rendezvous"
            multiprocessing.spawn(train, (recipe, stage_index, arguments.out, rendezvous), nprocs=recipe.num_processes)
    write_summary(recipe, time.monotonic() - started_s, arguments.out)


if __name__ == "__main__":
    main()
