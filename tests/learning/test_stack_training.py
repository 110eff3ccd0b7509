"""Training a stack: nothing leaks from a base or a part, and a few answers of another model adapt a predictor."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau
from typer.testing import CliRunner

from lengthwise.cli.app import app
from lengthwise.errors import PredictorError, UsageError
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target
from lengthwise.learning.seen import digests_of, num_seen, remember, remembered
from lengthwise.learning.trainers import stack as trainer
from lengthwise.learning.training import TrainConfig, needs_backbone, train
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.stack.predictor import StackPredictor
from lengthwise.types import Request

ANSWER = Target("answer")
KINDS = {"Write a story about": 5.4, "What is": 2.8, "List uses of": 4.4, "Explain how to make": 5.0, "Name": 2.2}
WORDS = ["lamp", "river", "coin", "map", "bridge", "clock", "kettle", "window", "ladder", "violin", "garden", "stone"]


def made(num: int, seed: int, factor: float = 1, shift: dict[str, float] | None = None, samples: int = 1) -> LengthData:
    """Answers whose length hangs on the prompt's opening and on a word of it. Another model's: times `factor`, and
    some openings shifted (natural log)."""
    rng = np.random.default_rng(seed)
    requests, lengths = [], []
    for i in range(num):
        opening, word = rng.choice(list(KINDS)), int(rng.integers(len(WORDS)))
        centre = KINDS[opening] + (shift or {}).get(opening, 0) + 0.04 * word + np.log(factor)
        requests.append(Request(f"{seed}-{i}", f"{opening} a {WORDS[word]} number {seed} {i} in {rng.integers(10**6)}"))
        lengths.append(np.exp(rng.normal(centre, 0.35, samples)).round().clip(1))
    values = np.array(lengths)
    return LengthData(tuple(requests), values, np.zeros(values.shape, bool), name="made")


def tau(predictor: object, data: LengthData) -> float:
    medians = predictor.predict(data.requests).median  # type: ignore[attr-defined]
    return float(kendalltau(medians, data.lengths[:, 0]).statistic)


def mae(predictor: object, data: LengthData) -> float:
    return float(np.abs(predictor.predict(data.requests).median - data.lengths[:, 0]).mean())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text predictor of one model's answers, with what it has seen."""
    data, folder = made(400, 1), tmp_path_factory.mktemp("base") / "base"
    train("text", data, ANSWER).save(folder)  # type: ignore[attr-defined]
    remember(folder, digests_of(data.requests))
    return folder


def adapted(base: Path, data: LengthData) -> StackPredictor:
    predictor = train("stack", data, ANSWER, TrainConfig(settings={"bases": [str(base)]}))
    assert isinstance(predictor, StackPredictor)
    return predictor


def test_fifty_answers_of_another_model_adapt(base: Path) -> None:
    """Lengths come right, and the order is not worse, in the mean of ten draws of fifty answers."""
    other = made(700, 2, factor=3, shift={"What is": 0.5})
    held_out = other[np.arange(500, 700)]
    before = load_predictor(base)
    after = [adapted(base, other[np.arange(start, start + 50)]) for start in range(0, 500, 50)]
    assert np.mean([tau(one, held_out) for one in after]) >= tau(before, held_out) - 0.005
    assert max(mae(one, held_out) for one in after) < 0.7 * mae(before, held_out)


def test_more_answers_mend_the_order(base: Path) -> None:
    """Where the other model answers some openings quite otherwise, 400 of its answers give a better order."""
    other = made(600, 3, shift={"What is": 2.5, "Write a story about": -2.5})
    held_out = other[np.arange(400, 600)]
    after = adapted(base, other[np.arange(400)])
    assert tau(after, held_out) > tau(load_predictor(base), held_out) + 0.1


def test_intervals_of_an_adapted_predictor_hold(base: Path) -> None:
    """The 90 % interval, on prompts that it has not seen."""
    other = made(600, 4, factor=3)
    held_out = other[np.arange(300, 600)]
    estimates = adapted(base, other[np.arange(300)]).predict(held_out.requests)
    lengths = held_out.lengths[:, 0]
    inside = (lengths >= estimates.quantile(0.05)) & (lengths <= estimates.quantile(0.95))
    assert 0.85 <= inside.mean() <= 0.95


def test_parts_are_put_together_out_of_fold() -> None:
    """A stack of a text part is as good as the text predictor, and as sure as it may be, on prompts of its own kind:
    had the part said what it says of prompts that it has seen, intervals would be too narrow."""
    data = made(600, 5, samples=2)
    rows = np.arange(600)
    learned, held_out = data[rows[:400]], data[rows[400:]]
    alone = train("text", learned, ANSWER)
    stack = train("stack", learned, ANSWER, TrainConfig(settings={"parts": ["text"], "num_folds": 3}))
    assert mae(stack, held_out) <= 1.03 * mae(alone, held_out)
    estimates, lengths = stack.predict(held_out.requests), held_out.lengths[:, 0]
    inside = (lengths >= estimates.quantile(0.05)) & (lengths <= estimates.quantile(0.95))
    assert 0.84 <= inside.mean() <= 0.96


