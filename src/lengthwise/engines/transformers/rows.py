"""One answer while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from lengthwise.engines.transformers.answer_text import AnswerText
from lengthwise.types import SamplingParams


@dataclass(eq=False, slots=True)
class Row:
    """A request that the engine has taken: its prompt, its answer so far, and the cache blocks that hold them.

    `cap` and `max_tokens` count the whole answer. `text` follows the answer only where there are stop strings to
    look for. `blocks` is empty until the row has entered the batch.
    """

    id: str
    sampling: SamplingParams
    prompt: list[int]
    tokens: list[int]
    cap: int
    max_tokens: int
    text: AnswerText | None = None
    blocks: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Where the newest token stands, whose key is not in the cache yet: the next step's input."""
        return len(self.prompt) + len(self.tokens) - 1

    @property
    def last_token(self) -> int:
        return self.tokens[-1] if self.tokens else self.prompt[-1]

    @property
    def end(self) -> int:
        """The number of answer tokens at which the row leaves, if nothing ends it sooner."""
        return min(self.cap, self.max_tokens)
