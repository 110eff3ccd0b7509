"""LoRA adapters on a model of any family: where they go, and their files."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.sharing import sharing_weights
from lengthwise.errors import PredictorError, first_line
from lengthwise.learning.tuning.card import hub_id_of
from lengthwise.learning.tuning.config import LARGE_PARAMETERS, TuningConfig, rate_for
from lengthwise.predictors.tuned.adapter_files import AdapterFiles


def with_new_adapter(loaded: LoadedModel, config: TuningConfig) -> Any:
    """A PEFT model over the weights of `loaded`, which stays as it is; nothing but the adapter can be trained. Draws
    the adapter's weights from torch's generator. Raises PredictorError where it can't be put on."""
    import peft

    if getattr(loaded.model, "_hf_peft_config_loaded", False):
        raise PredictorError("The model has an adapter already. Tune its base, or merge the adapter into it.")
    names = config.target_modules or projections(loaded.model)
    settings = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(names),
        fan_in_fan_out=_has_conv1d(loaded.model, names),
        bias="none",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of peft's calls to transformers: nothing to do about here
            return peft.get_peft_model(sharing_weights(loaded).model, settings)
    except ValueError as error:
        there = ", ".join(all_projections(loaded.model))
        raise PredictorError(
            f"An adapter can't be put on {', '.join(names)} ({first_line(error)}). The model has {there}: name some of "
            "them as `target_modules`."
        ) from error


def projections(model: PreTrainedModel) -> tuple[str, ...]:
    """Last names of the projections to be tuned: all of a small model, of a large one what PEFT takes for its family
    (all where it knows none)."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_FAMILY

    known = BY_FAMILY.get(model.config.get_text_config().model_type)
    if model.num_parameters() >= LARGE_PARAMETERS and isinstance(known, list):
        return tuple(known)
    return all_projections(model)


def all_projections(model: PreTrainedModel) -> tuple[str, ...]:
    """Last names of all projections in attention and MLPs, whatever they are called: all linear modules but the one
    that gives the logits."""
    head = model.get_output_embeddings()
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    found = {name: None for name in linear if model.get_submodule(name) is not head}
    return tuple(dict.fromkeys(name.rpartition(".")[2] for name in found))


def _has_conv1d(model: PreTrainedModel, names: tuple[str, ...]) -> bool:
    """GPT-2 keeps its weights the other way round."""
    return any(isinstance(module, Conv1D) and name.endswith(names) for name, module in model.named_modules())


def rate_of(config: TuningConfig, loaded: LoadedModel) -> float:
    """The learning rate that is asked for, or the one for a model of this size."""
    return config.learning_rate or rate_for(loaded.model.num_parameters())


def files_of(tuned: Any, loaded: LoadedModel) -> AdapterFiles:
    """What PEFT saves of an adapter, with the base model by its name on the hub, where it has one."""
    tuned.peft_config["default"].base_model_name_or_path = hub_id_of(loaded) or loaded.model.name_or_path
    with tempfile.TemporaryDirectory(prefix="lengthwise-adapter-") as name:
        # Embeddings are not tuned, and "auto" would look for the base model on the hub.
        tuned.save_pretrained(name, save_embedding_layers=False)
        return AdapterFiles.read(Path(name))


def tuned_modules(tuned: Any) -> list[str]:
    """Last names of the projections that have an adapter."""
    return sorted(tuned.peft_config["default"].target_modules)
