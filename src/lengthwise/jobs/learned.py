"""What a job's own answers taught its predictor: kept in a folder beside the answers, and used when the job goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lengthwise.errors import PredictorError, first_line
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.cold_start.predictor import LEARNED_BY, ColdStartPredictor
from lengthwise.predictors.folder import HEADER, read_header
from lengthwise.predictors.saved import load_folder

if TYPE_CHECKING:
    from lengthwise.predictors.text.predictor import TextPredictor

log = logging.getLogger("lengthwise")

_FILES = {"arrays.safetensors", "vocabulary.txt", "trees.txt"}  # of a text predictor, beside its header


@contextmanager
def learning(pipeline: Pipeline, folder: Path, begins_anew: bool) -> Iterator[None]:
    """While entered, the pipeline's predictor goes on from what lies in `folder`, and what it learns is put there. A
    job that begins anew takes nothing from there: it may be another one. Nothing happens with a predictor that does not
    learn in a run. A folder that can't be read or written costs what was learned, and never the job."""
    predictor = pipeline.predictor
    if not isinstance(predictor, ColdStartPredictor):
        yield
        return
    if predictor.learned is None and not begins_anew:
        _resume(predictor, folder)
    predictor.on_learned = lambda learned: _save(learned, folder)
    try:
        yield
    finally:
        predictor.on_learned = None


def learn_from_all(pipeline: Pipeline) -> None:
    """All is answered: learn once more. Within `learning`, it is kept."""
    if isinstance(pipeline.predictor, ColdStartPredictor):
        try:
            pipeline.predictor.finish()
        except Exception:
            log.warning("Nothing more could be learned from the answers.", exc_info=True)


def _resume(predictor: ColdStartPredictor, folder: Path) -> None:
    if not folder.exists():
        return
    try:
        if read_header(folder).get("model") != predictor.model:
            log.info("%s was learned from another model: not used.", folder)
            return
        predictor.resume(load_folder(folder))
    except PredictorError as error:
        log.warning("%s is not used, and lengths are learned anew: %s", folder, first_line(error))
        return
    log.info("Lengths are estimated by what was learned before, in %s.", folder)


def _save(learned: TextPredictor, folder: Path) -> None:
    """Raises nothing: where it can't be kept, that is said."""
    try:
        if folder.exists() and not _is_own(folder):
            log.warning("%s was not made by a run, so it is not written over; what was learned is not kept.", folder)
            return
        learned.save(folder)
    except (OSError, PredictorError) as error:
        log.warning("What was learned can't be kept in %s (%s); the job goes on.", folder, first_line(error))


def _is_own(folder: Path) -> bool:
    """Made by a run; or half written, or empty."""
    if not folder.is_dir():
        return False
    if not (folder / HEADER).is_file():
        return {path.name for path in folder.iterdir()} <= _FILES
    try:
        card = read_header(folder).get("card")
    except PredictorError:
        return False
    return isinstance(card, dict) and card.get("learned_by") == LEARNED_BY
