"""The paper's predictor: the model that answers, tuned to say how long its answer would be when it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.prompted.lengths import ARRAY_SHAPES, StatedLengths
from lengthwise.predictors.prompted.predictor import PromptedPredictor
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.tuned.adapter_files import FOLDER, AdapterFiles
from lengthwise.protocols import Backbone
from lengthwise.types import Completion, Request

KIND = "lora"


class LoraPredictor:
    """Perception Only with a LoRA adapter, which is on for the questions alone: the model that answers has none.

    A number stands for the lengths that followed such numbers on prompts that were not tuned on (`learned`).
    """

    def __init__(
        self,
        backbone: Backbone,
        adapter: AdapterFiles,
        learned: StatedLengths,
        learned_from: Provenance,
        max_new_tokens: int,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """`backbone` is the model without the adapter. Raises PredictorError where the adapter can't be put on."""
        self.adapter = adapter
        self.learned = learned
        self.learned_from = learned_from
        self.model = learned_from.model
        self.max_new_tokens = max_new_tokens
        self.card = dict(card or {})
        self._asked = PromptedPredictor(adapter.on(backbone), "po", learned=learned, max_new_tokens=max_new_tokens)

    @property
    def num_asked(self) -> int:
        """Questions so far."""
        return self._asked.num_asked

    @property
    def num_failed(self) -> int:
        """Those whose answer had no number in it."""
        return self._asked.num_failed

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        """Nothing is known where no number can be read."""
        return self._asked.predict(requests)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing: it is tuned as a whole."""

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """JSON and safetensors, and the adapter as PEFT saves it, with a model card, in a folder inside."""
        target = Path(folder)
        files.begin(target)
        self.adapter.write(target / FOLDER)
        files.write_arrays(target, self.learned.arrays())
        fields = {"model": self.model, "learned_from": self.learned_from.to_json(), "card": self.card}
        files.write_header(target, KIND, {**fields, "max_new_tokens": self.max_new_tokens})

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone) -> Self:
        """Raises PredictorError on a folder that can't be read, or that is another model's."""
        source = Path(folder)
        header = files.read_header(source)
        files.check_backbone(source, files.field(source, header, "model", str), backbone)
        learned_from = Provenance.from_json(header.get("learned_from"))
        card = files.field(source, header, "card", dict)
        max_new_tokens = files.field(source, header, "max_new_tokens", int)
        if max_new_tokens < 1:
            raise PredictorError(f"{source}: max_new_tokens is {max_new_tokens}; 1 or more was expected.")
        learned = StatedLengths.from_arrays(files.read_arrays(source, ARRAY_SHAPES), source)
        return cls(backbone, AdapterFiles.read(source / FOLDER), learned, learned_from, max_new_tokens, card)
