"""A model's or an adapter's files: where they are, and whether they can be loaded, seen before anything is loaded.

Everything below works on folders. What comes from the hub is brought into the hub's cache first, metadata before
weights, so that a wrong model is found before gigabytes are fetched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from lengthwise.errors import ModelError, first_line

METADATA = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED_ADAPTER_WEIGHTS = "adapter_model.bin"  # as older versions of peft save it
LFS_POINTER = b"version https://git-lfs"

_HOW_TO_CONVERT = (
    'Convert it once, where you trust it: python -c "from transformers import AutoModelForCausalLM as M, '
    "AutoTokenizer as T; M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors'); "
    "T.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\""
)
_PERHAPS_OFFLINE = (
    " If the hub has them, they are not in its cache here and it can't be reached: connect to the network."
)


def find_model(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Path:
    """The folder of a model given as folder or hub id: all but its weights, checked. Raises ModelError."""
    patterns = (*METADATA, "*.py") if trust_remote_code else METADATA
    folder = _find(name, revision, patterns)
    _check_config(folder, name)
    _check_tokenizer(folder, name)
    return folder


def find_weights(folder: Path, name: str, revision: str | None = None) -> None:
    """Bring the weights of a model that `find_model` found into its folder, and check them. Raises ModelError."""
    is_on_hub = not os.path.isdir(os.path.expanduser(name))
    if is_on_hub:
        what = f"The weights of {name!r} are not in the hub's cache"
        _download(name, revision, (WEIGHTS, INDEX), what)
        if missing := [weight for weight in weight_names(folder) if not (folder / weight).is_file()]:
            _download(name, revision, missing, what)
    check_weights(folder, name, is_on_hub)


def find_adapter(name: str) -> Path:
    """The folder of a LoRA adapter given as folder or hub id, checked. Raises ModelError."""
    folder = _find(name, None, (*METADATA, ADAPTER_WEIGHTS))
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{name!r} has no adapter_config.json: it is no adapter that peft saved.")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"Adapter {name!r} has no {ADAPTER_WEIGHTS}. Pickle weights (adapter_model.bin) are refused, because they "
            "can run any program when they are read; save it with save_pretrained of a current peft."
        )
    _check_safetensors(folder / ADAPTER_WEIGHTS)
    return folder


def weight_names(folder: Path) -> tuple[str, ...]:
    """Names of the folder's weight files, in order, whether or not they are there; empty if nothing says.

    Where one file and an index of several stand beside each other, it is the one, as transformers reads it.
    """
    if (folder / WEIGHTS).is_file():
        return (WEIGHTS,)
    index = folder / INDEX
    return tuple(sorted(set(_read_json(index).get("weight_map", {}).values()))) if index.is_file() else ()


def check_weights(folder: Path, name: str, is_on_hub: bool = False) -> None:
    """Every weight file is there, is safetensors, and is whole (its header says how long it must be)."""
    names = weight_names(folder)
    if not names:
        raise ModelError(_no_weights(folder, name) + (_PERHAPS_OFFLINE if is_on_hub else ""))
    missing = [weight for weight in names if not (folder / weight).is_file()]
    if missing:
        raise ModelError(
            f"Model {name!r} lacks {len(missing)} of its {len(names)} weight files ({missing[0]}): copy or download "
            f"it again.{_PERHAPS_OFFLINE if is_on_hub else ''}"
        )
    for weight in names:
        _check_safetensors(folder / weight)


# -- where -----------------------------------------------------------------------------------------------------


def _find(name: str, revision: str | None, patterns: Iterable[str]) -> Path:
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        if not os.access(path, os.R_OK | os.X_OK):
            raise ModelError(f"The folder {name!r} can't be read: give one that you may read.")
        if revision is not None:
            raise ModelError(f"{name!r} is a folder and has no revision {revision!r}: leave the revision out.")
        return path
    if os.path.exists(path):
        raise ModelError(f"{name!r} is a file; give the folder that holds config.json, or a hub id.")
    if _is_path(name):
        raise ModelError(
            f"The folder {name!r} does not exist or can't be read; give an existing folder or a hub id (owner/name)."
        )
    return _download(name, revision, patterns, f"{name!r} is no folder here and not in the hub's cache")


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or not name


def _download(name: str, revision: str | None, patterns: Iterable[str], what: str) -> Path:
    """The hub's cache folder, with the files that match. `what` begins the error where the hub can't be reached."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise ModelError(
            f"{name!r} asks for its terms to be accepted on the hub: do so, then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name!r} is no folder here, and the hub has no model of that name, or a private one (`hf auth login`)."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name!r} has no revision {revision!r} on the hub.") from error
    except HFValidationError as error:
        raise ModelError(f"{name!r} is no folder here, and can't be a hub id (owner/name).") from error
    except Exception as error:  # of the file system, the hub, or whatever HTTP client its library uses
        raise ModelError(
            f"{what}, and the hub can't be reached ({first_line(error.__cause__ or error)}): give a folder, or "
            "connect to the network."
        ) from error


# -- what ------------------------------------------------------------------------------------------------------


def _check_config(folder: Path, name: str) -> None:
    if (folder / "config.json").is_file():
        _read_json(folder / "config.json")
        return
    if (folder / "adapter_config.json").is_file():
        base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise ModelError(f"{name!r} is an adapter, not a model: give its base as model ({base}) and it as adapter.")
    raise ModelError(
        f"Model {name!r} has no config.json, so it is no Hugging Face model: give a folder that save_pretrained wrote, "
        "or a hub id."
    )


def _check_tokenizer(folder: Path, name: str) -> None:
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(
            f"Model {name!r} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}): save it into the same folder, "
            "tokenizer.save_pretrained(folder)."
        )


def _no_weights(folder: Path, name: str) -> str:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        return (
            f"Model {name!r} has pickle weights only ({pickles[0]}), which are refused, because they can run any "
            f"program when they are read. {_HOW_TO_CONVERT.format(folder=name)}"
        )
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    found = f"; it has {', '.join(others)}, which transformers does not look for" if others else ""
    return (
        f"Model {name!r} has no weights: neither {WEIGHTS} nor {INDEX}{found}; pickle weights (.bin, .pt) "
        "are not used. Give a model that has safetensors."
    )


def _check_safetensors(path: Path) -> None:
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        raise ModelError(
            f"The weight file {str(path)!r} can't be read ({error.strerror}): make it readable."
        ) from error
    try:
        with safe_open(path, framework="np"):
            return
    except (SafetensorError, OSError) as error:
        way_out = "fetch it with `git lfs pull`" if is_pointer else "copy or download it again"
        raise ModelError(
            f"The weight file {str(path)!r} ({path.stat().st_size} bytes) is cut short or damaged ({error}): {way_out}."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r} can't be read as JSON ({error}): copy or download it again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{str(path)!r} holds {type(found).__name__}, not an object: copy or download it again.")
    return found
