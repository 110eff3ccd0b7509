"""The [LEN] token: a model with an adapter reads the prompt and a learned vector behind it, and what its last layer
makes of that vector is sorted into bins of lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.terms import clip
from lengthwise.predictors.tuned.adapter_files import FOLDER, AdapterFiles
from lengthwise.protocols import Backbone
from lengthwise.types import Completion, Message, Request

KIND = "len"


@dataclass(frozen=True, eq=False)
class LenWeights:
    """`vector` (width) stands behind the prompt; `head` (bins × width) and `bias` (bins) make logits of its state. Bin
    i holds lengths above `bin_width` × i, up to the next; the last is open. `marginal` (1 × len(GRID)) are all training
    lengths: within a bin a length lies as they do."""

    vector: Floats
    head: Floats
    bias: Floats
    bin_width: int
    marginal: Floats

    def logits(self, states: Floats) -> Floats:
        return np.asarray(states @ self.head.T + self.bias, np.float32)

    def tempered(self, temperature: float) -> Self:
        """With all logits divided by `temperature`."""
        scale = np.float32(1 / temperature)
        return replace(self, head=self.head * scale, bias=self.bias * scale)

    def survival(self, logits: Floats) -> Floats:
        """n × bins → P(length > n) on the grid, n × len(GRID)."""
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        reached = np.cumsum(chances / chances.sum(axis=1, keepdims=True), axis=1)
        at_edges = 1 - np.pad(reached, ((0, 0), (1, 0)))
        return np.clip(at_edges @ self._between_edges, 0, 1).astype(np.float32)

    @cached_property
    def _between_edges(self) -> Floats:
        """How much each edge of a bin counts at each point of the grid (edges × len(GRID)): linear in the chance of all
        training lengths, which is 1 at the first edge and 0 beyond the last."""
        inner = self.bin_width * np.arange(1, len(self.bias))
        everything = LengthEstimates.from_survival(np.repeat(self.marginal, len(inner), axis=0))
        edges = np.concatenate([[1.0], everything.exceeds(inner), [0.0]])
        rising = edges[::-1]
        each = np.eye(len(edges))[::-1]
        return np.array([np.interp(self.marginal[0], rising, one) for one in each.T], np.float32)


class LenPredictor:
    """Bound to the model that it was tuned with. The adapter is on in here only: the model that answers has none."""

    def __init__(
        self,
        weights: LenWeights,
        adapter: AdapterFiles,
        backbone: Backbone,
        learned_from: Provenance,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """`backbone` is the model without the adapter. Raises PredictorError where it can't be put on."""
        self.weights = weights
        self.adapter = adapter
        self.learned_from = learned_from
        self.model = learned_from.model
        self.card = dict(card or {})
        self._backbone = adapter.on(backbone)

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        """Nothing is known of prompts that the model can't read."""
        return LengthEstimates.from_survival(self.weights.survival(self.logits(requests)))

    def logits(self, requests: Sequence[Request]) -> Floats:
        """Of the bins (n × bins); NaN for prompts that the model can't read."""
        read = [shortened(request) for request in requests]
        return self.weights.logits(self._backbone.last_state_after(read, self.weights.vector))

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing: it is tuned as a whole."""

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """JSON and safetensors, and the adapter as PEFT saves it, with a model card, in a folder inside."""
        target, weights = Path(folder), self.weights
        files.begin(target)
        self.adapter.write(target / FOLDER)
        files.write_arrays(target, {name: getattr(weights, name) for name in ("vector", "head", "bias", "marginal")})
        learned_from = self.learned_from.to_json()
        fields = {"model": self.model, "learned_from": learned_from, "card": self.card, "bin_width": weights.bin_width}
        files.write_header(target, KIND, fields)

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone) -> Self:
        """Raises PredictorError on a folder that can't be read, or that is another model's."""
        source = Path(folder)
        header = files.read_header(source)
        files.check_backbone(source, files.field(source, header, "model", str), backbone)
        learned_from = Provenance.from_json(header.get("learned_from"))
        card = files.field(source, header, "card", dict)
        bin_width = files.field(source, header, "bin_width", int)
        weights = _read_weights(source, bin_width)
        return cls(weights, AdapterFiles.read(source / FOLDER), backbone, learned_from, card)


def shortened(request: Request) -> Request:
    """The same with long texts by their beginnings and ends: read whole they would cost as much as to be answered."""
    if isinstance(request.prompt, str):
        return replace(request, prompt=clip(request.prompt))
    return replace(request, prompt=tuple(_shortened(message) for message in request.prompt))


def _shortened(message: Message) -> Message:
    content = message.get("content")
    return {**message, "content": clip(content)} if isinstance(content, str) else message


def _read_weights(folder: Path, bin_width: int) -> LenWeights:
    shapes: dict[str, tuple[int | None, ...]] = {"vector": (None,), "bias": (None,), "marginal": (1, len(GRID))}
    arrays = files.read_arrays(folder, {**shapes, "head": (None, None)})
    wanted = (len(arrays["bias"]), len(arrays["vector"]))
    if arrays["head"].shape != wanted or bin_width < 1 or len(arrays["bias"]) < 2:
        raise PredictorError(
            f"{folder}: its head has shape {arrays['head'].shape} and bins of {bin_width} tokens; {wanted} and 1 or "
            "more were expected. Train the predictor again."
        )
    return LenWeights(arrays["vector"], arrays["head"], arrays["bias"], bin_width, arrays["marginal"])
