"""What stands beside a predictor: baselines that it must beat, and what one answer says of another."""

from __future__ import annotations

import numpy as np

from lengthwise.learning.data import Flags, LengthData, Lengths
from lengthwise.learning.labels import ANSWER, Labels, Target

Points = tuple[Lengths, Flags, Lengths]  # labels, which of them are "at least", and what is said of them


def reference_points(data: LengthData, target: Target, labels: Labels, learned: Labels, seed: int) -> dict[str, Points]:
    """Baselines, fitted on `learned`, and two-sample references where prompts have several answers."""
    limit = np.inf if data.limit is None else data.limit
    max_tokens = np.array([request.max_tokens or np.nan for request in labels.requests], np.float64)
    said = {
        "constant": np.full(len(labels), np.median(learned.values)),
        "prompt_length": _by_prompt_length(labels, learned),
        "max_tokens": np.where(np.isnan(max_tokens) & np.isfinite(limit), limit, max_tokens),
    }
    found = {name: (labels.values, labels.is_censored, np.minimum(points, limit)) for name, points in said.items()}
    return found | _two_sample(data, target, seed)


def _by_prompt_length(labels: Labels, learned: Labels) -> Lengths:
    """A line through log length over log characters."""
    characters = _log_characters(learned)
    spread = characters.var()
    covariance = np.mean((characters - characters.mean()) * np.log(learned.values))
    slope = covariance / spread if spread > 0 else 0.0
    centre = np.log(learned.values).mean() - slope * characters.mean()
    return np.asarray(np.exp(centre + slope * _log_characters(labels)))


def _log_characters(labels: Labels) -> Lengths:
    return np.log1p(np.array([len(request.text) for request in labels.requests], np.float64))


def _two_sample(data: LengthData, target: Target, seed: int) -> dict[str, Points]:
    """A half of each prompt's samples, summarised, said of the other half's summary; of one answer, another one."""
    rows = np.flatnonzero((~np.isnan(data.lengths)).sum(axis=1) >= 2)
    if not len(rows):
        return {}
    lengths, is_cut = data.lengths[rows], data.is_cut[rows]
    order = np.where(np.isnan(lengths), np.inf, np.random.default_rng(seed).random(lengths.shape)).argsort(axis=1)
    shuffled = np.take_along_axis(lengths, order, axis=1)
    size = 1 if target.name == ANSWER else int((~np.isnan(lengths)).sum(axis=1).min()) // 2
    is_censored: Flags = np.asarray(np.take_along_axis(is_cut, order, axis=1)[:, :size].any(axis=1))
    label, said = (_summary(target, shuffled[:, part]) for part in (slice(0, size), slice(size, 2 * size)))
    return {f"{_count(size)} from {_count(size)}": (label, is_censored, said)}


def _summary(target: Target, samples: Lengths) -> Lengths:
    return samples[:, 0] if target.name == ANSWER else target.summary()(samples)


def _count(size: int) -> str:
    return "one_answer" if size == 1 else f"{size}_answers"
