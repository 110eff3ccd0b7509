"""What is known of a model before it is loaded: the tokens of its prompts, and the measurement that was kept of it.
Nothing is fetched, and no weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from lengthwise.bundled import is_bundled
from lengthwise.engines.transformers import probe_store
from lengthwise.engines.transformers.checkpoint import METADATA, weight_names
from lengthwise.engines.transformers.loading import choose_device, read_without_weights
from lengthwise.engines.transformers.model import EncodePrompt
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.engines.transformers.probe import Probe, device_name, from_json, software_key
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.types import ErrorInfo, Prepared, Request


@dataclass(frozen=True)
class ModelAtHand:
    """A model that lies on this machine; `options` name its folder."""

    options: ModelOptions
    identity: str
    encode_prompt: EncodePrompt
    context_tokens: int

    def prepare(self, requests: Sequence[Request], max_tokens: int) -> list[Prepared | ErrorInfo]:
        """What its engine will say of them, where `max_tokens` is the limit of those that give none."""
        return Prompts(self, max_tokens).prepare(requests)

    def kept_probe(self) -> Probe | None:
        """What was measured of it before on this device, with this software."""
        return probe_store.newest(self.probe_key(), from_json)

    def probe_key(self) -> dict[str, str | int]:
        """What is known beforehand of the key under which it is kept."""
        wanted: dict[str, str | int] = {
            "model": self.identity,
            "device": device_name(torch.device(choose_device(self.options.device))),
            **software_key(),
        }
        if self.options.dtype != "auto":
            wanted["dtype"] = f"torch.{self.options.dtype}"
        return wanted


def find_at_hand(options: ModelOptions) -> ModelAtHand | None:
    """The model, where it is the bundled one, a folder, or in the hub's cache. Raises ModelError on one that is there
    and can't be read."""
    name = options.model
    if name is not None and not is_bundled(name) and not os.path.isdir(os.path.expanduser(name)):
        folder = _cached(name, options.revision)
        if folder is None:
            return None
        options = replace(options, model=folder, revision=None)
    return ModelAtHand(options, *read_without_weights(options))


def _cached(name: str, revision: str | None) -> str | None:
    """The folder of the hub's cache that has all of a model."""
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(METADATA), local_files_only=True))
    except (OSError, ValueError):  # the hub's errors are of these: not there, or no name that the hub could have
        return None
    weights = weight_names(folder)
    return str(folder) if weights and all((folder / weight).is_file() for weight in weights) else None
