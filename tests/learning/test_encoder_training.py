"""Training an encoder: targets, what is cut, and that what it learned holds for prompts it has not seen."""

from __future__ import annotations

import importlib.util
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from lengthwise.errors import PredictorError, UsageError
from lengthwise.estimates import GRID
from lengthwise.learning.encoding import export, quantized
from lengthwise.learning.encoding.bins import bin_edges, bin_of, head_targets
from lengthwise.learning.encoding.config import EncoderConfig
from lengthwise.learning.encoding.course import Course, _groups
from lengthwise.learning.encoding.eight_bits import LinearIn8Bits, RoundedInput
from lengthwise.learning.encoding.heads import heads_of
from lengthwise.learning.encoding.loop import chances
from lengthwise.learning.encoding.network import LengthNetwork, WantedChances, loss
from lengthwise.learning.encoding.prompts import EncodedPrompts
from lengthwise.learning.encoding.starting import OFFLINE_PACKAGE, default_encoder
from lengthwise.learning.labels import Target
from lengthwise.learning.training import TrainConfig, train
from lengthwise.predictors.encoder.predictor import EncoderPredictor
from lengthwise.predictors.encoder.session import INPUTS, Session
from lengthwise.predictors.structure import NAMES
from lengthwise.testing import check_predictor
from lengthwise.types import Request
from tests.learning.tiny_encoder import CENTRES, NUM_PROMPTS, data, encoder_dir, prompts, settings, trained

# -- bins and targets ------------------------------------------------------------------------------------------


def test_edges_come_from_the_data() -> None:
    """From 1 to the limit, rising, for lengths of any size; what reached the limit has a bin of its own."""
    lengths = np.exp(np.random.default_rng(0).normal(9, 1, 5000)).clip(1, 100_000).round()
    edges = bin_edges(lengths, 100_000, 40)
    assert edges[0] == 1
    assert edges[-1] == 100_000
    assert (np.diff(edges) > 0).all()
    counts = np.bincount(bin_of(lengths, edges), minlength=len(edges))
    assert counts[-1] == (lengths == 100_000).sum()
    assert counts[:-1].max() < 0.15 * len(lengths)


@pytest.mark.parametrize("lengths", [np.full(60, 7.0), np.ones(60), np.arange(1.0, 61)], ids=["7", "1", "1 to 60"])
def test_few_different_lengths_still_have_bins(lengths: np.ndarray) -> None:
    edges = bin_edges(lengths, None, 48)
    assert len(edges) >= 2
    assert (np.diff(edges) > 0).all()


def test_what_was_cut_is_at_least() -> None:
    """A length that was cut counts for its bin and all above; the others are spread around their bin."""
    edges = np.array([1, 50, 100, 150, 200], np.float32)
    lengths = np.array([[120.0, 160.0], [80.0, np.nan]])
    is_cut = np.array([[False, True], [False, False]])
    targets = head_targets([(lengths, is_cut)], edges, 0.02)
    assert targets.at_least[0, 0].tolist() == [0, 0, 0, 0.5, 0]
    assert targets.shares[0, 0] == pytest.approx([0, 0, 0.5, 0, 0], abs=0.01)
    assert targets.shares[1, 0] == pytest.approx([0, 1, 0, 0, 0], abs=0.01)


def test_the_loss_is_the_chance_of_what_was_seen() -> None:
    """-log P(bin), and -log P(bin or above) for what was cut; heads without a label cost nothing."""
    chance = torch.tensor([0.1, 0.2, 0.3, 0.4])
    logits = chance.log().repeat(2, 2, 1)
    shares, at_least = torch.zeros(2, 2, 4), torch.zeros(2, 2, 4)
    shares[0, 0, 1] = 1
    at_least[1, 0, 2] = 1
    weights = torch.tensor([1.0, 5.0])
    found = loss(logits, shares, at_least, weights)
    assert float(found) == pytest.approx(-(np.log(0.2) + np.log(0.7)) / 2, abs=1e-5)


@pytest.mark.parametrize(("target", "num"), [("max", 3), ("answer", 3), ("mean", 3), ("q0.9", 3)])
def test_all_that_is_known_is_learned(target: str, num: int) -> None:
    """The target's head, the samples' (or their maximum's), the reference's."""
    assert len(heads_of(data(60), Target(target))) == num


