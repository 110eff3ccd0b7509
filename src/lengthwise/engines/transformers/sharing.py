"""A model a second time with the same weights, and adapters on it: what predictors do to it, nobody else sees."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lengthwise.engines.transformers.checkpoint import ADAPTER_WEIGHTS, PICKLED_ADAPTER_WEIGHTS, find_adapter
from lengthwise.engines.transformers.identity import adapter_digest
from lengthwise.engines.transformers.loading import add_adapter
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.errors import ModelError, PredictorError, first_line

ADAPTER_CONFIG = "adapter_config.json"


def sharing_weights(loaded: LoadedModel) -> LoadedModel:
    """The same model in modules of its own, over the same memory: an adapter, a mode or a setting of one does not reach
    the other. Its parameters are frozen; new ones (an adapter's) may be trained."""
    return replace(loaded, model=_shared_copy(loaded.model))


def with_adapter(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The same, with a LoRA adapter on it. Raises PredictorError where the folder holds none that fits, or the model
    has one already."""
    if getattr(loaded.model, "_hf_peft_config_loaded", False):
        raise PredictorError(
            f"{loaded.identity} has an adapter already, and {folder} can't go on top of it: merge that one into the "
            "model (peft's merge_and_unload), or use a predictor without an adapter."
        )
    found = sharing_weights(loaded)
    try:
        with _safe_folder(folder) as safe:
            if _rewrites_weights(safe):
                _take_own_weights(found.model, folder)
            digest = adapter_digest(safe)
            add_adapter(found.model, safe, str(folder))
    except ModelError as error:
        raise PredictorError(str(error)) from error
    return replace(found, identity=f"{loaded.identity}+adapter-{digest}")


def _shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Parameters and buffers are in the memo, so a deep copy copies the modules and nothing heavy. Plain parameters
    become others over the same memory: whether one is trained is a mark on it, which adapters set. Those of other
    classes (quantised ones carry more than their numbers) are shared as they are."""
    memo: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        memo[id(tensor)] = _frozen(tensor)
    shared = copy.deepcopy(model, memo)
    shared.train(False)
    return shared


def _frozen(tensor: Tensor) -> Tensor:
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor


def _rewrites_weights(folder: Path) -> bool:
    """Some beginnings (OLoRA, PiSSA, LoftQ, ...) take out of the model's weights what they put into the adapter, and do
    so again whenever it is put on; peft's OLoRA in place."""
    try:
        begun = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["init_lora_weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whoever reads it next says what is wrong
    return isinstance(begun, str) and begun != "gaussian"


def _take_own_weights(model: PreTrainedModel, folder: Path) -> None:
    """Copies in place of what is shared. Raises PredictorError on quantised weights."""
    for parameter in model.parameters():
        if type(parameter) is not nn.Parameter:
            raise PredictorError(
                f"The adapter in {folder} was begun by rewriting the model's weights (`init_lora_weights`), which "
                "can't be done here: they are quantised. Convert it to a plain LoRA with peft, or load the model "
                "without quantization."
            )
        parameter.data = parameter.data.clone()


# -- an adapter's files ----------------------------------------------------------------------------------------


@contextmanager
def _safe_folder(folder: Path) -> Iterator[Path]:
    """The folder itself, or for an older one, whose weights are a pickle, another with the same as safetensors. Raises
    PredictorError or ModelError."""
    if not folder.is_dir():
        raise PredictorError(f"There is no adapter at {folder}: no such folder. Give the one that peft saved.")
    if (folder / ADAPTER_WEIGHTS).is_file() or not (folder / PICKLED_ADAPTER_WEIGHTS).is_file():
        yield find_adapter(str(folder))
        return
    if not (folder / ADAPTER_CONFIG).is_file():
        raise PredictorError(f"{folder} has no {ADAPTER_CONFIG}: it is no adapter that peft saved.")
    tensors = _read_pickle(folder / PICKLED_ADAPTER_WEIGHTS)
    with tempfile.TemporaryDirectory(prefix="lengthwise-adapter-") as name:
        from safetensors.torch import save_file

        safe = Path(name)
        shutil.copyfile(folder / ADAPTER_CONFIG, safe / ADAPTER_CONFIG)
        save_file(tensors, safe / ADAPTER_WEIGHTS)
        yield find_adapter(str(safe))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors in it, by torch's reader that makes tensors and containers only, and so runs no code. Raises
    PredictorError."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise PredictorError(
            f"{path} can't be read as tensors only ({first_line(error)}); nothing of it was run. Save the adapter "
            "again with a current peft (safetensors), or copy it again."
        ) from error
    is_tensors = isinstance(found, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    )
    if not is_tensors:
        raise PredictorError(f"{path} holds a {type(found).__name__}, not tensors by name: it is no adapter.")
    return {key: value.detach().clone().contiguous() for key, value in found.items()}
