"""The fine-tuned encoder: a small language model that reads the prompt, and says how likely each length is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.encoder.curves import BinCurves, mixed
from lengthwise.predictors.encoder.session import Session, TextEncoder
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.structure import NAMES, structure
from lengthwise.predictors.terms import prompt_text
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.types import Completion, Request

KIND = "encoder"
MODEL = "encoder.onnx"
TOKENIZER = "tokenizer.json"
TEXT = "text"  # the folder of a text predictor
MAX_MODEL_TOKENS = 2048  # of a prompt: what a header may ask for
CHUNK = 8192  # requests at once


@dataclass(frozen=True)
class EncoderWeights:
    """What was learned: `model` (ONNX: token ids, mask and structure → chances of bins), `tokenizer` (JSON), which
    keeps `max_tokens` of a prompt, `curves`, and the distribution of all lengths (`marginal`, 1 × len(GRID)), which
    stands for prompts without a known word. `text_share` of the chances is the `text` predictor's, where there is one.
    """

    model: bytes
    tokenizer: str
    max_tokens: int
    curves: BinCurves
    marginal: Floats
    text: TextPredictor | None = None
    text_share: float = 0.0

    def mixed(self, survival: Floats, requests: Sequence[Request]) -> Floats:
        """The encoder's curves (n × len(GRID)), with the text predictor's share."""
        if self.text is None:
            return survival
        return mixed(survival, self.text.predict(requests).survival, self.text_share)


class EncoderPredictor:
    """Length by a fine-tuned encoder in onnxruntime, on one thread. The best predictor from the prompt alone; it costs
    milliseconds a prompt, where the text predictor costs a tenth of one. `learning/trainers/encoder.py` trains it.

    A prompt without a known word (empty, a script that the encoder doesn't know) gets the distribution of all training
    lengths.
    """

    def __init__(
        self, weights: EncoderWeights, learned_from: Provenance, card: Mapping[str, Any] | None = None
    ) -> None:
        """`card` holds measured figures, saved beside the weights; nothing is read from it. Raises PredictorError on a
        model or a tokenizer that can't be used."""
        self.weights = weights
        self.learned_from = learned_from
        self.card = dict(card or {})
        self.model = learned_from.model
        self._encoder = TextEncoder.from_json(weights.tokenizer, weights.max_tokens)
        self._session = Session(weights.model, self._encoder, len(weights.curves.edges), len(NAMES))

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        chunks = [self._curves(requests[start : start + CHUNK]) for start in range(0, len(requests), CHUNK)]
        return LengthEstimates.from_survival(np.concatenate([np.empty((0, len(GRID)), np.float32), *chunks]))

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing: an encoder is trained as a whole."""

    def _curves(self, requests: Sequence[Request]) -> Floats:
        ids, is_known = self._encoder.encode([prompt_text(request) for request in requests])
        chances = self._session.chances(ids, structure(requests))
        weights = self.weights
        curves = weights.curves.corrected(weights.mixed(weights.curves.survival(chances), requests))
        return np.where(is_known[:, None], curves, weights.marginal)

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, which is made where it does not exist: ONNX, JSON, safetensors; 90 MB a MiniLM."""
        target, weights = Path(folder), self.weights
        files.begin(target)
        contents = {MODEL: weights.model, TOKENIZER: weights.tokenizer.encode()}
        for name, content in contents.items():
            (target / name).write_bytes(content)
        if weights.text is not None:
            weights.text.save(target / TEXT)
        curves = weights.curves
        arrays = {"edges": curves.edges, "stated": curves.stated, "true": curves.true, "marginal": weights.marginal}
        files.write_arrays(target, arrays)
        fields = {
            "model": self.model,
            "max_tokens": weights.max_tokens,
            "text_share": weights.text_share if weights.text is not None else 0.0,
            "structure": list(NAMES),
            "learned_from": self.learned_from.to_json(),
        }
        digests = {_digest_name(name): files.digest_of(content) for name, content in contents.items()}
        files.write_header(target, KIND, {**fields, "card": self.card, **digests})

    @classmethod
    def load(cls, folder: str | Path) -> EncoderPredictor:
        """Raises PredictorError on a folder that can't be read; runs no code from it, and reads no file outside it."""
        source = Path(folder)
        header = files.read_header(source)
        _check_structure(source, header)
        learned_from = Provenance.from_json(header.get("learned_from"))
        card = files.field(source, header, "card", dict)
        max_tokens = files.field(source, header, "max_tokens", int)
        if not 1 <= max_tokens <= MAX_MODEL_TOKENS:
            raise PredictorError(f"{source}: max_tokens is {max_tokens}; it must lie between 1 and {MAX_MODEL_TOKENS}.")
        tokenizer = files.read_digested(source, header, TOKENIZER, _digest_name(TOKENIZER)).decode("utf-8", "replace")
        curves, marginal = _read_curves(source)
        share = _text_share(source, header)
        text = TextPredictor.load(source / TEXT) if share else None
        model = files.read_digested(source, header, MODEL, _digest_name(MODEL))
        weights = EncoderWeights(model, tokenizer, max_tokens, curves, marginal, text, share)
        try:
            return cls(weights, learned_from, card)
        except PredictorError as error:
            raise PredictorError(f"{source}: {error}") from error


def _check_structure(folder: Path, header: dict[str, Any]) -> None:
    learned = files.field(folder, header, "structure", list)
    if learned != list(NAMES):
        raise PredictorError(
            f"{folder} learned from {len(learned)} columns of structure; this version of lengthwise reads others "
            f"({len(NAMES)}). Train the predictor again."
        )


def _text_share(folder: Path, header: dict[str, Any]) -> float:
    share = float(files.field(folder, header, "text_share", float | int))
    if not 0 <= share < 1:
        raise PredictorError(f"{folder}: text_share is {share}; it must be 0 or more and below 1. Train it again.")
    return share


def _digest_name(name: str) -> str:
    return f"{name.partition('.')[0]}_sha256"


def _read_curves(folder: Path) -> tuple[BinCurves, Floats]:
    shapes: dict[str, tuple[int | None, ...]] = {
        "edges": (None,),
        "stated": (None,),
        "true": (None,),
        "marginal": (1, len(GRID)),
    }
    arrays = files.read_arrays(folder, shapes)
    curves = BinCurves(arrays["edges"], arrays["stated"], arrays["true"])
    if not curves.is_valid:
        raise PredictorError(f"{folder}: its bins or levels are none. Train the predictor again.")
    return curves, arrays["marginal"]
