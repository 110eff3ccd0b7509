"""A LoRA adapter's files, in PEFT's layout, as they go from one folder to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from lengthwise.errors import PredictorError
from lengthwise.protocols import Backbone

FOLDER = "adapter"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"


@dataclass(frozen=True)
class AdapterFiles:
    """Contents by name. An adapter of the paper's kind has 4M numbers on a model of 7 billion, so all are held."""

    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises PredictorError where one of the two that matter is missing."""
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise PredictorError(f"{folder} has no {name}: it is no adapter that PEFT saved. Train it again.")
        names = [name for name in (CONFIG, WEIGHTS, CARD) if (folder / name).is_file()]
        return cls({name: (folder / name).read_bytes() for name in names})

    def with_card(self, text: str) -> Self:
        """With this model card, in place of any other."""
        return type(self)({**self.contents, CARD: text.encode()})

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            (folder / name).write_bytes(content)

    def on(self, backbone: Backbone) -> Backbone:
        """The model with this adapter switched on. Raises PredictorError where it doesn't fit."""
        with TemporaryDirectory(prefix="lengthwise-adapter-") as name:
            self.write(Path(name))
            return backbone.with_adapter(Path(name))
