"""A saved predictor on disk: a folder with `predictor.json` and, for the trained ones, safetensors and text.

Loading reads JSON, UTF-8 text and safetensors only, so that a folder from elsewhere can be wrong but can't run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError
from lengthwise.protocols import Backbone

FORMAT_VERSION = 2  # 1: no trees; what read only that would take the regression without them
HEADER = "predictor.json"
ARRAYS = "arrays.safetensors"

Array = NDArray[Any]


def begin(folder: Path) -> None:
    """Make `folder` for a predictor. One that stands there is none from here on, until its header is written anew."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEADER).unlink(missing_ok=True)


def write_header(folder: Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Write `predictor.json`. It comes last: a folder without it was not finished, and is not loaded. Raises
    ValueError on NaN and infinities, which JSON does not have."""
    header = {"format_version": FORMAT_VERSION, "kind": kind, **fields}
    text = json.dumps(header, indent=2, allow_nan=False) + "\n"
    (folder / HEADER).write_text(text, encoding="utf-8")


def read_header(folder: Path) -> dict[str, Any]:
    """The header of a saved predictor. Raises PredictorError with what is wrong with the folder."""
    path = folder / HEADER
    if not folder.is_dir():
        raise PredictorError(f"There is no predictor at {folder}: no such folder. Train one, or use `none`.")
    if not path.is_file():
        raise PredictorError(f"{folder} is no saved predictor: it has no {HEADER} (pickle files are never loaded).")
    header = _parsed(path)
    version = header.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise PredictorError(f"{path} has format_version {version!r}; a number from 1 was expected. Train it again.")
    if version > FORMAT_VERSION:
        raise PredictorError(
            f"{path} has format version {version}; this version of lengthwise reads up to {FORMAT_VERSION}. "
            "Install a newer one, or train the predictor again."
        )
    return header


def field(folder: Path, header: Mapping[str, Any], name: str, kind: type | UnionType) -> Any:
    """One field of a header. Raises PredictorError where it is missing or of another type."""
    value = header.get(name)
    if name not in header or not isinstance(value, kind):
        wanted = getattr(kind, "__name__", str(kind))
        raise PredictorError(f"{folder / HEADER}: {name!r} is {value!r:.60}; {wanted} was expected. Train it again.")
    return value


def saver(part: object, whole: str) -> Callable[[Path], None]:
    """How a predictor inside another is saved, asked before anything is written. Raises PredictorError where it can't
    be; `whole` is what it is part of, in words."""
    save: Callable[[Path], None] | None = getattr(part, "save", None)
    if save is None:
        raise PredictorError(f"The {type(part).__name__} inside {whole} can't be saved; build on one that can.")
    return save


def check_backbone(folder: Path, learned_with: str, backbone: Backbone) -> None:
    """Raises PredictorError where `backbone` is another model than the one that the predictor in `folder` used."""
    if backbone.model != learned_with:
        raise PredictorError(
            f"The predictor in {folder} uses the model {learned_with}, and here is {backbone.model}: what it learned "
            "of the one does not hold for the other. Give the model that it was trained with (--model), or train it "
            "again."
        )


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_digested(folder: Path, header: Mapping[str, Any], name: str, digest: str) -> bytes:
    """A file whose SHA-256 stands in the header as `digest`: for what its own reader does not check. Raises
    PredictorError where it is missing, damaged or changed."""
    path = folder / name
    wanted = field(folder, header, digest, str)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PredictorError(f"{path} can't be read ({error.strerror}). Train the predictor again.") from error
    if digest_of(content) != wanted:
        raise PredictorError(f"{path} is not what was saved: damaged or changed. Train the predictor again.")
    return content


def _parsed(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PredictorError(f"{path} can't be read as JSON ({error}). Train the predictor again.") from error
    if not isinstance(header, dict):
        raise PredictorError(f"{path} holds a {type(header).__name__}, not an object. Train the predictor again.")
    return header


def write_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    from safetensors.numpy import save

    # Not save_file: it makes files that only their owner may read.
    (folder / ARRAYS).write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(folder: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Array]:
    """Arrays by name: finite float32 of the given shapes (None: any extent). Raises PredictorError otherwise."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / ARRAYS
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise PredictorError(f"{path} can't be read as safetensors ({error}). Train the predictor again.") from error
    for name, shape in shapes.items():
        _check_array(path, name, arrays.get(name), shape)
    return {name: arrays[name] for name in shapes}


def extent(folder: Path, name: str) -> int | None:
    """How many rows an array has; None where it has none that could be read, of which `read_arrays` says why."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / ARRAYS, "numpy") as arrays:
            shape = arrays.get_slice(name).get_shape()
    except (OSError, SafetensorError, ValueError):
        return None
    return int(shape[0]) if shape else None


def _check_array(path: Path, name: str, array: Array | None, shape: tuple[int | None, ...]) -> None:
    if array is None:
        raise PredictorError(f"{path} has no array {name!r}. Train the predictor again.")
    fits = len(shape) == array.ndim and all(w in (None, h) for w, h in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != np.float32:
        wanted = " × ".join("any" if extent is None else str(extent) for extent in shape)
        raise PredictorError(
            f"{path}: {name!r} is {array.dtype} of shape {array.shape}; float32 of {wanted} was expected. "
            "Train the predictor again."
        )
    if not np.isfinite(array).all():
        raise PredictorError(f"{path}: {name!r} holds values that are not finite. Train the predictor again.")
