"""Where the files that ship with the package lie: a small model, prompts, and the model's length predictor."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

MODEL_DIR = _FOLDER / "model"
PROMPTS_FILE = _FOLDER / "prompts.jsonl"
PREDICTOR_DIR = _FOLDER / "predictor"

NAME = "bundled"  # as `--model` spells it, where no folder has that name


def is_bundled(model: str) -> bool:
    """Whether a model's name means the bundled one."""
    return model == NAME and not Path(model).is_dir()
