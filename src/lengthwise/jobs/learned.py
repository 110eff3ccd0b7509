"""What a job's own answers taught its predictor: kept in a folder beside the answers, and used when the job goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lengthwise.errors import PredictorError, first_line, shown
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.cold_start.predictor import LEARNED_BY, ColdStartPredictor
from lengthwise.predictors.folder import HEADER, read_header
from lengthwise.predictors.saved import load_folder

if TYPE_CHECKING:
    from lengthwise.predictors.text.predictor import TextPredictor

log = logging.getLogger("lengthwise")

SETTINGS = "settings"  # in the card: what shaped the lengths that were learned from
_NO_SETTINGS = {"input", "input_format", "output_format", "prompt_field", "seed"}  # of what determines answers
_FILES = {"arrays.safetensors", "vocabulary.txt", "trees.txt"}  # of a text predictor, beside its header


@contextmanager
def learning(pipeline: Pipeline, folder: Path, identity: Mapping[str, object], begins_anew: bool) -> Iterator[None]:
    """While entered, the pipeline's predictor goes on from what lies in `folder`, and what it learns is put there.
    `identity` is what determines the job's answers: what was learned with other settings or from another model is not
    used. A job that begins anew takes nothing from there: it may be another one. Nothing happens with a predictor that
    does not learn in a run. A folder that can't be read or written costs what was learned, and never the job."""
    predictor = pipeline.predictor
    if not isinstance(predictor, ColdStartPredictor):
        yield
        return
    settings = json.loads(json.dumps({name: identity[name] for name in sorted(identity.keys() - _NO_SETTINGS)}))
    if predictor.learned is None and not begins_anew:
        _resume(predictor, folder, settings)
    predictor.on_learned = lambda learned: _save(learned, folder, settings)
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


def _resume(predictor: ColdStartPredictor, folder: Path, settings: Mapping[str, Any]) -> None:
    if not folder.exists():
        return
    try:
        if differing := _differing(_card(folder).get(SETTINGS), settings):
            log.info("%s is not used, and lengths are learned anew: it was learned with %s.", folder, differing)
            return
        predictor.resume(load_folder(folder))
    except PredictorError as error:
        log.warning("%s is not used, and lengths are learned anew: %s", folder, first_line(error))
        return
    log.info("Lengths are estimated by what was learned before, in %s.", folder)


def _card(folder: Path) -> Mapping[str, Any]:
    card = read_header(folder).get("card")
    return card if isinstance(card, dict) else {}


def _differing(theirs: object, ours: Mapping[str, Any]) -> str:
    """What lengths were learned with, where it is something else than here; empty where it is the same."""
    if not isinstance(theirs, dict):
        return "settings that it does not tell"
    names = [name for name in ours if name not in theirs or theirs[name] != ours[name]]
    return ", ".join(f"{name} {shown(theirs.get(name))} (here {shown(ours[name])})" for name in names)


def _save(learned: TextPredictor, folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises nothing: where it can't be kept, that is said."""
    learned.card = {**learned.card, SETTINGS: settings}
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
        return _card(folder).get("learned_by") == LEARNED_BY
    except PredictorError:
        return False
