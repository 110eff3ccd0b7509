"""One tuning from its beginning (is all there?) to its end (what came of it?): what the kinds have in common."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from lengthwise.engines.transformers.backbone import LocalBackbone
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Labels, Target
from lengthwise.learning.scoring import compare, figures_of
from lengthwise.learning.training import TrainConfig, from_settings, target_name
from lengthwise.learning.tuning.adapters import rate_of
from lengthwise.learning.tuning.card import hub_id_of, model_card
from lengthwise.learning.tuning.config import TuningConfig
from lengthwise.learning.tuning.examples import Examples, drawn
from lengthwise.learning.tuning.reporting import check_reporter
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.tuned.adapter_files import AdapterFiles
from lengthwise.protocols import LengthPredictor

FIGURES = ("mae", "acc_50", "acc_100", "failure_ratio", "kendall_tau")

Settings = TypeVar("Settings", bound=TuningConfig)


class TunedPredictor(LengthPredictor, Protocol):
    """A predictor with an adapter."""

    adapter: AdapterFiles
    learned_from: Provenance
    card: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Session(Generic[Settings]):
    """What is tuned, on what: `learned` and `held_out` share no prompt."""

    config: TrainConfig
    settings: Settings
    backbone: LocalBackbone
    learned: Examples
    held_out: Examples
    learned_from: Provenance
    data: LengthData
    started_s: float

    @classmethod
    def begin(cls, data: LengthData, target: Target, config: TrainConfig, settings_class: type[Settings]) -> Self:
        """Raises UsageError on settings, without a model, or where no log can be written; PredictorError on a model
        that can't be tuned, or too few prompts."""
        started_s = time.perf_counter()
        settings = from_settings(settings_class, config.settings)
        check_reporter(config)
        backbone = _tunable(config)
        learned, held_out = drawn(data, target, config.seed, settings)
        learned_from = _provenance(learned, target_name(target, data), backbone.model, config.seed)
        return cls(config, settings, backbone, learned, held_out, learned_from, data, started_s)

    @property
    def loaded(self) -> LoadedModel:
        return self.backbone.loaded

    @property
    def rate(self) -> float:
        return rate_of(self.settings, self.loaded)

    def end(self, predictor: TunedPredictor, task: str, target_modules: list[str]) -> None:
        """Write into `predictor` what is known of it, and the model card into its adapter."""
        settings = {**asdict(self.settings), "learning_rate": self.rate, "target_modules": target_modules}
        predictor.card = {
            "data": self.data.name,
            "num_prompts": len(self.learned),
            "num_held_out": len(self.held_out),
            "held_out": _figures(self.held_out, predictor.predict(self.held_out.requests), self.data.limit),
            "settings": settings,
            "train_s": round(time.perf_counter() - self.started_s, 1),
        }
        card = model_card(task, hub_id_of(self.loaded), predictor.learned_from, predictor.card)
        predictor.adapter = predictor.adapter.with_card(card)


def _tunable(config: TrainConfig) -> LocalBackbone:
    if config.backbone is None:
        raise UsageError("This kind tunes a language model, and there is none; name it (--model).")
    if not isinstance(config.backbone, LocalBackbone):
        raise PredictorError(
            f"{config.backbone.model} can't be tuned: it is behind a server. Name the model itself (--model)."
        )
    return config.backbone


def _provenance(learned: Examples, target: str, model: str, seed: int) -> Provenance:
    from lengthwise.predictors.text.fit import learned_from

    rows, _, is_censored = learned.each()
    return learned_from([learned.requests[row] for row in rows], is_censored, model, target, seed)


def _figures(examples: Examples, estimates: LengthEstimates, limit: int | None) -> dict[str, float | None]:
    """Of estimates, one a prompt, on all labels; None where there is no such figure (no order among equal labels)."""
    rows, lengths, is_censored = examples.each()
    labels = Labels(tuple(examples.requests[row] for row in rows), rows, lengths, is_censored)
    figures = figures_of(compare(estimates[rows], labels, limit))
    return {name: round(figures[name], 3) if np.isfinite(figures[name]) else None for name in FIGURES}
