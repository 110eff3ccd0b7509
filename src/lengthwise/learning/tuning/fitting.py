"""Tuning by `transformers.Trainer`: a module that gives its own loss, and examples."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lengthwise.errors import PredictorError
from lengthwise.learning.training import TrainConfig
from lengthwise.learning.tuning.config import TuningConfig
from lengthwise.learning.tuning.reporting import callbacks

log = logging.getLogger("lengthwise")

LOG_SHARE = 0.05  # of all steps, between two lines of the log
MAX_GRADIENT = 1.0  # norm of a step's gradient; longer ones are shortened (Trainer's default)

Batch = dict[str, Tensor]
Example = Mapping[str, Any]
ParameterGroup = dict[str, Any]
"""`params`, and `lr`, their learning rate at its highest."""


def trained_in(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


class _Arguments(TrainingArguments):  # type: ignore[misc]
    """The model stays where it is: its weights are those of the model that answers."""

    @property
    def place_model_on_device(self) -> bool:
        return False


class _Log(TrainerCallback):  # type: ignore[misc]
    """Steps and loss, in this package's log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            log.info("Tuning: step %d of %d, loss %.3f.", state.global_step, state.max_steps, float(logs["loss"]))


def fit(
    module: nn.Module,
    examples: Sequence[Example],
    collate: Callable[[Sequence[Example]], Batch],
    groups: Sequence[ParameterGroup],
    config: TuningConfig,
    train_config: TrainConfig,
) -> None:
    """Train the parameters of `groups` in `module`, in place. `module(**batch)` gives {"loss": ...} and brings the
    batch to its own device; `collate` makes one of examples, which have `input_ids`. Logs as `train_config` says.
    Raises PredictorError without examples."""
    if not examples:
        raise PredictorError(
            f"None of the prompts can be read within max_prompt_tokens ({config.max_prompt_tokens}): set a higher one."
        )
    with tempfile.TemporaryDirectory(prefix="lengthwise-tuning-") as folder:
        arguments = _arguments(folder, config, train_config.seed, next(module.parameters()).device)
        trainer = Trainer(
            model=module,
            args=arguments,
            train_dataset=list(examples),
            data_collator=collate,
            optimizers=(torch.optim.AdamW(groups, weight_decay=0.0), None),  # the schedule is Trainer's
            callbacks=[_Log(), *callbacks(train_config)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    module.train(False)


def _arguments(folder: str, config: TuningConfig, seed: int, device: torch.device) -> TrainingArguments:
    arguments = _Arguments(
        output_dir=folder,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=config.warmup_ratio,
        max_grad_norm=MAX_GRADIENT,
        bf16=config.precision == "bfloat16",
        seed=seed,
        use_cpu=device.type == "cpu",
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=LOG_SHARE,
        report_to="none",
        disable_tqdm=True,
    )
    assert arguments.device.type  # settles the devices; on several, Trainer would copy the model to each
    arguments._n_gpu = min(arguments._n_gpu, 1)
    return arguments


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All random generators begin at `seed`, and stand where they stood afterwards."""
    numpys, pythons = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)
            random.setstate(pythons)
