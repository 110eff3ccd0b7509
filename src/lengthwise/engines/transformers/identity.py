"""A model's identity: a short text that is equal for equal files, wherever they lie, and differs when weights do.

`llama-3.5M-1f0c9a6be2d4`: architecture, number of parameters, and a digest over

- config.json, generation_config.json, tokenizer and template files (line ends normalised),
- of each safetensors file its name, its size and its header (names, shapes, places of all tensors),
- of each tensor 4 KiB from its middle; a file up to 32 MiB as a whole.

So 100 GB cost one short read a tensor. Training touches every part of the tensors that it changes; an edit of single
numbers in a large file may go unseen. The digest knows the content and not where it comes from: hub id, revision and
path are not part of it, so that a copy in a folder is the same model. Neither are dtype and device: they change an
answer in its last bits and not its length's distribution. What does change answers stands behind the digest:
quantisation while loading, an adapter, a chat template other than the model's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lengthwise.engines.transformers.checkpoint import ADAPTER_WEIGHTS, weight_names

TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
)
BINARY_FILES = ("tokenizer.model", "spiece.model", "tekken.json")
WHOLE_FILE_BYTES = 32 * 2**20
SAMPLE_BYTES = 4096
DIGEST_CHARACTERS = 12  # 48 bits: two of a million models share one with a chance of 0.2 %


def model_identity(folder: Path, parts: Iterable[str] = ()) -> str:
    """The identity of the model in `folder`, followed by `+part` for each of `parts` (what was done to it)."""
    names = weight_names(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest = digest_files(folder, (*TEXT_FILES, *BINARY_FILES), names)
    name = f"{config.get('model_type', 'model')}-{_num_parameters(folder, names)}-{digest}"
    return "+".join([name, *parts])


def adapter_digest(folder: Path) -> str:
    """The digest of an adapter's files."""
    return digest_files(folder, ("adapter_config.json",), (ADAPTER_WEIGHTS,))


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def digest_files(folder: Path, small: Iterable[str], weights: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in small:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            _add(digest, name, content if name in BINARY_FILES else content.replace(b"\r\n", b"\n"))
    for name in weights:
        with (folder / name).open("rb") as file:
            _add(digest, name, *_weight_samples(file))
    return digest.hexdigest()[:DIGEST_CHARACTERS]


def _add(digest: Any, name: str, *parts: bytes) -> None:
    """Each part with its length before it, so that no two lists of parts look alike."""
    for part in (name.encode(), *parts):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


def _weight_samples(file: BinaryIO) -> Iterable[bytes]:
    num_bytes = file.seek(0, 2)
    file.seek(0)
    if num_bytes <= WHOLE_FILE_BYTES:
        yield file.read()
        return
    start, header = _header(file)
    yield num_bytes.to_bytes(8, "little")
    yield json.dumps(header, sort_keys=True).encode()
    for _, tensor in sorted(_tensors(header)):
        first, end = tensor["data_offsets"]
        file.seek(start + max(first, (first + end - SAMPLE_BYTES) // 2))
        yield file.read(min(SAMPLE_BYTES, end - first))


def _header(file: BinaryIO) -> tuple[int, Mapping[str, Any]]:
    """Where the data begins, and the header: https://huggingface.co/docs/safetensors#format."""
    length = int.from_bytes(file.read(8), "little")
    return 8 + length, json.loads(file.read(length))


def _tensors(header: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, tensor) for name, tensor in header.items() if name != "__metadata__"]


def _num_parameters(folder: Path, names: Iterable[str]) -> str:
    """3.5M, 6.7B; what a quantised checkpoint packs together counts as it is packed."""
    count = 0
    for name in names:
        with (folder / name).open("rb") as file:
            for _, tensor in _tensors(_header(file)[1]):
                size = 1
                for extent in tensor["shape"]:
                    size *= extent
                count += size
    for unit, suffix in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{suffix}"
    return str(count)
