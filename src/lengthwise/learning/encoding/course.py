"""From prompts and lengths to a trained network: some without a part, to see what chances are worth, one on all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats
from lengthwise.learning.encoding.bins import bin_edges, head_targets
from lengthwise.learning.encoding.config import EncoderConfig
from lengthwise.learning.encoding.export import exported
from lengthwise.learning.encoding.heads import HeadLengths
from lengthwise.learning.encoding.loop import Lesson, chances, fit
from lengthwise.learning.encoding.network import LengthNetwork, WantedChances
from lengthwise.learning.encoding.prompts import EncodedPrompts, Indices
from lengthwise.learning.encoding.quantized import quantized
from lengthwise.learning.encoding.starting import default_encoder, open_encoder
from lengthwise.learning.splits import folds, prompt_groups
from lengthwise.predictors.encoder.curves import BinCurves
from lengthwise.predictors.encoder.session import TextEncoder
from lengthwise.types import Request

NUM_PARTS = 7  # a network on six of them is nearly what one on all is; on a half its chances are worth much less
MIN_HELD_OUT = 1000  # prompts: 1 % of error in a 90 % interval

Mix = Callable[[Floats, Indices, Indices], Floats]


@dataclass(frozen=True, eq=False)
class Course:
    """One training: what all of its networks have in common."""

    requests: Sequence[Request]
    heads: list[HeadLengths]
    edges: Floats
    encoder: TextEncoder
    lesson: Lesson
    config: EncoderConfig
    seed: int

    @classmethod
    def prepare(
        cls, requests: Sequence[Request], heads: list[HeadLengths], limit: int | None, config: EncoderConfig, seed: int
    ) -> Course:
        """Raises UsageError where the encoder can't be loaded."""
        model, tokenizer = open_encoder(_name(config), config.dropout)
        positions = int(getattr(model.config, "max_position_embeddings", config.max_tokens))
        max_tokens = min(config.max_tokens, positions, int(tokenizer.model_max_length))
        encoder = TextEncoder.from_json(tokenizer.backend_tokenizer.to_str(), max_tokens)
        edges = bin_edges(np.concatenate([head.lengths.ravel() for head in heads]), limit, config.num_bins)
        targets = head_targets([(head.lengths, head.is_cut) for head in heads], edges, config.smoothing)
        weights = np.array([head.weight for head in heads], np.float32)
        lesson = Lesson(EncodedPrompts.read(requests, encoder), targets, weights)
        return cls(requests, heads, edges, encoder, lesson, config, seed)

    def curves(self, mix: Mix) -> BinCurves:
        """Corrected by prompts that have not been learned from: a part of them, or several in turn until they suffice.
        `mix` says what others make of a network's curves: those that learned from some rows (n), of others (m)."""
        plain = BinCurves.uncorrected(self.edges)
        found, rows = [np.empty((0, len(GRID)), np.float32)], np.empty(0, np.intp)
        for learned, held_out in folds(_groups(self.requests), NUM_PARTS, self.seed):
            if len(rows) >= MIN_HELD_OUT:
                break
            model = self.model(learned, f"to correct by {len(held_out):,} prompts, on the other {len(learned):,}")
            said = plain.survival(chances(model, self.lesson.prompts, held_out))
            found.append(mix(said, learned, held_out))
            rows = np.concatenate([rows, held_out])
        lengths, is_cut = self.heads[0].lengths[rows], self.heads[0].is_cut[rows]
        row, sample = np.nonzero(~np.isnan(lengths))
        return BinCurves.fit(self.edges, np.concatenate(found)[row], lengths[row, sample], is_cut[row, sample])

    def model(self, rows: Indices, name: str) -> WantedChances:
        """Networks that learned from some prompts."""
        num = self.config.num_networks
        seeds = [self.seed * num + number for number in range(num)]
        networks = [self._network(rows, f"{name}, seed {seed}", seed) for seed in seeds]
        for network in networks:  # the words' vectors are not trained: once is enough
            network.encoder.set_input_embeddings(networks[0].encoder.get_input_embeddings())
        return WantedChances(networks)

    def exported(self, model: WantedChances) -> bytes:
        """As ONNX. Uses the model up."""
        if not self.config.is_quantized:
            return exported(model)
        rows = np.random.default_rng(self.seed).permutation(len(self.requests))
        return quantized(model, self.lesson.prompts, rows)

    def _network(self, rows: Indices, name: str, seed: int) -> LengthNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Any = open_encoder(_name(self.config), self.config.dropout)[0]
            network = LengthNetwork(
                model, self.lesson.prompts.structure, len(self.heads), len(self.edges), self.config.hidden_width
            )
            fit(network, self.lesson, rows, self.config, seed, name)
        return network


def _groups(requests: Sequence[Request]) -> Indices:
    """A number for each prompt, the same for those that are nearly the same; where nearly all are (one template), for
    those that are quite the same. Raises PredictorError on fewer than NUM_PARTS different prompts."""
    groups = prompt_groups(requests)
    if len(np.unique(groups)) < NUM_PARTS:
        groups = np.unique(np.array([request.text for request in requests], object), return_inverse=True)[1]
    num = int(groups.max()) + 1
    if num < NUM_PARTS:
        raise PredictorError(
            f"{len(requests)} rows have {num} different prompts; an encoder needs {NUM_PARTS}: some are learned from, "
            "others correct it. Use a constant, or give more."
        )
    return groups


def _name(config: EncoderConfig) -> str:
    return config.encoder or default_encoder()
