"""The terms that a predictor knows, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lengthwise.errors import PredictorError
from lengthwise.predictors.folder import extent

VOCABULARY = "vocabulary.txt"


def write_vocabulary(folder: Path, vocabulary: Sequence[str]) -> None:
    """No term holds a line break, and none is empty."""
    (folder / VOCABULARY).write_bytes("\n".join(vocabulary).encode("utf-8", "surrogatepass"))


def read_vocabulary(folder: Path) -> list[str]:
    """Raises PredictorError on a file that can't be read, has not as many terms as ARRAYS, or holds one twice."""
    path = folder / VOCABULARY
    try:
        text = path.read_bytes().decode("utf-8", "surrogatepass")
    except (OSError, UnicodeDecodeError) as error:
        raise PredictorError(f"{path} can't be read as text ({error}). Train the predictor again.") from error
    vocabulary = text.split("\n") if text else []
    num_terms = extent(folder, "idf")
    if num_terms not in (None, len(vocabulary)):
        raise PredictorError(
            f"{path} holds {len(vocabulary)} terms of {num_terms}: it was cut off, or changed. Train the predictor "
            "again."
        )
    if len(set(vocabulary)) != len(vocabulary):
        raise PredictorError(f"{path} holds a term twice. Train the predictor again.")
    return vocabulary
