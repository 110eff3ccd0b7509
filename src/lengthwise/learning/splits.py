"""Splits by prompt: what is held out shares no prompt, and none that is nearly the same, with what is learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from lengthwise.errors import UsageError
from lengthwise.learning.data import LengthData
from lengthwise.predictors.history.likeness import least_hashes, runs
from lengthwise.predictors.history.likeness import normalised as normalised
from lengthwise.types import Request

Indices = NDArray[np.intp]

MIN_OVERLAP = 0.8  # share of common shingles (Jaccard) from which two prompts count as nearly the same
# MinHash in bands: two prompts meet if all rows of a band agree. 24 bands of 5 find a pair of overlap 0.8 with a
# chance of 99.99 %, one of 0.4 with 22 %; what meets is compared exactly.
_BANDS, _BAND_ROWS = 24, 5


def split(data: LengthData, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices to learn from and to hold out, in order; about `share` of the rows are held out.

    All rows of a group (`prompt_groups`) lie on one side. Raises UsageError where one side would be empty.
    """
    if not 0 < share < 1:
        raise UsageError(f"The share to hold out is {share}; it must lie between 0 and 1.")
    groups = prompt_groups(data.requests)
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    is_held_out = np.isin(groups, order[before < share * len(data) - 0.5])
    if is_held_out.all() or not is_held_out.any():
        raise UsageError(
            f"{len(data)} rows with {len(sizes)} different prompts can't be split, {share:.0%} held out: one side "
            "would be empty. Collect more prompts."
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def folds(groups: Indices, num_folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """(learn from, hold out) for each of `num_folds`, whole groups on one side."""
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(num_folds, shuffle=True, random_state=seed).split(groups, groups=groups))


def leaked(learned: Sequence[Request], held_out: Sequence[Request]) -> Indices:
    """Indices of held-out requests whose prompt, or one nearly the same, was learned from."""
    groups = prompt_groups([*learned, *held_out])
    return np.flatnonzero(np.isin(groups[len(learned) :], groups[: len(learned)]))


def prompt_groups(requests: Sequence[Request]) -> Indices:
    """A group number for each request: the same for prompts that are nearly the same, and for chains of such.

    Case, punctuation and white space do not count; beyond that MIN_OVERLAP of all runs of three words are shared.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    texts, which = np.unique(np.array([normalised(request.text) for request in requests], object), return_inverse=True)
    left, right = _near_pairs(_shingles(texts.tolist()))
    links = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(len(texts), len(texts)))
    _, component = connected_components(links, directed=False)
    return np.asarray(component[which], np.intp)


def _shingles(texts: Sequence[str]) -> csr_matrix:
    """Hashed runs of three words of each text, as rows of a matrix of zeros and ones."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(analyzer=runs, binary=True, norm=None, alternate_sign=False, n_features=2**22)
    return hashing.transform(texts)


def _near_pairs(shingles: csr_matrix) -> tuple[Indices, Indices]:
    """Pairs of rows that share MIN_OVERLAP of their shingles: each with the first that it met in a band."""
    pairs = np.unique(np.concatenate([_meetings(band) for band in _signatures(shingles)]), axis=0)
    left, right = pairs[:, 0], pairs[:, 1]
    sizes = np.asarray(shingles.sum(axis=1)).ravel()
    common = np.asarray(shingles[left].multiply(shingles[right]).sum(axis=1)).ravel()
    is_near = common >= MIN_OVERLAP * (sizes[left] + sizes[right] - common)
    return left[is_near], right[is_near]


def _signatures(shingles: csr_matrix) -> NDArray[np.int64]:
    """MinHash values, bands × rows × rows of a band: the least hash among a text's shingles, by 120 hash functions."""
    least = least_hashes(shingles.indices.astype(np.int64) + 1, shingles.indptr[:-1], _BANDS * _BAND_ROWS)
    return least.reshape(-1, _BANDS, _BAND_ROWS).transpose(1, 0, 2)


def _meetings(band: NDArray[np.int64]) -> Indices:
    """(first, other) for all rows whose values in this band agree."""
    _, first, which = np.unique(band, axis=0, return_index=True, return_inverse=True)
    others = np.arange(len(band))
    meet = first[which] != others
    return np.stack([first[which][meet], others[meet]], axis=1).astype(np.intp)
