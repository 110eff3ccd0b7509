"""Where a training log goes, on request: TensorBoard or Weights & Biases."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lengthwise.errors import UsageError
from lengthwise.learning.training import TrainConfig

DEFAULT_FOLDER = "lengthwise-logs"
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def check_reporter(config: TrainConfig) -> None:
    """Raises UsageError for one that is not known, or not installed: before anything is trained."""
    if config.report_to is None:
        return
    if config.report_to not in _PACKAGES:
        raise UsageError(f"report_to is {config.report_to!r}; it must be one of {', '.join(_PACKAGES)}, or left out.")
    package = _PACKAGES[config.report_to]
    if find_spec(package) is None:
        raise UsageError(f"Logs for {package} need the package: pip install {package}, or leave report_to out.")


def callbacks(config: TrainConfig) -> list[Any]:
    """The Trainer's callback that writes under `config.log_folder`; none where nothing was asked for."""
    if config.report_to is None:
        return []
    folder = config.log_folder or DEFAULT_FOLDER
    if config.report_to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(folder))]
    from transformers.integrations import WandbCallback

    # It is no dependency, so nothing is known of it here. The callback takes the run that is there.
    import_module("wandb").init(project="lengthwise", dir=folder)
    return [WandbCallback()]
