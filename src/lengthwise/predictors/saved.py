"""Predictors by name, as `--predictor` and `Pipeline(predictor=...)` spell them, and from folders."""

from __future__ import annotations

from pathlib import Path

from lengthwise.bundled import PREDICTOR_DIR
from lengthwise.errors import PredictorError
from lengthwise.predictors.folder import HEADER, field, read_header
from lengthwise.predictors.kinds import KINDS, Kind
from lengthwise.predictors.prompted.question import Form
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import Backbone, LengthPredictor

SPELLINGS = (
    "`auto`, `none`, `constant:TOKENS`, `oracle:FILE`, `history` (what like requests took before, in this run), `po` "
    "or `pia` (the model itself is asked), `po:ADAPTER_DIR`, or the folder of a saved predictor"
)


def resolve(name: str, model_identity: str, backbone: Backbone | None = None) -> LengthPredictor:
    """The predictor that `name` means for a model: `auto` is `default_predictor`, all else `load_predictor`."""
    return default_predictor(model_identity) if name == "auto" else load_predictor(name, backbone)


def default_predictor(model_identity: str) -> LengthPredictor:
    """The predictor that ships with the package if it learned from this very model, else one that knows nothing."""
    if not (PREDICTOR_DIR / HEADER).is_file():
        return UnknownPredictor()
    header = read_header(PREDICTOR_DIR)
    return load_folder(PREDICTOR_DIR) if header.get("model") == model_identity else UnknownPredictor()


def needs_backbone(name_or_dir: str | Path) -> bool:
    """Whether it asks a language model, or looks into one. Raises PredictorError on a folder that can't be read."""
    if _question(str(name_or_dir)) is not None:
        return True
    folder = Path(name_or_dir)
    return folder.is_dir() and any(kind.needs_backbone for kind in _kinds(folder))


def load_predictor(name_or_dir: str | Path, backbone: Backbone | None = None) -> LengthPredictor:
    """What SPELLINGS says, but `auto`. `backbone` is the language model for those that need one. Raises PredictorError
    with what is wrong and a way out."""
    kind, _, rest = str(name_or_dir).partition(":")
    question = _question(str(name_or_dir))
    if name_or_dir == "none":
        return UnknownPredictor()
    if name_or_dir == "history":
        from lengthwise.predictors.history.predictor import HistoryPredictor

        return HistoryPredictor()
    if question is not None:
        return _asking(str(name_or_dir), question, backbone)
    if kind == "oracle" and rest:
        from lengthwise.predictors.oracle import OraclePredictor

        return OraclePredictor.from_file(rest)
    if kind == "constant" and rest:
        return _constant(rest)
    if not Path(name_or_dir).is_dir():
        raise PredictorError(f"There is no predictor {str(name_or_dir)!r}; it is {SPELLINGS}.")
    return load_folder(Path(name_or_dir), backbone)


def load_folder(folder: Path, backbone: Backbone | None = None) -> LengthPredictor:
    """A saved predictor, by the `kind` in its header. Raises PredictorError."""
    kind, *parts = _kinds(folder)
    if any(one.needs_backbone for one in (kind, *parts)):
        model = _given(backbone, f"The predictor in {folder}")
        if any(one.needs_states for one in (kind, *parts)):
            model.states((), "last")  # of no request; raises where there are none to be had
    takes_backbone = kind.needs_backbone or kind.has_parts
    arguments = (folder, backbone) if takes_backbone else (folder,)
    predictor: LengthPredictor = kind.predictor_class().load(*arguments)
    named = read_header(folder).get("model", predictor.model)
    if named != predictor.model:
        raise PredictorError(
            f"{folder} is said to be of {named!r:.80}, and learned from {predictor.model!r:.80}: a predictor is of one "
            "model. Train it again."
        )
    return predictor


def _kinds(folder: Path) -> list[Kind]:
    """The kind of the predictor in `folder`, then those of the ones inside it."""
    kind = _kind(folder)
    parts = sorted(folder.glob(f"*/{HEADER}")) if kind.has_parts else ()
    return [kind, *(inner for part in parts for inner in _kinds(part.parent))]


def _given(backbone: Backbone | None, asker: str) -> Backbone:
    if backbone is None:
        raise PredictorError(
            f"{asker} asks a language model, or looks into one, and there is none: name it (--model), or take an "
            "engine that has one."
        )
    return backbone


def _question(name: str) -> Form | None:
    """How a predictor of this name asks its model, untrained; None where it is another kind."""
    kind, _, adapter = name.partition(":")
    if kind == "po" and (adapter or name == "po"):
        return "po"
    return "pia" if name == "pia" else None


def _asking(name: str, form: Form, backbone: Backbone | None) -> LengthPredictor:
    from lengthwise.predictors.prompted.predictor import PromptedPredictor

    adapter = name.partition(":")[2]
    model = _given(backbone, f"The predictor `{name}`")
    return PromptedPredictor(model, form, adapter=Path(adapter).expanduser() if adapter else None)


def _kind(folder: Path) -> Kind:
    name = field(folder, read_header(folder), "kind", str)
    if name not in KINDS:
        known = ", ".join(f"`{one}`" for one in sorted(KINDS))
        raise PredictorError(
            f"{folder} holds a predictor of kind {name!r}; this version knows {known}. "
            "Install a newer one, or train the predictor again."
        )
    return KINDS[name]


def _constant(tokens: str) -> LengthPredictor:
    from lengthwise.predictors.constant import ConstantPredictor

    try:
        return ConstantPredictor.of_length(float(tokens))
    except ValueError as error:
        raise PredictorError(
            f"constant:{tokens} is no number of tokens, 1 or more (for instance constant:120)."
        ) from error