def test_what_parts_say_is_said_by_those_that_have_not_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is asked about a prompt, or one nearly the same, that it was trained on, but the last of all."""
    asked: list[tuple[frozenset[bytes], int]] = []

    class Watching(ConstantPredictor):
        def predict(self, requests):  # type: ignore[no-untyped-def]
            asked.append((self.seen, num_seen(self.seen, requests)))
            return super().predict(requests)

    def fake(kind: str, data: LengthData, target: Target, config: TrainConfig) -> Watching:
        predictor = Watching.fit(data.lengths[:, 0])
        predictor.seen = digests_of(data.requests)  # type: ignore[attr-defined]
        return predictor

    monkeypatch.setattr(trainer, "train_kind", fake)
    data = made(60, 6)
    data = replace(
        data,
        requests=tuple(
            replace(r, prompt=f"{data.requests[i // 2].text}{'!' * (i % 2)}") for i, r in enumerate(data.requests)
        ),
    )
    train("stack", data, ANSWER, TrainConfig(settings={"parts": ["constant"]}))
    assert len(asked) == 5
    assert all(len(seen) > 0 and num == 0 for seen, num in asked)


def test_prompts_that_a_base_has_learned_from_are_left_out(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are counted aloud."""
    both = made(500, 1)  # the first 400 of it are the base's own
    caplog.set_level(logging.INFO, "lengthwise")
    stack = adapted(base, both)
    assert stack.learned_from.num_examples == 100
    assert "400 of 500 prompts were learned from by a base" in caplog.text


def test_a_base_that_has_learned_from_all_is_refused(base: Path) -> None:
    """The message says what else can be done."""
    with pytest.raises(PredictorError, match=r"all 200 prompts of made.*--parts"):
        adapted(base, made(400, 1)[np.arange(200)])


def test_a_base_that_does_not_say_what_it_has_seen_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is used all the same."""
    train("constant", made(60, 7), ANSWER).save(tmp_path / "base")  # type: ignore[attr-defined]
    adapted(tmp_path / "base", made(60, 8))
    assert "doesn't say what it learned from" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "--base"),
        ({"parts": ["stack"]}, "'stack'"),
        ({"parts": ["best"]}, "'best'"),
        ({"parts": ["text"], "num_folds": 1}, "num_folds is 1"),
        ({"parts": ["text"], "term_weight": -1.0}, "term_weight"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, object], said: str) -> None:
    """Before anything is trained."""
    with pytest.raises(UsageError, match=said):
        train("stack", made(30, 9), ANSWER, TrainConfig(settings=settings))


def test_a_part_that_learns_nothing_is_left_out_beside_a_base(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Thirty prompts are too few for a text part; with a base that is no end, alone it is."""
    few = made(30, 10)
    settings = {"bases": [str(base)], "parts": ["text"]}
    stack = train("stack", few, ANSWER, TrainConfig(settings=settings))
    assert len(stack.bases) == 1  # type: ignore[attr-defined]
    assert "The part text is left out" in caplog.text
    with pytest.raises(PredictorError):
        train("stack", few, ANSWER, TrainConfig(settings={"parts": ["text"]}))


def test_a_stack_of_kinds_that_ask_a_model_needs_one() -> None:
    """So the command opens one."""
    assert needs_backbone("stack", {"parts": ["text", "pooling"]})
    assert not needs_backbone("stack", {"parts": ["text"]})


def test_the_command_adapts_and_remembers(base: Path, tmp_path: Path) -> None:
    """`train stack DATA --base DIR`: the folder knows the base's prompts and its own."""
    data = made(60, 11)
    rows = [{"prompt": r.text, "length": int(n)} for r, (n,) in zip(data.requests, data.lengths, strict=True)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["train", "stack", str(tmp_path / "data.jsonl"), "-o", str(tmp_path / "stack"), "--base", str(base)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    seen = remembered(tmp_path / "stack")
    assert seen is not None
    assert num_seen(seen, data.requests) == 60
    assert num_seen(seen, made(400, 1).requests) == 400
    assert isinstance(load_predictor(tmp_path / "stack"), StackPredictor)


def test_other_kinds_take_no_bases(tmp_path: Path) -> None:
    """`--base` with another kind is no silent nothing."""
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "length": 3}\n' * 60)
    arguments = ["train", "constant", str(tmp_path / "data.jsonl"), "-o", str(tmp_path / "x"), "--base", "y"]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UsageError)
    assert "--base is an option of `train stack`" in str(done.exception)
