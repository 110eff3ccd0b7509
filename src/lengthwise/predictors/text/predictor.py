"""The text predictor: TF-IDF of the prompt, ridge regression on log length and trees on top of it, a distribution from
the residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix

from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.residuals import ARRAY_SHAPES, MAX_RESIDUAL, Doubles, ResidualTable
from lengthwise.predictors.terms import prompt_text
from lengthwise.predictors.text.bag import Bag
from lengthwise.predictors.text.boosting import DIGEST, Boosting
from lengthwise.predictors.text.boosting_fit import BoostingConfig
from lengthwise.predictors.text.vocabulary import read_vocabulary, write_vocabulary
from lengthwise.types import Completion, Request

KIND = "text"
CHUNK = 8192  # requests at once: 2 MiB of curves, 9 MiB of coordinates


@dataclass(frozen=True)
class TextConfig:
    """How a text predictor is fitted. Raises ValueError on a value out of range."""

    max_terms: int = 20_000  # the most frequent ones; 20,000 cost 0.01 tokens of error against all, and fit in 0.5 MB
    min_prompts: int = 2  # a term that stands in one prompt only tells nothing of others
    alphas: tuple[float, ...] = (0.3, 0.7, 1.5, 3.0, 6.0, 12.0)  # ridge penalties, tried by cross-validation
    num_folds: int = 5  # residuals are those of prompts that the fold's model has not seen
    min_level_examples: int = 100  # a distribution of residuals needs about this many for its tenths
    max_levels: int = 10  # more levels of prediction improve nothing: error of all quantiles 41.9 at 8, 12, 16 and 24
    boosting: BoostingConfig = field(default_factory=BoostingConfig)

    def __post_init__(self) -> None:
        counts = ("max_terms", "min_prompts", "min_level_examples", "max_levels")
        for name, least in {**dict.fromkeys(counts, 1), "num_folds": 2}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        if not self.alphas or min(self.alphas) <= 0:
            raise ValueError(f"alphas is {self.alphas}; it must hold numbers above 0.")


@dataclass(frozen=True)
class TextWeights:
    """What was learned: a weight for each term of `vocabulary`, the residuals, and the distribution of all lengths
    (`marginal`, 1 × len(GRID)), which stands for prompts without a known term. `boosting`, where there were prompts
    enough for it, predicts in place of the weights."""

    vocabulary: list[str]
    idf: Floats
    coefficients: Floats
    intercept: float
    residuals: ResidualTable
    marginal: Floats
    boosting: Boosting | None = None


class TextPredictor:
    """Length from the words of a prompt. Cheap (about 40 µs a prompt), and better than the paper's fine-tuned model.

    A prompt none of whose terms is known (empty, another language) gets the distribution of all training lengths.
    """

    def __init__(self, weights: TextWeights, learned_from: Provenance, card: Mapping[str, Any] | None = None) -> None:
        """`card` holds measured figures, saved beside the weights; nothing is read from it."""
        self.weights = weights
        self.learned_from = learned_from
        self.card = dict(card or {})
        self.model = learned_from.model
        self._bag = Bag(weights.vocabulary, weights.idf)

    @classmethod
    def fit(
        cls,
        requests: Sequence[Request],
        lengths: ArrayLike,
        is_censored: ArrayLike | None = None,
        *,
        others: ArrayLike | None = None,
        model: str | None,
        target: str = "answer",
        seed: int = 0,
        config: TextConfig | None = None,
    ) -> Self:
        """Learn from answers: their requests and lengths (tokens). A censored length was cut there: "at least this".

        The same prompt may occur several times (samples). `others` are further lengths that are known of each example
        (n × k, NaN where missing: a mean of samples, a reference answer), which trees learn more from. `model` is the
        identity of the model that answered, None for lengths that hold for any. `target` says what a length is where
        it is not that of one answer. Takes about six seconds for 10,000 prompts. Raises ValueError on lengths that
        can't be, PredictorError on too few examples.
        """
        from lengthwise.predictors.text.fit import fit_text, learned_from

        config = config or TextConfig()
        weights = fit_text(requests, lengths, is_censored, others, seed, config)
        return cls(weights, learned_from(requests, is_censored, model, target, seed))

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        chunks = [self._curves(requests[start : start + CHUNK]) for start in range(0, len(requests), CHUNK)]
        return LengthEstimates.from_survival(np.concatenate([np.empty((0, len(GRID)), np.float32), *chunks]))

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing yet: a text predictor is fitted as a whole."""

    def _curves(self, requests: Sequence[Request]) -> Floats:
        bags = self._bag.rows([prompt_text(request) for request in requests])
        curves = self.weights.residuals.length_survival(clipped(self._log_lengths(bags, requests)))
        is_known = bags.getnnz(axis=1) > 0
        return np.where(is_known[:, None], curves, self.weights.marginal)

    def _log_lengths(self, bags: csr_matrix, requests: Sequence[Request]) -> Doubles:
        if self.weights.boosting is not None:
            return self.weights.boosting.predict(bags, requests)
        return np.asarray(bags @ self.weights.coefficients + self.weights.intercept, np.float64)

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, which is made where it does not exist: JSON, text and safetensors, 1 to 3 MB."""
        target, weights = Path(folder), self.weights
        files.begin(target)
        write_vocabulary(target, weights.vocabulary)
        arrays, digest = weights.boosting.save(target) if weights.boosting else ({}, {})
        files.write_arrays(
            target,
            {
                **arrays,
                "idf": weights.idf,
                "coefficients": weights.coefficients,
                "intercept": np.array([weights.intercept], np.float32),
                **weights.residuals.arrays(),
                "marginal": weights.marginal,
            },
        )
        fields = {"model": self.model, "learned_from": self.learned_from.to_json(), "card": self.card, **digest}
        files.write_header(target, KIND, fields)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Raises PredictorError on a folder that can't be read; never runs code from it."""
        source = Path(folder)
        header = files.read_header(source)
        learned_from = Provenance.from_json(header.get("learned_from"))
        card = files.field(source, header, "card", dict)
        return cls(_read_weights(source, header), learned_from, card)


def clipped(log_lengths: Doubles) -> Doubles:
    """Predictions within the grid: 1 to 131,072 tokens."""
    return np.clip(log_lengths, 0.0, MAX_RESIDUAL).astype(np.float64)


def _read_weights(folder: Path, header: dict[str, Any]) -> TextWeights:
    vocabulary = read_vocabulary(folder)
    num_terms = len(vocabulary)
    shapes: dict[str, tuple[int | None, ...]] = {
        "idf": (num_terms,),
        "coefficients": (num_terms,),
        "intercept": (1,),
        **ARRAY_SHAPES,
        "marginal": (1, len(GRID)),
    }
    arrays = files.read_arrays(folder, shapes)
    table = ResidualTable.from_arrays(arrays, folder)
    intercept = float(arrays["intercept"][0])
    boosting = Boosting.load(folder, header, num_terms) if DIGEST in header else None
    weights = (arrays["idf"], arrays["coefficients"], intercept, table, arrays["marginal"])
    return TextWeights(vocabulary, *weights, boosting)
