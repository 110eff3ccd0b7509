"""What the same or a similar request took before, on top of another predictor."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, MAX_TOKENS, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.history.keys import LEVELS
from lengthwise.predictors.history.store import HistoryStore
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import Backbone, LengthPredictor
from lengthwise.types import Completion, Request

KIND = "history"
BASE = "base"
TABLE = "history.json"

# A level's past lengths stand beside what the more general levels say, as if those had been so many lengths. Where
# nothing was learned: an answer to the very same prompt says more than all else, one of the same user little. With
# training data each is chosen by what foretells it best.
DEFAULT_WEIGHTS = {"user": 64.0, "system": 64.0, "opening": 16.0, "template": 4.0, "near": 2.0, "prompt": 0.5}

FIRST_LESSON = 100  # answers after which a run's requests are estimated anew, then at each double

SPREAD = 0.15  # of the logistic curve around a past length, in log tokens: 27 % as a standard deviation


class HistoryPredictor:
    """Past lengths of the same prompt, of prompts nearly the same, of the same template, opening, system prompt and
    user, each level drawn towards the more general one (empirical Bayes), the most general one to `base`.

    It learns in `observe`, while a run goes on. What is kept is bounded; no prompt is kept, only digests. Of a request
    without likes it says what `base` says; with a base that knows nothing, nothing.
    """

    def __init__(
        self,
        base: LengthPredictor | None = None,
        *,
        weights: Mapping[str, float] = DEFAULT_WEIGHTS,
        store: HistoryStore | None = None,
        model: str | None = None,
        learned_from: Provenance | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """`weights`: for each level, how many lengths the more general ones are worth; inf leaves a level out. `model`
        None: that of the base."""
        self.base: LengthPredictor = base or UnknownPredictor()
        self.weights = dict(weights)
        self.store = store or HistoryStore()
        self.model = model or self.base.model
        self.learned_from = learned_from
        self.card = dict(card or {})
        self._num_observed = 0
        self._next_lesson = FIRST_LESSON

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        estimates = self.base.predict(requests)
        past = [self.store.find(request) for request in requests]
        rows = [row for row, found in enumerate(past) if any(math.isfinite(self.weights[level]) for level in found)]
        if not rows:
            return estimates
        survival, limit = np.array(estimates.survival), np.array(estimates.limit)
        for row in rows:
            survival[row] = mixed(_within(survival[row], limit[row]), past[row], self.weights)
            limit[row] = np.inf
        return LengthEstimates(LengthEstimates.from_survival(survival).survival, estimates.at_least, limit)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        self.base.observe(requests, completions)
        for request, completion in zip(requests, completions, strict=True):
            if completion.error is None and 1 <= completion.completion_tokens <= MAX_TOKENS:
                self.store.add(request, completion.completion_tokens, completion.finish_reason == "length")
                self._num_observed += 1

    # -- what the loop tells (protocols.Learner) ---------------------------------------------------------------

    def begin_run(self) -> None:
        """Past runs count as past answers do."""

    def starting_order(self, num: int) -> Sequence[int] | None:
        return None

    def begin(self, request: Request) -> None:
        """Only answers count."""

    def lose(self, request_id: str) -> None:
        """Only answers count."""

    def learn(self, written: Callable[[], Mapping[str, int]] | None) -> bool:
        if self._num_observed < self._next_lesson:
            return False
        while self._next_lesson <= self._num_observed:
            self._next_lesson *= 2
        return True

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, the base into a folder inside. Raises PredictorError where that can't be saved."""
        target = Path(folder)
        save_base = None if isinstance(self.base, UnknownPredictor) else files.saver(self.base, "the history")
        files.begin(target)
        if save_base is not None:
            save_base(target / BASE)
        else:
            (target / BASE / files.HEADER).unlink(missing_ok=True)  # of a former one, which would seem to be a part
        (target / TABLE).write_text(json.dumps(self.store.to_json()), encoding="utf-8")
        learned_from = self.learned_from.to_json() if self.learned_from else None
        fields = {
            "model": self.model,
            "has_base": save_base is not None,
            "weights": {level: _written(weight) for level, weight in self.weights.items()},
            "learned_from": learned_from,
            "card": self.card,
        }
        files.write_header(target, KIND, fields)

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone | None = None) -> Self:
        """`backbone` is for the base. Raises PredictorError on a folder that can't be read."""
        from lengthwise.predictors.saved import load_folder

        source = Path(folder)
        header = files.read_header(source)
        weights = _read_weights(source, files.field(source, header, "weights", dict))
        has_base = files.field(source, header, "has_base", bool)
        learned_from = header.get("learned_from")
        if has_base and files.read_header(source / BASE).get("kind") == KIND:
            raise PredictorError(f"{source} is a history on top of another one. Train the predictor again.")
        return cls(
            load_folder(source / BASE, backbone) if has_base else None,
            weights=weights,
            store=_read_store(source / TABLE),
            model=files.field(source, header, "model", str | None),
            learned_from=None if learned_from is None else Provenance.from_json(learned_from),
            card=files.field(source, header, "card", dict),
        )


def mixed(curve: Floats, past: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> Floats:
    """A curve (len(GRID)) with past lengths beside it, level by level, from general to special."""
    for level in LEVELS:
        weight = weights[level]
        if level in past and math.isfinite(weight):
            curve = _mixed_with(curve, np.asarray(past[level], np.float64), weight)
    return curve


def _mixed_with(curve: Floats, lengths: Any, weight: float) -> Floats:
    """A censored length stands for what the curve says beyond it."""
    around = 1 / (1 + (GRID / np.abs(lengths)[:, None]) ** (1 / SPREAD))
    left = np.interp(np.log(np.abs(lengths)), np.log(GRID), curve)[:, None]
    beyond = np.where(left > 0, np.minimum(curve / np.maximum(left, 1e-9), 1), around)
    curves = np.where(lengths[:, None] > 0, around, beyond)
    found: Floats = ((curves.sum(axis=0) + weight * curve) / (len(lengths) + weight)).astype(np.float32)
    return found


def _within(curve: Floats, limit: float) -> Floats:
    """A curve that ends where its limit stands: what is exactly known, on the grid."""
    return np.where(limit <= GRID, np.float32(0), curve)


def _written(weight: float) -> float | None:
    return weight if math.isfinite(weight) else None


def _read_weights(folder: Path, fields: Mapping[str, Any]) -> dict[str, float]:
    weights = {level: math.inf if weight is None else weight for level, weight in fields.items()}
    are_numbers = all(isinstance(weight, int | float) and weight > 0 for weight in weights.values())
    if set(weights) != set(LEVELS) or not are_numbers:
        raise PredictorError(f"{folder}: `weights` must be a number above 0 for each of {', '.join(LEVELS)}.")
    return weights


def _read_store(path: Path) -> HistoryStore:
    try:
        return HistoryStore.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise PredictorError(f"{path} can't be read as past lengths ({error}). Train the predictor again.") from error
