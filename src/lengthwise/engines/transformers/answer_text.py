"""An answer's text while its tokens come: for stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"  # what a decoder prints for bytes that are no character yet


class AnswerText:
    """Detokenises an answer as it grows, and finds the first of its stop strings.

    `text` is what is certain so far: a character whose bytes are split over tokens appears when its last token has
    come. Each push decodes the few tokens since the last certain piece, so it costs the same at any length (the
    method of Text Generation Inference: decode with and without the new tokens, keep the difference).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], tokens: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._overlap = max(map(len, stop), default=1) - 1
        self._pending: list[int] = []  # tokens of the last certain piece, then those whose text is not certain
        self._num_certain = 0
        self._certain_text = ""
        self.text = ""
        self.is_stopped = False
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> bool:
        """Take the next token; True when the answer has reached a stop string: `text` then ends before it."""
        self._pending.append(token)
        decoded = self._decode(self._pending)
        if len(decoded) > len(self._certain_text) and not decoded.endswith(_UNFINISHED):
            self._append(decoded[len(self._certain_text) :])
            self._pending = self._pending[self._num_certain :]
            self._num_certain = len(self._pending)
            self._certain_text = self._decode(self._pending)
        return self.is_stopped

    def _append(self, piece: str) -> None:
        look_from = max(0, len(self.text) - self._overlap)
        self.text += piece
        found = [at for at in (self.text.find(stop, look_from) for stop in self._stop) if at >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.is_stopped = True

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
