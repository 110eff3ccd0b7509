"""The script that trains the shipped predictor, on a tiny model, and the shipped predictor itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lengthwise.bundled import PREDICTOR_DIR
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.folder import HEADER
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.types import Request

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def test_the_script_learns_from_the_models_own_answers(chat_llama_dir: Path, tmp_path: Path) -> None:
    """Prompts, answers, fit, check, card: the predictor is that of the model that answered, at both temperatures."""
    from tools.bundled_model.train_predictor import Recipe, render_card, train

    recipe = Recipe(num_family_prompts=25, num_foreign_prompts=15, num_check_prompts=5, max_tokens=8)
    with Pipeline(chat_llama_dir, predictor="none", seed=1) as pipeline:
        predictor = train(pipeline, recipe)
        assert predictor.model == pipeline.engine.model
    assert predictor.learned_from.num_examples == 80
    assert [params.temperature for params in predictor.learned_from.sampling] == [0.0, 0.7]
    assert len(predictor.card["figures"]) == 4
    predictor.save(tmp_path)
    assert TextPredictor.load(tmp_path).card["figures"] == predictor.card["figures"]
    assert "| held-out | 0.0 | 5 |" in render_card(predictor)


needs_shipped = pytest.mark.skipif(not (PREDICTOR_DIR / HEADER).is_file(), reason="no shipped predictor yet")


@needs_shipped
def test_the_shipped_predictor_is_small_and_good() -> None:
    """At most 2 MB; better than a constant, in order and well calibrated on held-out prompts, by its own card."""
    size = sum(path.stat().st_size for path in PREDICTOR_DIR.iterdir())
    assert size <= 2_000_000
    figures = TextPredictor.load(PREDICTOR_DIR).card["figures"]
    for row in figures:
        assert row["mae_tokens"] < row["constant_mae_tokens"]
        assert 0.65 <= row["in_80_interval"] <= 0.95
    assert all(row["kendall_tau"] >= 0.4 for row in figures if row["prompts"] == "held-out")


@needs_shipped
def test_the_shipped_predictor_is_used_for_the_bundled_model() -> None:
    """`auto` finds it by the model's identity, and it tells long from short."""
    with Pipeline() as pipeline:
        assert isinstance(pipeline.predictor, TextPredictor)
        asked = [Request("long", "Write a story about bread."), Request("short", "Is bread heavy? Answer yes or no.")]
        long, short = pipeline.predictor.predict(asked).median
    assert long > short
