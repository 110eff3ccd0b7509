"""Asking a predictor in the middle of a run: one that fails costs time and accuracy, never an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from lengthwise.estimates import Floats, LengthEstimates
from lengthwise.protocols import AnswerReviser, LengthPredictor, PartialText, PromptReviser
from lengthwise.types import Completion, Request

log = logging.getLogger("lengthwise")

_TOLD = "_failure_is_told"


def safe_predict(predictor: LengthPredictor, requests: Sequence[Request]) -> LengthEstimates:
    """Estimates, one row a request; "nothing is known" where the predictor fails."""
    estimates = _tried(predictor, lambda: predictor.predict(requests), len(requests))
    return LengthEstimates.unknown(len(requests)) if estimates is None else estimates


def safe_revise(
    predictor: LengthPredictor, requests: Sequence[Request], states: Sequence[Floats]
) -> LengthEstimates | None:
    """Estimates from states (width each), one row a request; None where there is nothing to revise, or it fails."""
    if not requests or not isinstance(predictor, PromptReviser):
        return None
    return _tried(predictor, lambda: predictor.revise(requests, np.stack(states)), len(requests))


def safe_revise_running(
    predictor: LengthPredictor, engine: object, requests: Sequence[Request], tokens: Sequence[Sequence[int]]
) -> LengthEstimates | None:
    """Estimates of answers that were cut, one row each, from the tokens that are there; None where predictor or engine
    can't tell, or it fails."""
    if not (isinstance(predictor, AnswerReviser) and isinstance(engine, PartialText)):
        return None

    def ask() -> LengthEstimates:
        texts = [engine.text_of(written) for written in tokens]
        return predictor.revise_running(requests, texts, [len(written) for written in tokens])

    return _tried(predictor, ask, len(requests))


def safe_observe(predictor: LengthPredictor, request: Request, completion: Completion) -> None:
    try:
        predictor.observe([request], [completion])
    except Exception:
        _tell(predictor, "%s could not learn from %s; going on.", type(predictor).__name__, request.id)


def _tried(predictor: LengthPredictor, ask: Callable[[], LengthEstimates], num: int) -> LengthEstimates | None:
    name = type(predictor).__name__
    try:
        estimates = ask()
    except Exception:
        _tell(predictor, "%s failed; going on without what it would have said.", name)
        return None
    if len(estimates) == num:
        return estimates
    log.warning("%s gave %d estimates for %d requests; not used.", name, len(estimates), num)
    return None


def _tell(predictor: LengthPredictor, message: str, *values: object) -> None:
    """What went wrong, with where it happened the first time; a predictor that fails at every answer shall not fill the
    log with that."""
    is_told = getattr(predictor, _TOLD, False)
    log.log(logging.DEBUG if is_told else logging.WARNING, message, *values, exc_info=not is_told)
    with suppress(AttributeError, TypeError):  # one that takes no attribute is told of each time
        setattr(predictor, _TOLD, True)
