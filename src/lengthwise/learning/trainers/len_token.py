"""Data and a language model → a [LEN] token behind the prompt, with an adapter and a head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from lengthwise.estimates import Floats
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.training import TrainConfig
from lengthwise.learning.tuning.adapters import files_of, tuned_modules, with_new_adapter
from lengthwise.learning.tuning.config import LenConfig
from lengthwise.learning.tuning.examples import Examples
from lengthwise.learning.tuning.fitting import fit, seeded, trained_in
from lengthwise.learning.tuning.length_token import (
    LengthTokenModule,
    collate,
    fitted_temperature,
    labelled,
    num_bins,
)
from lengthwise.learning.tuning.session import Session
from lengthwise.predictors.survival import length_curve
from lengthwise.predictors.tuned.len_token import LenPredictor, LenWeights, shortened

TASK = "Behind a prompt stands a learned vector, whose last state is sorted into bins of the answer's length."


def train(data: LengthData, target: Target, config: TrainConfig) -> LenPredictor:
    """Raises UsageError without a model, PredictorError where it can't be tuned, or on too few prompts."""
    session = Session.begin(data, target, config, LenConfig)
    with seeded(config.seed):
        module = _tune(session)
    weights = _weights(module, session.learned, session.settings.bin_width)
    files = files_of(module.tuned, session.loaded)
    predictor = LenPredictor(weights, files, session.backbone, session.learned_from)
    logits = predictor.logits(session.held_out.requests)
    temperature = fitted_temperature(logits, session.held_out, session.settings.bin_width)
    predictor.weights = weights.tempered(temperature)
    session.end(predictor, TASK, tuned_modules(module.tuned))
    return predictor


def _tune(session: Session[LenConfig]) -> LengthTokenModule:
    num = num_bins(session.learned, session.settings)
    module = LengthTokenModule(with_new_adapter(session.loaded, session.settings), num)
    groups = [
        {"params": trained_in(module.tuned), "lr": session.rate},
        {"params": [module.vector, *module.head.parameters()], "lr": session.settings.head_rate},
    ]
    learned = replace(session.learned, requests=tuple(map(shortened, session.learned.requests)))
    examples = labelled(learned, session.loaded, num, session.settings)
    fit(module, examples, collate, groups, session.settings, session.config)
    return module


def _weights(module: LengthTokenModule, learned: Examples, bin_width: int) -> LenWeights:
    _, lengths, is_censored = learned.each()
    marginal = length_curve(lengths, is_censored)[None, :]
    vector, head, bias = (_numbers(tensor) for tensor in (module.vector, module.head.weight, module.head.bias))
    return LenWeights(vector, head, bias, bin_width, marginal)


def _numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().float().cpu().numpy(), np.float32)
