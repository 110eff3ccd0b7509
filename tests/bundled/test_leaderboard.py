"""`make leaderboard`: prompts that are nobody's but the board's, commands that are run, and the page of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.bundled_model.corpus import FINAL_MIX, training_side_prompts
from tools.bundled_model.prompts import read_prompts
from tools.bundled_model.train import Stage
from tools.leaderboard import make, own_lengths

NUM = 40


@pytest.fixture
def unwanted(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The model's training text, which takes minutes to draw again, replaced by a few of the prompts to come."""
    texts = {prompt.text for prompt in training_side_prompts(2 * NUM, own_lengths.SEED)[::5]}
    monkeypatch.setattr(own_lengths, "trained_texts", lambda: texts)
    return texts


def test_training_prompts_are_new(unwanted: set[str]) -> None:
    """As many as wanted, all different; none that the model's training or the test holds."""
    rows = own_lengths.train_prompts(NUM)
    texts = {row["prompt"] for row in rows}
    assert len(texts) == len({row["id"] for row in rows}) == NUM
    assert not texts & unwanted
    assert not texts & {row["prompt"] for row in read_prompts()}


def test_the_training_text_is_drawn_again_to_its_end() -> None:
    """All user messages of a stage: more tokens, more messages, the same first ones."""
    short, long = (list(own_lengths._stage_texts(Stage(FINAL_MIX, 3, num, 1e-3))) for num in (1_000, 4_000))
    assert len(long) > 2 * len(short) > 0
    assert long[: len(short)] == short


def test_prompts_are_written_whole(tmp_path: Path) -> None:
    """One JSON object a line, and nothing beside."""
    own_lengths.write_prompts([{"id": "1", "prompt": "Grüße"}], tmp_path / "p.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]
    assert json.loads((tmp_path / "p.jsonl").read_text(encoding="utf-8")) == {"id": "1", "prompt": "Grüße"}


def test_both_tables_have_both_targets() -> None:
    """Four commands, with the language model for kinds that ask one."""
    found = make.steps(Path("work"), "all")
    assert [step.name for step in found] == ["own-max", "own-answer", "vicuna-max", "vicuna-answer"]
    assert all("--model bundled" in step.command for step in found)
    assert found[2].command.startswith("lengthwise bench predictors alpaca-vicuna/train alpaca-vicuna/eval-1000")


@pytest.mark.parametrize("name", ["own", "vicuna"])
def test_the_settings_can_be_used(name: str) -> None:
    """Each table makes a configuration of its kind."""
    import tomllib

    from lengthwise.learning.encoding.config import EncoderConfig
    from lengthwise.learning.trainers.stack import StackConfig
    from lengthwise.learning.training import from_settings
    from lengthwise.learning.tuning.config import LenConfig, LoraConfig

    configs = {"encoder": EncoderConfig, "len": LenConfig, "lora": LoraConfig, "stack": StackConfig}
    tables = tomllib.loads((make.ROOT / make.SETTINGS[name]).read_text())
    made = {kind: from_settings(configs[kind], table) for kind, table in tables.items()}
    assert made["stack"].parts
    assert all(kind in make.ONCE[name] for kind in ("encoder", "len", "lora"))


def test_the_page_has_the_parts_and_what_they_rest_on(tmp_path: Path) -> None:
    """Tables in order, then commands, dates, machine and versions."""
    (tmp_path / "own").mkdir()
    for name, num in (("train", 4_000), ("test", 1_000)):
        (tmp_path / "own" / f"{name}.jsonl").write_text("{}\n" * num)
    made = make.steps(tmp_path, "all")
    for step in made:
        (tmp_path / f"{step.name}.md").write_text(f"| table {step.name} |\n")
    machine = {"processor": "A processor", "cores": 2, "system": "Linux"}
    line: dict[str, Any] = {"date": "2030-01-02", "machine": machine, "versions": {"numpy": "9"}, "python": "3.99"}
    lines = {step.name: line for step in made}
    lines["own-max"] = {**line, "date": "2030-01-01"}
    text = make.page(tmp_path, made, lines)
    places = [text.index(f"| table {step.name} |") for step in made]
    assert places == sorted(places)
    assert "4,000 prompts to learn from, 1,000 held out" in text
    assert "## Other models" not in text
    assert "2030-01-01 to 2030-01-02; A processor, 2 cores, Linux; Python\n3.99, numpy 9." in text
    assert all(step.command in text for step in made)
