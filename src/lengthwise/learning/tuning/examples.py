"""Data → what is tuned on, and what is held out: all lengths of a prompt together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.errors import PredictorError, RequestError, UsageError
from lengthwise.learning.data import Flags, LengthData, Lengths
from lengthwise.learning.labels import ANSWER, Target, label
from lengthwise.learning.splits import split
from lengthwise.learning.tuning.config import TuningConfig
from lengthwise.types import Request

MIN_PROMPTS = 20  # with fewer there is nothing to tune on, and no error that could be told from another


@dataclass(frozen=True, eq=False)
class Examples:
    """n prompts and their labels in tokens (n × s, NaN where there is none): all samples for the target `answer`, else
    one. `is_censored` (n × s): the true value is at least the label."""

    requests: tuple[Request, ...]
    lengths: Lengths
    is_censored: Flags

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> Examples:
        return Examples(tuple(self.requests[row] for row in rows), self.lengths[rows], self.is_censored[rows])

    def middles(self) -> Lengths:
        """One length a prompt: the median of its labels (n)."""
        return np.asarray(np.nanmedian(self.lengths, axis=1), np.float64)

    def each(self) -> tuple[np.ndarray, Lengths, Flags]:
        """All labels one by one: the row of each, its length, whether it is censored (m)."""
        rows, samples = np.nonzero(~np.isnan(self.lengths))
        return rows, self.lengths[rows, samples], self.is_censored[rows, samples]


def examples_of(data: LengthData, target: Target) -> Examples:
    if target.name == ANSWER:
        return Examples(data.requests, data.lengths, data.is_cut)
    labels = label(data, target)
    return Examples(data.requests, labels.values[:, None], labels.is_censored[:, None])


def drawn(data: LengthData, target: Target, seed: int, config: TuningConfig) -> tuple[Examples, Examples]:
    """What is tuned on and what is held out, by prompt; at most `config.max_prompts` together. Raises PredictorError
    where there are too few."""
    if config.max_prompts is not None and len(data) > config.max_prompts:
        data = data[np.sort(np.random.default_rng(seed).permutation(len(data))[: config.max_prompts])]
    if len(data) < MIN_PROMPTS:
        raise PredictorError(
            f"There are {len(data)} prompts; to tune a model on them takes {MIN_PROMPTS}, and is of use from some "
            "hundreds on. Collect more, or use the constant predictor."
        )
    try:
        learned, held_out = split(data, config.held_out, seed)
    except UsageError as error:
        raise PredictorError(str(error)) from error
    examples = examples_of(data, target)
    return examples[learned], examples[held_out]


def encoded(requests: Sequence[Request], loaded: LoadedModel, max_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Row and prompt tokens of all that can be encoded in `max_tokens`."""
    for row, request in enumerate(requests):
        try:
            ids = loaded.encode_prompt(request)
        except RequestError:
            continue
        if 0 < len(ids) <= max_tokens:
            yield row, ids
