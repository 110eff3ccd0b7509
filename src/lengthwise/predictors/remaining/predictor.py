"""How much longer an answer goes on, from what is written of it: a base predictor, revised while answers are written.

`given(n)` of the base only knows that the answer has not ended. What is written tells more: which of the ten items
asked for it is at, whether it says its closing words. A regression by trees foretells the logarithm of the tokens that
are left, and the residuals of answers that it had not seen give the spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, POINTS_PER_OCTAVE, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.remaining.features import NAMES, partial_features
from lengthwise.predictors.residuals import ARRAY_SHAPES, MAX_RESIDUAL, Doubles, ResidualTable
from lengthwise.predictors.trees import TREES, read_trees
from lengthwise.protocols import Backbone, LengthPredictor
from lengthwise.types import Completion, Request

KIND = "remaining"
BASE = "base"
DIGEST = "trees_sha256"
LEAST_AT_N = 0.25  # of a curve at the tokens that are there: a small share of it is no curve any more (MIN_SURVIVAL)


class RemainingPredictor:
    """`base`, and for answers that are being written `trees` and their `residuals`. Before anything is written it is
    the base."""

    def __init__(
        self,
        base: LengthPredictor,
        trees: str,
        residuals: ResidualTable,
        learned_from: Provenance,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises PredictorError on trees that can't be read, or that were grown on other columns."""
        self.base = base
        self.trees = trees
        self.residuals = residuals
        self.learned_from = learned_from
        self.card = dict(card or {})
        self.model = learned_from.model
        self._booster = read_trees(trees, len(NAMES))

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return self.base.predict(requests)

    def revise_running(
        self, requests: Sequence[Request], texts: Sequence[str], num_tokens: Sequence[int]
    ) -> LengthEstimates:
        """Lengths of whole answers that have `num_tokens` tokens by now, which read `texts`: all mass lies above. With
        nothing written, and where the base knows nothing, it is what the base says."""
        base = self.base.predict(requests)
        written = np.array(num_tokens, np.float64)
        rows = np.flatnonzero((written >= 1) & np.isfinite(base.median))
        curves = np.array(base.survival)
        if len(rows):
            picked = rows.tolist()
            columns = partial_features(
                [requests[row] for row in picked], [texts[row] for row in picked], written[rows], base[rows]
            )
            left = self.residuals.length_survival(self.log_remaining(columns))
            curves[rows] = shifted(left, written[rows])
        limit = np.array(base.limit)
        limit[rows] = np.inf
        revised = LengthEstimates.from_survival(curves)
        return LengthEstimates(revised.survival, base.at_least, limit).given(written)

    def log_remaining(self, columns: Floats) -> Doubles:
        """Rows of features → natural log of the tokens that are left."""
        found = self._booster.predict(columns, num_threads=1)
        return np.clip(np.asarray(found, np.float64), 0.0, MAX_RESIDUAL)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        self.base.observe(requests, completions)

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, the base into a folder inside: JSON, text and safetensors. Raises PredictorError
        where the base can't be saved."""
        target, save_base = Path(folder), files.saver(self.base, "the predictor of what remains")
        files.begin(target)
        save_base(target / BASE)
        content = self.trees.encode()
        (target / TREES).write_bytes(content)
        files.write_arrays(target, self.residuals.arrays())
        digest = files.digest_of(content)
        learned_from = self.learned_from.to_json()
        files.write_header(
            target, KIND, {"model": self.model, "learned_from": learned_from, "card": self.card, DIGEST: digest}
        )

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone | None = None) -> Self:
        """`backbone` is for the base. Raises PredictorError on a folder that can't be read."""
        from lengthwise.predictors.saved import load_folder

        source = Path(folder)
        header = files.read_header(source)
        learned_from = Provenance.from_json(header.get("learned_from"))
        card = files.field(source, header, "card", dict)
        trees = files.read_digested(source, header, TREES, DIGEST).decode("utf-8", "replace")
        residuals = ResidualTable.from_arrays(files.read_arrays(source, ARRAY_SHAPES), source)
        if files.read_header(source / BASE).get("kind") == KIND:
            raise PredictorError(f"{source}: its base foretells what remains already. Train it again.")
        return cls(load_folder(source / BASE, backbone), trees, residuals, learned_from, card)


def shifted(left: Floats, num_tokens: ArrayLike) -> Floats:
    """P(length > g | length > n) on the grid (rows × len(GRID)) from P(tokens left > r) on the grid, n tokens being
    there. `given(n)` of it gives that exactly at each point of the grid, but for the next one, where that is near."""
    written = np.asarray(num_tokens, np.float64)
    beyond = _at(left, GRID[None, :] - written[:, None])
    # Between the grid's points around n a curve is linear in log n, and 1 at the left one. So what it is at n decides
    # what it must be at the right one.
    position = np.log2(np.maximum(written, 1)) * POINTS_PER_OCTAVE
    share = position - np.floor(position)
    following = np.minimum(np.floor(position).astype(int) + 1, len(GRID) - 1)
    rows = np.arange(len(beyond))
    chance = beyond[rows, following]
    at_n = np.maximum((1 - share) / (1 - chance * share), LEAST_AT_N)
    curves = np.where(GRID[None, :] <= written[:, None], 1.0, beyond * at_n[:, None])
    curves[rows, following] = np.where(share > 0, (at_n - (1 - share)) / np.maximum(share, 1e-9), chance)
    return np.minimum.accumulate(np.clip(curves, 0, 1), axis=1).astype(np.float32)


def _at(curves: Floats, num_tokens: Doubles) -> Doubles:
    """Each row's curve at its own numbers of tokens (rows × any), linear in log n; 1 below one token."""
    position = np.log2(np.clip(num_tokens, 1, GRID[-1])) * POINTS_PER_OCTAVE
    left = np.minimum(position.astype(np.intp), len(GRID) - 2)
    before, after = (np.take_along_axis(curves, index, axis=1).astype(np.float64) for index in (left, left + 1))
    return np.where(num_tokens < 1, 1.0, before + (after - before) * (position - left))
