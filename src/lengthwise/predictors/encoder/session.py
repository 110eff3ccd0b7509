"""A fine-tuned encoder in onnxruntime: texts → chances of bins of lengths.

One thread, float32, and no file but the one it was given: what is loaded is a folder from elsewhere, perhaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError
from lengthwise.estimates import Floats
from lengthwise.predictors.terms import clip

INPUTS = ("input_ids", "attention_mask", "structure")
BATCH_ROWS = 32  # at once: more are no faster on one thread
BATCH_TOKENS = 4096  # at once: attention takes memory by their square
HEAD_SHARE = 0.75  # of a long prompt's tokens; the rest are its last ones

# Weights in other files are named by a path under this key of the ONNX format. No path is followed.
_EXTERNAL_KEY = b"location"

Ids = list[int]


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer (`tokenizer.json` of Hugging Face) that keeps the head and the tail of what is longer than
    `max_tokens`."""

    tokenizer: Any
    max_tokens: int

    @classmethod
    def from_json(cls, text: str, max_tokens: int) -> TextEncoder:
        """Raises PredictorError on a text that is no tokenizer."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more specific
            raise PredictorError(f"The tokenizer can't be read ({error}). Train the predictor again.") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, max_tokens)

    @property
    def num_ids(self) -> int:
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str]) -> tuple[list[Ids], NDArray[np.bool_]]:
        """Token ids of each text, and whether there is a word in it that the tokenizer knows (n)."""
        unknown = self.tokenizer.token_to_id(getattr(self.tokenizer.model, "unk_token", None) or "")
        found = self.tokenizer.encode_batch([_valid(clip(text)) for text in texts])
        is_known = [
            any(not special and i != unknown for i, special in zip(one.ids, one.special_tokens_mask, strict=True))
            for one in found
        ]
        return [self._cut(one.ids) for one in found], np.array(is_known, bool)

    def _cut(self, ids: Ids) -> Ids:
        if len(ids) <= self.max_tokens:
            return ids or [0]  # a tokenizer without marks for beginning and end makes nothing of nothing
        num_head = int(self.max_tokens * HEAD_SHARE)
        return ids[:num_head] + ids[len(ids) - (self.max_tokens - num_head) :]


def _valid(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def padded(ids: Sequence[Ids]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask, n × longest. Padding is 0: the mask hides it."""
    width = max(map(len, ids))
    rows = np.zeros((2, len(ids), width), np.int64)
    for row, found in enumerate(ids):
        rows[0, row, : len(found)] = found
        rows[1, row, : len(found)] = 1
    return rows[0], rows[1]


class Session:
    """An ONNX model of INPUTS → chances (n × `num_bins`), checked when it is opened."""

    def __init__(self, model: bytes, encoder: TextEncoder, num_bins: int, num_features: int) -> None:
        """Raises PredictorError on a model that can't be read, wants other files, or doesn't give what it should."""
        if _EXTERNAL_KEY in model:
            raise PredictorError("The encoder refers to other files, which are never read. Train the predictor again.")
        self.encoder = encoder
        self.num_bins = num_bins
        self._session = _open(model)
        self._check(num_features)

    def chances(self, ids: Sequence[Ids], structure: Floats) -> Floats:
        """Of each bin, for each prompt (n × bins): short prompts first, so that batches hold little padding."""
        found = np.empty((len(ids), self.num_bins), np.float32)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for rows in _batches(order, [len(found) for found in ids]):
            found[rows] = self._run([ids[row] for row in rows], structure[rows])
        return found

    def _run(self, ids: Sequence[Ids], structure: Floats) -> Floats:
        tokens, mask = padded(ids)
        chances: Floats = self._session.run(None, dict(zip(INPUTS, (tokens, mask, structure), strict=True)))[0]
        return chances

    def _check(self, num_features: int) -> None:
        """The longest prompt of the last token: what lies outside the weights is found now, not in a job's middle."""
        ids = [[self.encoder.num_ids - 1] * self.encoder.max_tokens]
        try:
            chances = self._run(ids, np.zeros((1, num_features), np.float32))
        except Exception as error:  # onnxruntime's errors have no common root
            raise PredictorError(f"The encoder can't be run ({error!s:.300}). Train the predictor again.") from error
        if chances.shape != (1, self.num_bins) or not np.isfinite(chances).all():
            raise PredictorError(
                f"The encoder gives {chances.shape} chances for one prompt; {self.num_bins} finite ones were expected. "
                "Train the predictor again."
            )


def _batches(order: Ids, sizes: Sequence[int]) -> Iterator[Ids]:
    """Rows in `order` (short ones first), so many at once that they and their padding stay within both limits."""
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and end - start < BATCH_ROWS and (end + 1 - start) * sizes[order[end]] <= BATCH_TOKENS:
            end += 1
        yield order[start:end]
        start = end


def _open(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common root
        raise PredictorError(
            f"The encoder is no ONNX model that onnxruntime {onnxruntime.__version__} reads ({error!s:.300}). "
            "Install a newer onnxruntime, or train the predictor again."
        ) from error
