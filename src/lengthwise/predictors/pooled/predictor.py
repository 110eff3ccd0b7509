"""A length from what a language model makes of the prompt: its last layer's states, pooled, through a small network.

With the mean over the prompt's tokens it is the baseline of the paper (arXiv 2305.13144); weighed by how uncertain the
model is of each next token, that of arXiv 2602.11812.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.correction import are_levels, corrected
from lengthwise.predictors.pooled.net import PooledNet
from lengthwise.predictors.provenance import Provenance
from lengthwise.protocols import Backbone, LengthPredictor, Pooling
from lengthwise.types import Completion, Request

KINDS: dict[Pooling, str] = {"mean": "pooling", "last": "pooling", "entropy": "entropy"}
BASE = "base"  # the folder inside that holds the base


class PooledPredictor:
    """Length from the states of `backbone`, a model that reads each prompt for it, pooled as `pooling` says.

    The network's chances are corrected by what held-out prompts said: stated ones `levels[0]` are worth `levels[1]`
    (k each, rising from 0 to 1). A prompt that the model can't read gets `marginal`, the curve of all training lengths
    (1 × len(GRID)). `base` says what is known of a prompt that is not to be read for this alone (`from_prefill`).
    """

    def __init__(
        self,
        net: PooledNet,
        levels: tuple[Floats, Floats],
        marginal: Floats,
        pooling: Pooling,
        backbone: Backbone,
        learned_from: Provenance,
        base: LengthPredictor | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net
        self.levels = levels
        self.marginal = marginal
        self.pooling = pooling
        self.backbone = backbone
        self.learned_from = learned_from
        self.base = base
        self.card = dict(card or {})
        self.model = learned_from.model

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        """Reads all prompts: a forward pass over each."""
        if not requests:
            return LengthEstimates.unknown(0)
        return self.revise(requests, self.backbone.states(requests, self.pooling))

    def revise(self, requests: Sequence[Request], states: Floats) -> LengthEstimates:
        """What is known once the prompts were read: `states` (n × width) are as `Backbone.states` gives them."""
        is_read = np.isfinite(states).all(axis=1, keepdims=True)
        stated = LengthEstimates.from_survival(self.net.survival(np.where(is_read, states, 0).astype(np.float32)))
        curves = corrected(stated, *self.levels).survival
        return LengthEstimates.from_survival(np.where(is_read, curves, self.marginal))

    def from_prefill(self, model: str) -> PrefillPredictor | None:
        """The same for an engine that reports the states of `model`: no prompt is read beforehand. None where that is
        not the model that it looks into."""
        return PrefillPredictor(self) if model == self.backbone.model else None

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        if self.base is not None:
            self.base.observe(requests, completions)

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, the base into a folder inside: JSON and safetensors. Raises PredictorError where the
        base can't be saved."""
        target = Path(folder)
        save_base = None if self.base is None else files.saver(self.base, "the pooling predictor")
        files.begin(target)
        if save_base is not None:
            save_base(target / BASE)
        files.write_arrays(target, {**self.net.arrays(), **self._curves()})
        fields = {
            "model": self.model,
            "backbone": self.backbone.model,
            "pooling": self.pooling,
            "width": self.net.width,
            "num_layers": len(self.net.layers),
            "has_base": self.base is not None,
            "learned_from": self.learned_from.to_json(),
            "card": self.card,
        }
        files.write_header(target, KINDS[self.pooling], fields)

    def _curves(self) -> dict[str, Floats]:
        return {"stated": self.levels[0], "true": self.levels[1], "marginal": self.marginal}

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone) -> Self:
        """Raises PredictorError on a folder that can't be read, and on another backbone than it learned with."""
        source = Path(folder)
        header = files.read_header(source)
        files.check_backbone(source, files.field(source, header, "backbone", str), backbone)
        pooling = files.field(source, header, "pooling", str)
        if pooling not in KINDS:
            raise PredictorError(
                f"{source}: its pooling {pooling!r:.60} is none of {', '.join(KINDS)}. Train it again."
            )
        width, num_layers = (files.field(source, header, name, int) for name in ("width", "num_layers"))
        net = PooledNet.read(source, num_layers, width)
        curves = files.read_arrays(source, {"stated": (None,), "true": (None,), "marginal": (1, len(GRID))})
        levels = curves["stated"], curves["true"]
        if not are_levels(*levels):
            raise PredictorError(f"{source}: its levels are no calibration. Train the predictor again.")
        base = _load_base(source, backbone) if files.field(source, header, "has_base", bool) else None
        learned_from = Provenance.from_json(header.get("learned_from"))
        card = files.field(source, header, "card", dict)
        return cls(net, levels, curves["marginal"], pooling, backbone, learned_from, base, card)


class PrefillPredictor:
    """A PooledPredictor that reads no prompt itself: `predict` says what its base knows (without one, the distribution
    of all training lengths), and `revise` what the states say that the engine reports when it has read the prompt."""

    def __init__(self, inner: PooledPredictor) -> None:
        self.inner = inner
        self.model = inner.model
        self.wants_states: Pooling = inner.pooling

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        if self.inner.base is not None:
            return self.inner.base.predict(requests)
        return LengthEstimates.from_survival(np.repeat(self.inner.marginal, len(requests), axis=0))

    def revise(self, requests: Sequence[Request], states: Floats) -> LengthEstimates:
        return self.inner.revise(requests, states)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        self.inner.observe(requests, completions)


def _load_base(folder: Path, backbone: Backbone) -> LengthPredictor:
    from lengthwise.predictors.saved import load_folder

    if files.read_header(folder / BASE).get("kind") in KINDS.values():
        raise PredictorError(f"{folder}: its base would read the prompts as well. Train it again.")
    return load_folder(folder / BASE, backbone)
