"""Where adapters go, how fast they learn, what is learned from, what stands in the files of settings."""

from __future__ import annotations

import logging
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lengthwise.engines.transformers.backbone import open_backbone
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.errors import PredictorError, UsageError
from lengthwise.learning.labels import Target
from lengthwise.learning.prompting import PromptedConfig
from lengthwise.learning.trainers.pooling import PoolingConfig
from lengthwise.learning.training import TrainConfig, from_settings, train
from lengthwise.learning.tuning import adapters
from lengthwise.learning.tuning.config import LenConfig, LoraConfig, TuningConfig, rate_for
from lengthwise.learning.tuning.examples import drawn, examples_of
from lengthwise.learning.tuning.length_token import MISSING, bin_loss, fitted_temperature, sorted_into_bins
from lengthwise.learning.tuning.numbers import IGNORED, collate, pairs
from lengthwise.predictors.survival import length_curve
from lengthwise.predictors.tuned.len_token import LenWeights
from lengthwise.scheduling.named import PAPER
from lengthwise.scheduling.sizing import TableSizing

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
CONFIGS = {"lora": LoraConfig, "len": LenConfig, "pooling": PoolingConfig, "po": PromptedConfig}


# -- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "bundled"])
def test_the_files_of_settings_fit_the_classes(name):
    """Every table that the command reads makes a configuration."""
    tables = tomllib.loads((EXPERIMENTS / f"{name}.toml").read_text())
    read = {kind: from_settings(CONFIGS[kind], table) for kind, table in tables.items() if kind in CONFIGS}
    assert {"lora", "len"} <= set(read)


def test_the_papers_file_says_what_the_paper_does():
    """The values that the reference code has; scheduling is what `--scheduler paper` does."""
    tables = tomllib.loads((EXPERIMENTS / "paper.toml").read_text())
    lora = from_settings(LoraConfig, tables["lora"])
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (8, 16, 0.05, ("q_proj", "v_proj"))
    assert (lora.learning_rate, lora.epochs, lora.warmup_ratio, lora.schedule) == (2e-5, 3, 0.03, "cosine")
    assert (lora.batch_size, lora.gradient_accumulation, lora.bin_width, lora.max_new_tokens) == (2, 16, 50, 8)
    scheduling = tables["scheduling"]
    sizing = TableSizing(**{**scheduling.pop("sizing"), "sizes": TableSizing.sizes})
    assert sizing == PAPER.sizing
    assert tables["scheduling"] == {name: getattr(PAPER, name) for name in scheduling}
    assert set(tables) == {"data", "lora", "len", "pooling", "po", "prediction", "scheduling", "benchmark"}


def test_the_bundled_models_file_is_what_the_defaults_come_to():
    """Written out: rate and projections as they are found for a model of this size."""
    from lengthwise.bundled import MODEL_DIR

    tables = tomllib.loads((EXPERIMENTS / "bundled.toml").read_text())
    loaded = open_backbone(ModelOptions(str(MODEL_DIR))).loaded
    for kind, table in tables.items():
        written, default = from_settings(CONFIGS[kind], table), CONFIGS[kind]()
        if kind in ("lora", "len"):
            found = {
                "learning_rate": adapters.rate_of(default, loaded),
                "target_modules": adapters.projections(loaded.model),
            }
            default = replace(default, **found)
        assert written == default


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": 0},
        {"r": "8"},
        {"dropout": 1.0},
        {"held_out": 0.0},
        {"epochs": 0},
        {"learning_rate": -1e-3},
        {"schedule": "step"},
        {"precision": "float16"},
        {"target_modules": []},
        {"target_modules": "q_proj"},
        {"max_prompts": 0},
        {"max_new_tokens": 0},
        {"lora_alpha": 16},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong):
    """By name and value, before anything is loaded."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        from_settings(LoraConfig, wrong)


def test_small_models_learn_at_a_higher_rate():
    """The paper's rate for its model, a higher one for the bundled model's size, and none above that."""
    assert rate_for(7e9) == pytest.approx(2e-5)
    assert rate_for(4e6) == pytest.approx(5e-3)
    assert 2e-5 < rate_for(1e9) < rate_for(1e8) < 5e-3
    assert rate_for(1e4) == 5e-3


# -- adapters --------------------------------------------------------------------------------------------------

ALL = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen3": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "gpt_neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
}
FEW = {
    "llama": {"q_proj", "v_proj"},
    "qwen3": {"q_proj", "v_proj"},
    "gpt2": {"c_attn"},
    "gpt_neox": {"query_key_value"},
}


@pytest.mark.parametrize("family", ALL)
def test_projections_are_found_by_looking(family, model_dir, monkeypatch):
    """All of a small model but the one that gives the logits; of a large one those that are usual for its family."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir(family))
    assert set(adapters.projections(model)) == ALL[family]
    monkeypatch.setattr(adapters, "LARGE_PARAMETERS", 1_000)
    assert set(adapters.projections(model)) == FEW[family]


