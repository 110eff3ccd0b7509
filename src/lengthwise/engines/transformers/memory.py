"""How many tokens' keys and values fit into the memory that is free.

What a token takes is read from the cache itself after a pass over one token: number of layers that have a cache
(some share another's), heads, sizes of keys and values (they may differ), dtype, window, and device (a model may be
sharded). Configurations have other names for these in every family; the cache can't be misread.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import psutil
import torch
from torch import Tensor

from lengthwise.engines.transformers.model import LoadedModel

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROCESS_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class KvLayer:
    """One layer's cache: bytes a token, the most tokens that it holds (None: all), and where it lies."""

    token_bytes: int
    window_tokens: int | None
    device: torch.device

    def row_bytes(self, num_tokens: int) -> int:
        return self.token_bytes * min(num_tokens, self.window_tokens or num_tokens)


@dataclass(frozen=True, slots=True)
class KvLayout:
    """The caches of all layers that have one; none for a purely recurrent model, whose rows don't grow."""

    layers: tuple[KvLayer, ...]

    @property
    def token_bytes(self) -> int:
        """Bytes of one more token while no window is full."""
        return sum(layer.token_bytes for layer in self.layers)

    def row_bytes(self, num_tokens: int) -> int:
        """Bytes of a row of `num_tokens` tokens, prompt and answer."""
        return sum(layer.row_bytes(num_tokens) for layer in self.layers)

    def without_windows(self) -> KvLayout:
        """The same, for a cache that keeps every token in every layer (the row engine's does)."""
        return KvLayout(tuple(replace(layer, window_tokens=None) for layer in self.layers))

    def by_device(self) -> Iterator[tuple[torch.device, KvLayout]]:
        for device in {layer.device for layer in self.layers}:
            yield device, KvLayout(tuple(layer for layer in self.layers if layer.device == device))


def kv_layout(loaded: LoadedModel) -> KvLayout:
    """What the model's cache holds, from a pass over one token."""
    with torch.inference_mode():
        out = loaded.model(torch.zeros(1, 1, dtype=torch.long, device=loaded.device), use_cache=True)
    layers = getattr(getattr(out, "past_key_values", None), "layers", ())
    return KvLayout(tuple(found for layer in layers if (found := _kv_layer(layer)) is not None))


def kv_tokens(layout: KvLayout, max_rows: int, context_tokens: int, memory_share: float) -> float:
    """Prompt and answer tokens that all rows may have together; inf where rows don't grow.

    `memory_share` of each device's free memory is given to keys and values. At most `max_rows` rows run, none longer
    than `context_tokens`. See `token_budget` for windows.
    """
    return min(
        (
            token_budget(part, memory_share * free_bytes(device), max_rows, context_tokens)
            for device, part in layout.by_device()
        ),
        default=inf,
    )


def token_budget(layout: KvLayout, num_bytes: float, max_rows: int, context_tokens: int) -> int:
    """The most tokens that `max_rows` rows may have in all, so that however they are spread over the rows their keys
    and values stay within `num_bytes`; at most `max_rows` full contexts.

    With windows a token of a long row costs less than one of a short row, so the dearest spread is the even one, and
    the budget is `max_rows` times the length at which an even share of the bytes is used up.
    """
    share = num_bytes / max_rows
    tokens = bisect_right(range(1, context_tokens + 1), share, key=layout.row_bytes)
    if tokens == context_tokens:
        return max_rows * context_tokens
    below, above = layout.row_bytes(tokens), layout.row_bytes(tokens + 1)
    return int(max_rows * (tokens + (share - below) / (above - below)))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device now, what torch holds and doesn't use included."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    return min([int(psutil.virtual_memory().available), *_cgroup_free_bytes()])


def release_memory(device: torch.device) -> None:
    """Give the device back what torch holds and doesn't use; the CPU's allocator holds nothing."""
    if device.type == "cpu":
        return
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _kv_layer(layer: object) -> KvLayer | None:
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if not isinstance(keys, Tensor) or not isinstance(values, Tensor) or keys.numel() == 0:
        return None
    window = layer.sliding_window if getattr(layer, "is_sliding", False) else None  # type: ignore[attr-defined]
    return KvLayer(keys.nbytes + values.nbytes, window, keys.device)


# -- control groups: a container's limit, which the machine's free memory does not show --------------------------


def _cgroup_free_bytes(root: Path = CGROUP_ROOT, process: Path = PROCESS_CGROUP) -> Iterable[int]:
    """Free memory within each limit that holds for this process: its group's, and those of the groups around it."""
    for folder in _cgroup_folders(root, process):
        limit = _first_number(folder, "memory.max", "memory.limit_in_bytes")
        used = _first_number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            yield max(0, limit - used + _inactive_file_bytes(folder))


def _cgroup_folders(root: Path, process: Path) -> Iterator[Path]:
    """From the process's group outwards; version 2 (`0::/path`) and version 1 (`n:memory:/path`)."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "" or "memory" in controllers.split(","):
            top = root / "memory" if controllers else root
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _first_number(folder: Path, *names: str) -> int | None:
    """A file that is not there, and `max`, are no limit."""
    for name in names:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):
            continue
    return None


def _inactive_file_bytes(folder: Path) -> int:
    """Page cache that the kernel gives up before it ends a process."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(found.get("total_inactive_file") or found.get("inactive_file") or 0)
