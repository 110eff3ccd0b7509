"""What the heads learn: first what is wanted, then what else is known of the same prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lengthwise.learning.data import Flags, LengthData, Lengths
from lengthwise.learning.labels import ANSWER, Target, label

REFERENCE_WEIGHT = 0.5  # a reference answer was not written by the model


@dataclass(frozen=True, eq=False)
class HeadLengths:
    """Lengths of n prompts (n × s, NaN where missing), which of them were cut, and how much the head counts."""

    lengths: Lengths
    is_cut: Flags
    weight: float = 1.0


def heads_of(data: LengthData, target: Target) -> list[HeadLengths]:
    """The target's head first. Others learn along where the data has more: all samples (for one answer: their maximum),
    and the reference answer."""
    heads = [_head(data, target)]
    if data.num_samples > 1:
        heads.append(_head(data, Target("max" if target.name == ANSWER else ANSWER)))
    if data.reference is not None:
        reference = data.reference[:, None]
        heads.append(HeadLengths(reference, np.zeros_like(reference, dtype=bool), REFERENCE_WEIGHT))
    return heads


def _head(data: LengthData, target: Target) -> HeadLengths:
    if target.name == ANSWER:
        return HeadLengths(data.lengths, data.is_cut)
    labels = label(data, target)
    return HeadLengths(labels.values[:, None], labels.is_censored[:, None])