@pytest.mark.parametrize("family", ALL)
def test_only_the_adapter_is_trained(family, model_dir):
    """All projections get one, and nothing else of the model asks for a gradient."""
    loaded = open_backbone(ModelOptions(str(model_dir(family)))).loaded
    tuned = adapters.with_new_adapter(loaded, TuningConfig())
    trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained} == ALL[family]


# -- what is learned from --------------------------------------------------------------------------------------


def test_what_is_tuned_on_and_held_out_share_no_prompt(data):
    """And `max_prompts` bounds both together."""
    learned, held_out = drawn(data, Target(), 0, LoraConfig(held_out=0.25, max_prompts=40))
    assert len(learned) + len(held_out) == 40
    assert len(held_out) == 10
    assert not {request.text for request in learned.requests} & {request.text for request in held_out.requests}


def test_numbers_are_learned_and_nothing_else(data, backbone):
    """The answer is the label, rounded up to the bin, with an end; only its tokens have a loss."""
    examples = examples_of(data[:3], Target("max"))
    found = pairs(examples, backbone.loaded, LoraConfig())
    tokenizer = backbone.loaded.tokenizer
    batch = collate(found)
    for row, length in enumerate(examples.lengths[:, 0]):
        labels = batch["labels"][row]
        answer = labels[labels != IGNORED]
        assert tokenizer.decode(answer, skip_special_tokens=True) == str(int(np.ceil(length / 50) * 50))
        assert answer[-1] in backbone.loaded.eos_token_ids
        prompt = backbone.loaded.encode_prompt(examples.requests[row])
        assert batch["input_ids"][row, : len(prompt)].tolist() == prompt
        assert batch["input_ids"][row, len(prompt) : len(prompt) + len(answer)].tolist() == answer.tolist()


# -- bins ------------------------------------------------------------------------------------------------------


def test_bins_hold_their_upper_edge(data):
    """1 to 50 tokens are the first, 51 to 100 the second; what is longer than all falls into the last."""
    examples = examples_of(data[:1], Target())
    lengths = np.array([[1.0, 50, 51, 100, 101, 1000, np.nan]])
    examples = type(examples)(examples.requests, lengths, np.zeros((1, 7), bool))
    assert sorted_into_bins(examples, 3, 50).tolist() == [[0, 0, 1, 1, 2, 2, MISSING]]


def test_a_cut_answer_speaks_for_all_bins_above():
    """Its loss is that of the chance to be there or beyond, and 0 where that is all."""
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.7]]))
    for at, chance in ((0, 1.0), (1, 0.9), (2, 0.7)):
        loss = bin_loss(logits, torch.tensor([[at]]), torch.tensor([[True]]))
        assert float(loss) == pytest.approx(-np.log(chance), abs=1e-6)
    plain = bin_loss(logits, torch.tensor([[1, MISSING]]), torch.tensor([[False, False]]))
    assert float(plain) == pytest.approx(-np.log(0.2), abs=1e-6)


