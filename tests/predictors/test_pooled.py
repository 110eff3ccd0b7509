"""Pooled states to lengths: what the network learns, what it keeps of cut answers, and how it is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import GRID, LengthEstimates
from lengthwise.learning.data import LengthData
from lengthwise.learning.labels import Target, label
from lengthwise.learning.scoring import compare, figures_of
from lengthwise.learning.training import TrainConfig, train
from lengthwise.predictors.pooled.net import Cells
from lengthwise.predictors.pooled.predictor import PooledPredictor
from lengthwise.predictors.saved import load_predictor, needs_backbone
from lengthwise.testing import check_predictor
from lengthwise.types import Request

WIDTH = 6
ANSWER = Target("answer")
SMALL = {"hidden_size": 32, "max_epochs": 40, "batch_size": 64}


class Numbers:
    """A backbone whose states are a prompt's numbers, `a b c ...`; a prompt that is none of these can't be read."""

    def __init__(self, model: str = "numbers") -> None:
        self.model = model
        self.num_read = 0

    def states(self, requests: Any, pooling: str) -> Any:
        self.num_read += len(requests)
        return np.array([self._state(request.text, pooling) for request in requests], np.float32).reshape(-1, WIDTH)

    def _state(self, text: str, pooling: str) -> list[float]:
        try:
            found = [float(word) for word in text.split()]
        except ValueError:
            found = []
        factor = {"mean": 1, "last": 2, "entropy": 3}[pooling]
        return [factor * one for one in found] if len(found) == WIDTH else [np.nan] * WIDTH

    def ask(self, requests: Any, max_tokens: int) -> Any:
        raise NotImplementedError

    def with_adapter(self, folder: Path) -> Any:
        raise NotImplementedError


def make_data(num: int, seed: int, limit: int | None = None) -> LengthData:
    """Log-normal lengths around a level that two of the numbers tell; two samples each."""
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(num, WIDTH)).round(3)
    centre = 4 + 0.8 * states[:, 0] + 0.5 * np.abs(states[:, 1])
    lengths = np.ceil(np.exp(centre[:, None] + 0.3 * draw.normal(size=(num, 2))))
    requests = tuple(Request(f"{seed}-{i}", " ".join(map(str, row))) for i, row in enumerate(states))
    return LengthData(requests, lengths, np.zeros(lengths.shape, bool)).within(limit)


def fit(data: LengthData, kind: str = "pooling", backbone: Any = None, seed: int = 0, **settings: Any) -> Any:
    config = TrainConfig(seed, "m", backbone or Numbers(), {**SMALL, **settings})
    return train(kind, data, ANSWER, config)


def figures(predictor: Any, data: LengthData) -> dict[str, float]:
    labels = label(data, ANSWER)
    return figures_of(compare(predictor.predict(labels.requests), labels, data.limit))


@pytest.fixture(scope="module")
def data() -> LengthData:
    return make_data(1000, 1)


@pytest.fixture(scope="module")
def predictor(data: LengthData) -> PooledPredictor:
    found: PooledPredictor = fit(data, base="text")
    return found


@pytest.mark.parametrize("kind", ["pooling", "entropy"])
def test_it_keeps_the_contract(kind: str, data: LengthData) -> None:
    """The conformance suite, prompts that can't be read among them."""
    backbone = Numbers()
    found = fit(data[:120], kind, backbone, max_epochs=3)
    check_predictor(found, data.requests[:8], lambda folder: PooledPredictor.load(folder, backbone))
    revising = found.from_prefill("numbers")
    check_predictor(revising, data.requests[:8])


def test_it_learns_the_distribution(predictor: PooledPredictor) -> None:
    """On prompts that it has not seen: near what the true centre would give, and 90 % intervals hold 90 %."""
    found = figures(predictor, make_data(1500, 2))
    assert found["kendall_tau"] > 0.65
    assert 0.86 <= found["coverage_90"] <= 0.94
    assert 0.45 <= found["coverage_50"] <= 0.56
    assert found["failure_ratio"] == 0