def test_what_never_varied_says_nothing() -> None:
    """A column of structure that is the same for all training prompts (no tools) does not disturb one that has them."""
    course = Course.prepare(*_parts(data(60), "max"), EncoderConfig(**settings(epochs=1)), 0)  # type: ignore[arg-type]
    network = course.model(np.arange(2), "test").eval()
    ids, mask, structure = course.lesson.prompts.batch(np.arange(2))
    tools = NAMES.index("num_tools")
    assert (structure[:, tools] == 0).all()
    with_tools = structure.clone()
    with_tools[:, tools] = 9
    assert torch.equal(network(ids, mask, structure), network(ids, mask, with_tools))
    longer = structure.clone()
    longer[:, NAMES.index("first_line_words")] *= 3
    assert not torch.equal(network(ids, mask, structure), network(ids, mask, longer))


# -- training --------------------------------------------------------------------------------------------------


def test_it_tells_kinds_of_prompts_apart() -> None:
    """The median of prompts that it has not seen is near that of their kind's maxima."""
    requests, lengths = prompts(90, seed=11)
    medians = trained().predict(requests).median
    for kind in CENTRES:
        of_kind = [i for i, request in enumerate(requests) if request.text.startswith(kind)]
        ratio = np.median(medians[of_kind]) / np.median(lengths[of_kind].max(axis=1))
        assert 0.75 < ratio < 1.33, f"{kind}: {ratio:.2f}"


def test_intervals_hold() -> None:
    """About nine tenths of new maxima lie in the 90 % interval."""
    requests, lengths = prompts(400, seed=12)
    estimates, maxima = trained().predict(requests), lengths.max(axis=1)
    inside = (maxima >= estimates.quantile(0.05)) & (maxima <= estimates.quantile(0.95))
    assert 0.82 < inside.mean() < 0.98


def test_what_was_cut_is_expected_beyond_the_cut() -> None:
    """Stories of about 300 tokens, cut at 150: at 150 most of them are expected to go on."""
    course = Course.prepare(*_parts(data(120, limit=150), "answer"), EncoderConfig(**settings()), 0)  # type: ignore[arg-type]
    rows = np.arange(120)
    found = chances(course.model(rows, "test"), course.lesson.prompts, rows)
    is_story = np.array([request.text.startswith("write a long") for request in course.requests])
    assert course.edges[-1] == 150
    assert found[is_story, -1].mean() > 0.9
    assert found[~is_story, -1].mean() < 0.3