def test_too_sure_chances_are_tempered(data):
    """Logits ten times too large are divided by about ten; right ones by about one."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1, (2000, 4)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    bins = (draw.random((2000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    examples = examples_of(data, Target())
    labels = type(examples)((), 10.0 * (bins[:, None] + 1), np.zeros((2000, 1), bool))
    assert fitted_temperature(logits, labels, 10) == pytest.approx(1, rel=0.1)
    assert fitted_temperature(4 * logits, labels, 10) == pytest.approx(4, rel=0.1)


def test_chances_of_bins_become_a_curve():
    """Certain of one bin, all lengths lie in it, as the training lengths within it do; the last bin goes on."""
    lengths = np.concatenate([np.full(50, 20.0), np.full(50, 80.0), np.full(50, 130.0), np.full(50, 400.0)])
    marginal = length_curve(lengths, np.zeros(200, bool))[None]
    weights = LenWeights(np.zeros(1, np.float32), np.zeros((3, 1), np.float32), np.zeros(3, np.float32), 50, marginal)
    survival = weights.survival(np.array([[100, 0, 0], [0, 100, 0], [0, 0, 100], [0, 0, 0]], np.float32))
    from lengthwise.estimates import LengthEstimates

    estimates = LengthEstimates.from_survival(survival)
    assert estimates.exceeds(16).tolist()[:3] == pytest.approx([1, 1, 1], abs=0.05)
    assert estimates.exceeds(50).tolist() == pytest.approx([0, 1, 1, 2 / 3], abs=0.05)
    assert estimates.exceeds(101).tolist() == pytest.approx([0, 0, 1, 1 / 3], abs=0.05)
    assert 16 < estimates.median[0] < 24
    assert float(estimates.exceeds(300)[2]) == pytest.approx(0.5, abs=0.05)


# -- logs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report_to", [None, "tensorboard"])
def test_a_log_is_written_on_request_only(report_to, data, backbone, settings, tmp_path, monkeypatch, caplog):
    """TensorBoard's events with the loss of steps, where they were asked for; nothing else anywhere."""
    monkeypatch.chdir(tmp_path)
    settings = {**settings, "epochs": 1}
    config = TrainConfig(0, None, backbone, settings, report_to, str(tmp_path / "logs") if report_to else None)
    with caplog.at_level(logging.INFO, logger="lengthwise"):
        train("len", data, Target(), config)
    assert "Tuning: step 1 of 4, loss" in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    if report_to is None:
        assert not files
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert [path.parent.name for path in files] == ["logs"]
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize(("report_to", "told"), [("wandb", "pip install wandb"), ("paper", "tensorboard, wandb")])
def test_a_log_that_can_not_be_written_is_told_first(report_to, told, data, backbone, monkeypatch):
    """Before anything is tuned."""
    monkeypatch.setattr("lengthwise.learning.tuning.reporting.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=told):
        train("len", data, Target(), TrainConfig(backbone=backbone, report_to=report_to))


# -- the model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_a_vector_stands_where_a_token_would(family, model_dir, data):
    """A known token's embedding behind a prompt has the state that the token itself would have there, beside others or
    alone."""
    backbone = open_backbone(ModelOptions(str(model_dir(family))))
    model = backbone.loaded.model
    vector = model.get_input_embeddings().weight[77].detach().numpy()
    found = backbone.last_state_after(data.requests[:8], vector)
    for row, request in enumerate(data.requests[:8]):
        ids = torch.tensor([[*backbone.loaded.encode_prompt(request), 77]])
        with torch.inference_mode():
            expected = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        assert np.allclose(found[row], expected.numpy(), atol=1e-4)
    assert np.allclose(backbone.last_state_after(data.requests[3:4], vector), found[3], atol=1e-4)


def test_prompts_that_can_not_be_read_have_no_state(backbone, data):
    """NaN there; a vector of another width is refused, with both numbers."""
    from lengthwise.types import Request

    width = backbone.loaded.model.config.hidden_size
    found = backbone.last_state_after([Request("odd", "lone \ud800"), data.requests[0]], np.zeros(width, np.float32))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    with pytest.raises(PredictorError, match=f"3.*{width}"):
        backbone.last_state_after(data.requests[:1], np.zeros(3, np.float32))
