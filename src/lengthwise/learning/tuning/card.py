"""What is said of a tuned predictor: its card, and the adapter's model card in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.predictors.provenance import Provenance

Card = Mapping[str, Any]

_CACHED = "models--"  # the hub's cache keeps owner/name in a folder models--owner--name


def model_card(task: str, hub_id: str | None, learned_from: Provenance, card: Card) -> str:
    """README.md for the adapter's folder. `task` is a sentence; `card` the predictor's, `hub_id` its base model's."""
    base = f"base_model: {hub_id}\n" if hub_id else ""
    return (
        f"---\nlibrary_name: peft\n{base}tags:\n- lora\n- response-length\n---\n\n# Length of answers\n\n"
        f"{task} After Zheng et al., *Response Length Perception and Sequence Scheduling*, NeurIPS 2023 (arXiv "
        "2305.13144). It is on while lengths are predicted; the model that answers runs without it.\n\n"
        f"- **Base model**: {f'{hub_id}, ' if hub_id else ''}`{learned_from.model}`\n"
        f"- **Data**: {card['data']}: {card['num_prompts']:,} prompts with {learned_from.num_examples:,} lengths, "
        f"{learned_from.num_censored:,} of them cut\n"
        f"- **Target**: {learned_from.target}\n"
        f"- **Seed**: {learned_from.seed}\n"
        f"- **Made by**: lengthwise {learned_from.lengthwise_version}, in {card['train_s']:,} s\n\n"
        f"## Figures\n\nOn {card['num_held_out']:,} prompts of the data that it was not tuned on:\n\n"
        f"{_table(card['held_out'])}\n## Settings\n\n{_table(card['settings'])}"
    )


def hub_id_of(loaded: LoadedModel) -> str | None:
    """`owner/name` where the model lies in the hub's cache; None for a folder."""
    cached = [part for part in PurePath(str(loaded.model.name_or_path)).parts if part.startswith(_CACHED)]
    return cached[-1].removeprefix(_CACHED).replace("--", "/") if cached else None


def _table(values: Card) -> str:
    rows = "".join(f"| {name} | {_shown(value)} |\n" for name, value in values.items())
    return f"| | |\n|---|---|\n{rows}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