def test_the_same_seed_gives_the_same() -> None:
    """Bit by bit, on one machine, whatever was drawn before; another seed gives another."""
    config = EncoderConfig(**settings(epochs=2))  # type: ignore[arg-type]
    rows = np.arange(60)
    found = []
    for seed in (0, 0, 1):
        torch.rand(3)  # whatever was drawn before
        course = Course.prepare(*_parts(data(60), "max"), config, seed)
        found.append(chances(course.model(rows, "test"), course.lesson.prompts, rows))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_networks_are_averaged() -> None:
    """The chances are the mean of both, and no seed shares a network with another."""
    rows = np.arange(60)
    parts = _parts(data(60), "max")
    one, two = (EncoderConfig(**settings(epochs=2, num_networks=num)) for num in (1, 2))  # type: ignore[arg-type]
    found = []
    for config, seed in ((one, 2), (one, 3), (two, 1)):
        course = Course.prepare(*parts, config, seed)
        found.append(chances(course.model(rows, "test"), course.lesson.prompts, rows))
    assert np.allclose(found[2], (found[0] + found[1]) / 2, atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_the_text_predictor_has_its_share() -> None:
    """Of the chances before they are corrected; it goes with the encoder into its folder and back."""
    found = train("encoder", data(70), Target("max"), TrainConfig(settings=settings(epochs=1, text_share=0.25)))
    assert isinstance(found, EncoderPredictor)
    requests = data(20, seed=5).requests
    weights = found.weights
    assert weights.text is not None
    curves = np.tile(np.linspace(1, 0, len(GRID), dtype=np.float32), (20, 1))
    mixed = 0.75 * curves + 0.25 * weights.text.predict(requests).survival
    assert np.allclose(weights.mixed(curves, requests), mixed, atol=1e-6)
    without = EncoderPredictor(replace(weights, text=None), found.learned_from)
    assert not np.allclose(found.predict(requests).survival, without.predict(requests).survival, atol=1e-3)
    check_predictor(found, list(requests[:4]))


def test_rows_come_back_in_their_order() -> None:
    """Chances are those of the rows asked for, though short prompts are read first."""
    course = Course.prepare(*_parts(data(60), "max"), EncoderConfig(**settings(epochs=1)), 0)  # type: ignore[arg-type]
    network = course.model(np.arange(60), "test")
    rows = np.array([7, 3, 41, 12])
    alone = np.concatenate([chances(network, course.lesson.prompts, rows[[i]]) for i in range(4)])
    assert np.allclose(chances(network, course.lesson.prompts, rows), alone, atol=1e-5)


@pytest.mark.parametrize(("is_quantized", "error"), [(False, 1e-5), (True, 0.03)], ids=["32 bits", "8 bits"])
def test_the_export_says_what_the_network_says(is_quantized: bool, error: float) -> None:
    """One row or many, whatever their length; a prompt's chances don't depend on its neighbours."""
    config = EncoderConfig(**settings(is_quantized=is_quantized, num_networks=2, epochs=1))  # type: ignore[arg-type]
    course = Course.prepare(*_parts(data(NUM_PROMPTS), "max"), config, 0)
    network, lesson = course.model(np.arange(NUM_PROMPTS), "test"), course.lesson.prompts
    wanted = chances(network, lesson, np.arange(60))
    model = course.exported(network)
    session = Session(model, course.encoder, len(course.edges), len(NAMES))
    together, alone = (
        np.concatenate([session.chances([lesson.ids[row] for row in rows], lesson.structure[rows]) for rows in parts])
        for parts in ([np.arange(60)], np.arange(60).reshape(60, 1))
    )
    assert np.allclose(together, wanted, atol=error)
    assert np.allclose(together, alone, atol=1e-6)
    assert (b"QuantizeLinear" in model) is is_quantized


@pytest.mark.parametrize("name", ["MPNetConfig", "ModernBertConfig"])
def test_other_encoders_are_exported_as_they_are(name: str) -> None:
    """One whose attention is its own, and one with rotary positions and windows: several rows of unlike lengths."""
    import transformers

    config = getattr(transformers, name)(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    config.pad_token_id, config.local_attention = 0, 8
    rng = np.random.default_rng(0)
    structure = rng.normal(5, 3, (3, len(NAMES))).astype(np.float32)
    encoder = transformers.AutoModel.from_config(config, attn_implementation="eager")
    network = WantedChances([LengthNetwork(encoder, structure, 1, 9, 8)]).eval()
    lesson = EncodedPrompts([list(map(int, rng.integers(3, 40, num))) for num in (30, 4, 11)], structure)
    wanted = chances(network, lesson, np.arange(3))
    feed = [part.numpy() for part in lesson.batch(np.arange(3))]
    session = onnxruntime.InferenceSession(export.exported(network), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, dict(zip(INPUTS, feed, strict=True)))[0], wanted, atol=1e-5)


# -- 8 bits ----------------------------------------------------------------------------------------------------


def test_the_graph_calculates_as_the_layers_do() -> None:
    """In 8 bits too: layers in 8 bits say the same here as in onnxruntime, nearly to the last bit."""
    course, network = _course_and_network(epochs=16)
    rows, prompts = np.arange(60), course.lesson.prompts
    quantized.quantize(network, [prompts.batch(rows[at : at + 1]) for at in rows])
    wanted = chances(network, prompts, rows)
    session = Session(export.exported(network), course.encoder, len(course.edges), len(NAMES))
    assert np.allclose(session.chances(prompts.ids[:60], prompts.structure[:60]), wanted, atol=1e-5)


def test_what_layers_share_is_rounded_once() -> None:
    """Four roundings and one attention for each layer of the encoder: queries, keys and values have one."""
    onnx = pytest.importorskip("onnx")
    course, network = _course_and_network()
    found = quantized.inputs_read(network, [course.lesson.prompts.batch(np.arange(2))])
    readers = [[name.rpartition(".")[2] for name in shared.readers] for shared in found]
    assert readers[:4] == [["query", "key", "value"], ["dense"], ["dense"], ["dense"]]
    graph = onnx.load_from_string(course.exported(network)).graph
    counts = Counter(node.op_type for node in graph.node)
    num_layers = len(network.networks[0].encoder.encoder.layer)
    assert counts["QuantizeLinear"] == 4 * num_layers
    assert counts["MatMulIntegerToFloat"] == 6 * num_layers
    assert counts["Attention"] == num_layers
    assert counts["Transpose"] == 0


def test_smoothing_evens_channels() -> None:
    """What is rounded lies within a like range in all channels."""
    course, network = _course_and_network()
    prompts = course.lesson.prompts
    found = quantized.inputs_read(network, [prompts.batch(np.arange(at, at + 1)) for at in range(20)])
    before = [torch.maximum(-shared.low, shared.high) for shared in found]
    after = [largest / shared.factor for largest, shared in zip(before, found, strict=True)]
    spread = [np.mean([float(each.std() / each.mean()) for each in part]) for part in (before, after)]
    assert spread[1] < 0.7 * spread[0]


def test_a_large_channel_does_not_blur_the_others() -> None:
    """One channel a hundred times as large as the rest: smoothed, 8 bits lose less than a third."""
    torch.manual_seed(0)
    linear, inputs = torch.nn.Linear(64, 32), torch.randn(200, 64)
    inputs[:, 3] *= 100
    shared = quantized.SharedInput(inputs.amin(0), inputs.amax(0), {"": linear})
    lost = []
    for factor in (shared.factor, torch.ones(64)):
        small = LinearIn8Bits(linear, RoundedInput(factor, shared.low, shared.high))
        lost.append(float((small(inputs) - linear(inputs)).detach().abs().mean()))
    assert lost[0] < lost[1] / 3


def test_each_output_has_its_own_scale() -> None:
    """One output's weights a thousand times as large as the rest: a twentieth of
    the others' spread is lost at most."""
    torch.manual_seed(0)
    linear, inputs = torch.nn.Linear(64, 32), torch.randn(200, 64)
    linear.weight.data[5] *= 1000
    rounded = RoundedInput(torch.ones(64), inputs.amin(0), inputs.amax(0))
    wanted, found = linear(inputs).detach(), LinearIn8Bits(linear, rounded)(inputs).detach()
    others = np.arange(32) != 5
    assert ((found - wanted)[:, others].std(0) < 0.05 * wanted[:, others].std(0)).all()


def _course_and_network(epochs: int = 1) -> tuple[Course, WantedChances]:
    course = Course.prepare(*_parts(data(60), "max"), EncoderConfig(**settings(epochs=epochs)), 0)  # type: ignore[arg-type]
    return course, course.model(np.arange(60), "test")


# -- how far it is ---------------------------------------------------------------------------------------------


def test_training_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A line for each epoch."""
    course = Course.prepare(*_parts(data(60), "max"), EncoderConfig(**settings(epochs=2)), 0)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "lengthwise"):
        course.model(np.arange(60), "the test's")
    assert [record.message.split(": ")[1].split(",")[0] for record in caplog.records] == [
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]
    assert {record.message.split(": ")[0] for record in caplog.records} == {"the test's, seed 0"}


@pytest.mark.skipif(importlib.util.find_spec(OFFLINE_PACKAGE) is None, reason=f"{OFFLINE_PACKAGE} is not installed")
def test_one_step_of_the_real_encoder() -> None:
    """The installed all-MiniLM-L6-v2 is found and learns."""
    config = EncoderConfig(epochs=1, num_networks=1)
    course = Course.prepare(*_parts(data(50), "max"), config, 0)
    model = course.model(np.arange(32), "test")
    found = chances(model, course.lesson.prompts, np.arange(4))
    assert model.networks[0].encoder.config.hidden_size == 384
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)


# -- what is refused -------------------------------------------------------------------------------------------


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(PredictorError, match="49 prompts can't train an encoder; 50"):
        train("encoder", data(49), Target("max"), TrainConfig(settings=settings()))


def test_templates_are_told_apart_by_their_text() -> None:
    """Prompts that are all nearly the same are grouped as they are; one prompt again and again is refused."""
    template = "You are kind. Answer in one sentence what the customer of our small shop asks. Order number"
    near = [Request(str(i), f"{template} {i % 20}") for i in range(60)]
    assert len(np.unique(_groups(near))) == 20
    with pytest.raises(PredictorError, match="60 rows have 1 different prompts"):
        _groups([Request(str(i), template) for i in range(60)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"encoder": "/no/such/folder"}, "can't be loaded"),
        ({"colour": "red"}, "no setting 'colour'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train("encoder", data(60), Target("max"), TrainConfig(settings=settings(**wrong)))


def test_a_missing_package_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install, not after an hour."""
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match=r"onnxscript.*lengthwise\[encoder\]"):
        train("encoder", data(60), Target("max"), TrainConfig(settings=settings()))


def test_without_the_package_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from lengthwise.learning.encoding import starting

    monkeypatch.setattr(starting, "find_spec", lambda name: None)
    assert default_encoder() == "sentence-transformers/all-MiniLM-L6-v2"
    assert encoder_dir() != default_encoder()


def _parts(learned, target: str):  # type: ignore[no-untyped-def]
    return learned.requests, heads_of(learned, Target(target)), learned.limit
