"""One cell of the board: a kind, trained with a seed on one set, scored on another. What it depends on is its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lengthwise import __version__
from lengthwise.learning.data import LengthData, read_data
from lengthwise.predictors.kinds import KINDS
from lengthwise.protocols import Backbone

FORMAT = 1  # of a cell's file: a newer one is another cell


@dataclass(frozen=True)
class Source:
    """A set by its name or file, as `read_data` takes it, and the digest of what was read from it."""

    name: str
    mirror: str | None
    limit: int | None
    digest: str

    @classmethod
    def of(cls, name: str, mirror: Path | None, limit: int | None) -> Source:
        """Reads the set. Raises InputError where that can't be done."""
        return cls(name, None if mirror is None else str(mirror), limit, digest_of(read_data(name, mirror, limit)))

    def read(self) -> LengthData:
        return read_data(self.name, None if self.mirror is None else Path(self.mirror), self.limit)


@dataclass(frozen=True)
class Cell:
    """What to train, and on what to score it. `model`: identity of the language model that kinds which need one ask or
    look into, `model_name` how it is opened; None where there is none. `settings`: those of the kind."""

    kind: str
    target: str
    seed: int
    train: Source
    test: Source
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    model_name: str | None = None

    @property
    def name(self) -> str:
        """Readable, and different for cells that differ in anything that a figure depends on."""
        return f"{self.kind}-{self.target}-{self.seed}-{self._digest[:16]}"

    @property
    def _digest(self) -> str:
        """Where files lie and how a model is spelt doesn't count, what is in them does."""
        depends_on = {
            "format": FORMAT,
            "version": __version__,
            "kind": self.kind,
            "target": self.target,
            "seed": self.seed,
            "train": self.train.digest,
            "test": self.test.digest,
            "settings": dict(self.settings),
            "model": self.model,
        }
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Cell:
        return cls(**{**fields, "train": Source(**fields["train"]), "test": Source(**fields["test"])})


def digest_of(data: LengthData) -> str:
    """Of all prompts and lengths, and which of them were cut; SHA-256, hexadecimal."""
    digest = hashlib.sha256(f"{data.lengths.shape} {data.limit}".encode())
    for request in data.requests:
        digest.update(json.dumps([request.prompt, dict(request.api_fields)], default=str).encode() + b"\n")
    for array in (data.lengths, data.is_cut, data.reference):
        digest.update(b"-" if array is None else array.tobytes())
    return digest.hexdigest()


def needs_model(kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether a kind asks a language model or looks into one; a stack does if one of its parts does."""
    is_asking = kind in KINDS and KINDS[kind].needs_backbone
    return is_asking or any(needs_model(part, {}) for part in settings.get("parts", ()))


def open_model(name: str) -> Backbone:
    """The language model as predictors use it. Raises ModelError. Loads torch."""
    from lengthwise.engines.transformers import ModelOptions
    from lengthwise.engines.transformers.backbone import open_backbone

    return open_backbone(ModelOptions(model=name))