def test_cut_answers_are_at_least_that_long() -> None:
    """With lengths cut at 100 tokens (a good quarter of them) half of the chance beyond is where the truth has it, and
    the order among prompts with long answers is learned from how often they were cut."""
    cut = fit(make_data(1500, 1, limit=100))
    whole = make_data(800, 2)
    expected = np.mean(whole.lengths > 100)
    estimates = cut.predict(whole.requests)
    assert expected > 0.25
    assert float(estimates.exceeds(100).mean()) == pytest.approx(expected, abs=0.04)
    assert np.corrcoef(estimates.exceeds(100), (whole.lengths > 100).mean(axis=1))[0, 1] > 0.7


def test_the_same_seed_gives_the_same_network(data: LengthData) -> None:
    """And another seed another one; torch's own noise is left as it was."""
    import torch

    few = data[:150]
    torch.manual_seed(7)
    before = torch.rand(1)
    torch.manual_seed(7)
    nets = [fit(few, seed=seed, max_epochs=2).net for seed in (3, 3, 4)]
    assert torch.equal(torch.rand(1), before)
    weights = [net.layers[0][0] for net in nets]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_states_are_made_once(data: LengthData) -> None:
    """Each prompt is read once in training, however many samples and epochs there are."""
    backbone = Numbers()
    fit(data[:100], backbone=backbone, max_epochs=5)
    assert backbone.num_read == 100


def test_a_prompt_that_cant_be_read_has_the_distribution_of_all(predictor: PooledPredictor, data: LengthData) -> None:
    """Between the quantiles of the training lengths."""
    found = predictor.predict([Request("x", "no numbers"), data.requests[0]])
    assert found.median[0] == pytest.approx(np.median(data.lengths), rel=0.1)
    assert found.median[1] != found.median[0]


def test_where_the_engine_reads_it_reads_nothing_itself(data: LengthData, tmp_path: Path) -> None:
    """Beforehand the base speaks, or the distribution of all; after the prefill the network, as if it had been asked.
    An engine that runs another model is of no use."""
    backbone = Numbers()
    based, bare = (fit(data[:200], backbone=backbone, base=base, max_epochs=3) for base in ("text", "none"))
    assert based.from_prefill("another") is None
    based.save(tmp_path)
    loaded = PooledPredictor.load(tmp_path, backbone)
    backbone.num_read = 0
    few = data.requests[:20]
    for one in (based, loaded):
        assert same(one.from_prefill("numbers").predict(few), based.base.predict(few))
    constant = bare.from_prefill("numbers").predict(few)
    assert np.ptp(constant.median) == 0
    assert backbone.num_read == 0
    states = backbone.states(few, "mean")
    assert same(loaded.from_prefill("numbers").revise(few, states), based.predict(few))


def same(one: LengthEstimates, other: LengthEstimates) -> bool:
    return bool(np.allclose(one.survival, other.survival, atol=1e-6))


def test_another_backbone_is_refused(predictor: PooledPredictor, tmp_path: Path) -> None:
    """Both are named; without any it is said that one is needed."""
    predictor.save(tmp_path)
    assert needs_backbone(tmp_path)
    assert isinstance(load_predictor(tmp_path, Numbers()), PooledPredictor)
    with pytest.raises(PredictorError, match=r"numbers.*another-model"):
        load_predictor(tmp_path, Numbers("another-model"))
    with pytest.raises(PredictorError, match="--model"):
        load_predictor(tmp_path)


def test_the_backbone_need_not_be_the_model_that_answered(predictor: PooledPredictor, tmp_path: Path) -> None:
    """`model` is whose answers they are, `backbone` who reads the prompts."""
    predictor.save(tmp_path)
    header = json.loads((tmp_path / "predictor.json").read_text())
    assert (header["kind"], header["model"], header["backbone"]) == ("pooling", "m", "numbers")


def _reshape(arrays: dict[str, Any]) -> None:
    arrays["weights_1"] = arrays["weights_1"][:-1]


def _no_scale(arrays: dict[str, Any]) -> None:
    arrays["scale"] = arrays["scale"] * 0


def _cells(arrays: dict[str, Any]) -> None:
    arrays["cells"] = np.array([5, 400], np.float32)


