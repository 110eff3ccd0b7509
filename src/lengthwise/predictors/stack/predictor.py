"""The stack: what other predictors say, put together, and corrected by what they leave over.

Two jobs, one model. Predictors that learned from other answers (another model's, other prompts) are adapted by some new
ones; and parts that learned from the same answers are put together. Their curves are averaged; each prompt's is moved
by a correction on the log scale, linear in what the bases say, in the prompt's structure and in its words; and the
chances are made what they are worth on answers that were not fitted on. Weights are shrunk to none: the fewer the
answers, the more it is the bases, moved by one factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.correction import are_levels, corrected, scaled
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.residuals import Doubles
from lengthwise.predictors.stack.columns import Said, Scale, num_columns, structure_columns
from lengthwise.predictors.terms import prompt_text
from lengthwise.predictors.text.bag import Bag
from lengthwise.predictors.text.vocabulary import read_vocabulary, write_vocabulary
from lengthwise.protocols import Backbone, LengthPredictor
from lengthwise.types import Completion, Request

KIND = "stack"
BASE = "base-{}"  # folders inside


@dataclass(frozen=True)
class StackWeights:
    """The correction, in natural log units: `intercept`, a weight for each of c columns (standardised by `scale`), one
    for each term of `vocabulary`. `stated` chances are worth `true`. `marginal` (1 × len(GRID)): all lengths that were
    learned from, for prompts of which no base knows anything."""

    scale: Scale
    column_weights: Floats
    vocabulary: list[str]
    idf: Floats
    term_weights: Floats
    intercept: float
    stated: Floats
    true: Floats
    marginal: Floats


class StackPredictor:
    """`bases`, averaged and corrected."""

    def __init__(
        self,
        bases: Sequence[LengthPredictor],
        weights: StackWeights,
        learned_from: Provenance,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """`card` holds figures of the training, saved beside the weights; nothing is read from it."""
        self.bases = list(bases)
        self.weights = weights
        self.learned_from = learned_from
        self.card = dict(card or {})
        self.model = learned_from.model
        self._bag = Bag(weights.vocabulary, weights.idf)

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        if not requests:
            return LengthEstimates.unknown(0)
        said = Said.of([base.predict(requests) for base in self.bases])
        moved = scaled(said.estimates, self._corrections(said, requests) / np.log(2))
        found = corrected(moved, self.weights.stated, self.weights.true)
        curves = np.where(said.is_known[:, None], found.survival, self.weights.marginal)
        return LengthEstimates.from_survival(curves)

    def _corrections(self, said: Said, requests: Sequence[Request]) -> Doubles:
        weights = self.weights
        columns = weights.scale.standardised(np.hstack([said.columns(), structure_columns(requests)]))
        by_terms = self._bag.rows([prompt_text(request) for request in requests]) @ weights.term_weights
        found = columns @ weights.column_weights + by_terms + weights.intercept
        return np.where(said.is_known, found, 0.0)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        for base in self.bases:
            base.observe(requests, completions)

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, each base into a folder inside. Raises PredictorError where one can't be saved."""
        target, weights = Path(folder), self.weights
        savers = [files.saver(base, "the stack") for base in self.bases]
        files.begin(target)
        for number, save in enumerate(savers):
            save(target / BASE.format(number))
        write_vocabulary(target, weights.vocabulary)
        files.write_arrays(
            target,
            {
                "centres": weights.scale.centres,
                "spreads": weights.scale.spreads,
                "column_weights": weights.column_weights,
                "idf": weights.idf,
                "term_weights": weights.term_weights,
                "intercept": np.array([weights.intercept], np.float32),
                "stated": weights.stated,
                "true": weights.true,
                "marginal": weights.marginal,
            },
        )
        fields = {"model": self.model, "learned_from": self.learned_from.to_json(), "card": self.card}
        files.write_header(target, KIND, {**fields, "num_bases": len(self.bases)})

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone | None = None) -> Self:
        """`backbone` is for bases that need one. Raises PredictorError on a folder that can't be read."""
        from lengthwise.predictors.saved import load_folder

        source = Path(folder)
        header = files.read_header(source)
        num_bases = files.field(source, header, "num_bases", int)
        if not 1 <= num_bases <= 100:
            raise PredictorError(f"{source}: num_bases is {num_bases}; a stack has 1 to 100. Train it again.")
        weights = _read_weights(source, num_bases)
        bases = [load_folder(source / BASE.format(number), backbone) for number in range(num_bases)]
        learned_from = Provenance.from_json(header.get("learned_from"))
        return cls(bases, weights, learned_from, files.field(source, header, "card", dict))


def _read_weights(folder: Path, num_bases: int) -> StackWeights:
    vocabulary = read_vocabulary(folder)
    num_terms, num = len(vocabulary), num_columns(num_bases)
    arrays = files.read_arrays(
        folder,
        {
            "centres": (num,),
            "spreads": (num,),
            "column_weights": (num,),
            "idf": (num_terms,),
            "term_weights": (num_terms,),
            "intercept": (1,),
            "stated": (None,),
            "true": (None,),
            "marginal": (1, len(GRID)),
        },
    )
    if not are_levels(arrays["stated"], arrays["true"]) or (arrays["spreads"] <= 0).any():
        raise PredictorError(f"{folder}: its levels or spreads can't be. Train the predictor again.")
    return StackWeights(
        Scale(arrays["centres"], arrays["spreads"]),
        arrays["column_weights"],
        vocabulary,
        arrays["idf"],
        arrays["term_weights"],
        float(arrays["intercept"][0]),
        arrays["stated"],
        arrays["true"],
        arrays["marginal"],
    )
