"""Predictors by name, as `--predictor` and `Pipeline(predictor=...)` spell them, and from folders."""

from __future__ import annotations

from pathlib import Path

from lengthwise.bundled import PREDICTOR_DIR
from lengthwise.errors import PredictorError
from lengthwise.predictors.folder import HEADER, field, read_header
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import LengthPredictor

SPELLINGS = "`auto`, `none`, `constant:TOKENS`, `oracle:FILE`, or the folder of a saved predictor"


def resolve(name: str, model_identity: str) -> LengthPredictor:
    """The predictor that `name` means for a model: `auto` is `default_predictor`, all else `load_predictor`."""
    return default_predictor(model_identity) if name == "auto" else load_predictor(name)


def default_predictor(model_identity: str) -> LengthPredictor:
    """The predictor that ships with the package if it learned from this very model, else one that knows nothing."""
    if not (PREDICTOR_DIR / HEADER).is_file():
        return UnknownPredictor()
    header = read_header(PREDICTOR_DIR)
    return load_folder(PREDICTOR_DIR) if header.get("model") == model_identity else UnknownPredictor()


def load_predictor(name_or_dir: str | Path) -> LengthPredictor:
    """`none`, `constant:TOKENS`, `oracle:FILE`, or a folder. Raises PredictorError with what is wrong and a way out."""
    kind, _, rest = str(name_or_dir).partition(":")
    if name_or_dir == "none":
        return UnknownPredictor()
    if kind == "oracle" and rest:
        from lengthwise.predictors.oracle import OraclePredictor

        return OraclePredictor.from_file(rest)
    if kind == "constant" and rest:
        return _constant(rest)
    if not Path(name_or_dir).is_dir():
        raise PredictorError(f"There is no predictor {str(name_or_dir)!r}; it is {SPELLINGS}.")
    return load_folder(Path(name_or_dir))


def load_folder(folder: Path) -> LengthPredictor:
    """A saved predictor, by the `kind` in its header. Raises PredictorError."""
    header = read_header(folder)
    kind = field(folder, header, "kind", str)
    if kind == "constant":
        from lengthwise.predictors.constant import ConstantPredictor

        return ConstantPredictor.load(folder)
    if kind == "text":
        from lengthwise.predictors.text import TextPredictor

        return TextPredictor.load(folder)
    if kind == "calibrated":
        from lengthwise.predictors.calibrated import CalibratedPredictor

        return CalibratedPredictor.load(folder)
    known = "`constant`, `text` and `calibrated`"
    raise PredictorError(f"{folder} holds a predictor of kind {kind!r}; this version knows {known}.")


def _constant(tokens: str) -> LengthPredictor:
    from lengthwise.predictors.constant import ConstantPredictor

    try:
        return ConstantPredictor.of_length(float(tokens))
    except ValueError as error:
        raise PredictorError(
            f"constant:{tokens} is no number of tokens, 1 or more (for instance constant:120)."
        ) from error