def _nan(arrays: dict[str, Any]) -> None:
    arrays["bias_0"] = arrays["bias_0"] * np.float32(np.nan)


def _falling(arrays: dict[str, Any]) -> None:
    arrays["true"] = arrays["true"][::-1].copy()


@pytest.mark.parametrize("spoil", [_reshape, _no_scale, _cells, _nan, _falling, lambda arrays: arrays.pop("mean")])
def test_spoilt_arrays_are_refused(spoil: Any, predictor: PooledPredictor, tmp_path: Path) -> None:
    """Whatever is wrong with them, it is a PredictorError, and it is seen when it is loaded."""
    predictor.save(tmp_path)
    arrays = load_file(tmp_path / "arrays.safetensors")
    spoil(arrays)
    save_file(arrays, tmp_path / "arrays.safetensors")
    with pytest.raises(PredictorError):
        PooledPredictor.load(tmp_path, Numbers())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pooling": "max"}, "max"),
        ({"num_layers": 90}, "weights_3"),
        ({"width": "6"}, "width"),
        ({"has_base": 3}, "has_base"),
    ],
)
def test_a_spoilt_header_is_refused(changes: Any, said: str, predictor: PooledPredictor, tmp_path: Path) -> None:
    """The field is named."""
    predictor.save(tmp_path)
    path = tmp_path / "predictor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(PredictorError, match=said):
        PooledPredictor.load(tmp_path, Numbers())


def test_a_base_that_is_gone_is_said(predictor: PooledPredictor, tmp_path: Path) -> None:
    """Half a predictor is none."""
    predictor.save(tmp_path)
    (tmp_path / "base" / "predictor.json").unlink()
    with pytest.raises(PredictorError, match="base"):
        PooledPredictor.load(tmp_path, Numbers())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"held_out_share": 1}, "held_out_share"),
        ({"pooling": "entropy"}, "pooling"),
        ({"base": "encoder"}, "base"),
        ({"depth": 3}, "depth"),
    ],
)
def test_settings_that_cant_be_are_refused(settings: Any, said: str, data: LengthData) -> None:
    """Before any prompt is read."""
    backbone = Numbers()
    with pytest.raises(UsageError, match=said):
        fit(data, backbone=backbone, **settings)
    assert backbone.num_read == 0


def test_it_needs_a_model_and_prompts_that_can_be_read(data: LengthData) -> None:
    """Too few are told with their number."""
    with pytest.raises(UsageError, match="--model"):
        train("pooling", data, ANSWER, TrainConfig())
    with pytest.raises(PredictorError, match="30 of 30"):
        fit(data[:30])


def test_equal_lengths_can_be_learned(data: LengthData) -> None:
    """All labels alike: the curve falls there, and nowhere else."""
    few = data[:60]
    alike = LengthData(few.requests, np.full((60, 1), 100.0), np.zeros((60, 1), bool))
    found = fit(alike).predict(few.requests[:3])
    assert (found.exceeds(150) < 0.05).all()
    assert (found.exceeds(70) > 0.95).all()


@pytest.mark.parametrize(
    ("length", "is_cut"), [(1, False), (7, True), (100, True), (512, True), (600, True), (90, False)]
)
def test_cells_keep_what_is_known(length: float, is_cut: bool) -> None:
    """Chances that agree with a length, and with nothing else, make a curve that puts it there: all of it at its cell,
    or, cut, all above."""
    cells = Cells.of([1, 512])
    shares = cells.shares([length], [is_cut])
    curve = cells.survival(shares / shares.sum())[0]
    estimate = LengthEstimates.from_survival(curve[None])
    step = GRID[1] / GRID[0]
    if is_cut:
        assert estimate.exceeds(min(length, 512) / step)[0] == 1
        assert estimate.exceeds(min(length, 512) * step)[0] > 0.2
    else:
        assert estimate.exceeds(length / step - 1e-3)[0] == 1
        assert estimate.exceeds(length)[0] < 0.9
        assert estimate.exceeds(length * step)[0] < 2e-3, "what LengthEstimates leaves beyond any curve"
