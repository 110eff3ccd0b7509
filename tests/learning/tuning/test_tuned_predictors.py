"""Predictors with an adapter: they learn, keep the contract, and leave the model that answers alone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from lengthwise.engines.transformers.backbone import LocalBackbone, open_backbone
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.errors import PredictorError, UsageError
from lengthwise.learning.labels import Target
from lengthwise.learning.training import TrainConfig, train
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.saved import load_predictor, needs_backbone
from lengthwise.testing import check_predictor
from lengthwise.types import Request

KINDS = ("lora", "len")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, trained, tmp_path_factory):
    made = tmp_path_factory.mktemp(kind) / "predictor"
    trained(kind).save(made)
    return made


def test_it_learns_what_decides_the_length(kind, trained, new_prompts):
    """Prompts that ask for long answers are expected to get longer ones: prompts that it has not seen."""
    median = trained(kind).predict([*new_prompts("short"), *new_prompts("long")]).median
    assert median[3:].min() > 2 * median[:3].max()


def test_it_keeps_the_contract(kind, trained, data, backbone):
    """The conformance suite, saving and loading with the model included."""
    predictor = trained(kind)
    check_predictor(predictor, data.requests[:6], load=lambda place: type(predictor).load(place, backbone))


def test_what_was_learned_stands_in_the_folder(kind, folder, backbone, data):
    """Kind, model, data, target and settings; the adapter in PEFT's layout beside a card in Hugging Face's form."""
    header = json.loads((folder / "predictor.json").read_text())
    assert header["kind"] == kind
    assert header["model"] == backbone.model
    assert header["card"]["num_prompts"] + header["card"]["num_held_out"] == len(data)
    assert header["card"]["settings"]["learning_rate"] == 1e-2
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (adapter["peft_type"], adapter["r"], adapter["lora_alpha"]) == ("LORA", 8, 16)
    card = (folder / "adapter" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")
    for fact in (backbone.model, "made up", "**Target**: answer", "| learning_rate | 0.01 |", "kendall_tau"):
        assert fact in card


def test_plain_peft_reads_the_adapter(folder, tiny_llama_dir, backbone):
    """What peft makes of the folder computes what ours does, bit by bit."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), folder / "adapter").eval()
    ours = backbone.with_adapter(folder / "adapter").loaded.model
    ids = torch.arange(3, 60)[None]
    with torch.inference_mode():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)
        assert not torch.allclose(ours(ids).logits, backbone.loaded.model(ids).logits)


def test_it_is_loaded_by_its_folder(kind, folder, trained, data, backbone):
    """As `--predictor DIR` does; without a model, or with another, it is refused by name."""
    assert needs_backbone(folder)
    loaded = load_predictor(folder, backbone)
    assert np.array_equal(loaded.predict(data.requests[:5]).median, trained(kind).predict(data.requests[:5]).median)
    with pytest.raises(PredictorError, match="language model"):
        load_predictor(folder)
    other = open_backbone(ModelOptions(backbone.loaded.model.name_or_path, chat_template="vicuna"))
    with pytest.raises(PredictorError, match=f"{re.escape(backbone.model)}.*{re.escape(other.model)}"):
        load_predictor(folder, other)


@pytest.mark.parametrize("damage", ["cut", "missing", "config", "pickle", "arrays", "newer"])
def test_damaged_folders_are_refused(damage, folder, tmp_path, backbone):
    """A clear error, and no code is run."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights, config = copy / "adapter" / "adapter_model.safetensors", copy / "adapter" / "adapter_config.json"
    header = json.loads((copy / "predictor.json").read_text())
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "config":
        config.write_text("{")
    elif damage == "pickle":
        weights.write_bytes(b"\x80\x04cos\nsystem\n")
    elif damage == "arrays":
        (copy / "arrays.safetensors").write_bytes(b"")
    else:
        (copy / "predictor.json").write_text(json.dumps({**header, "format_version": 99}))
    with pytest.raises(PredictorError):
        load_predictor(copy, backbone)


def test_answers_are_those_without_it(folder, tiny_llama_dir):
    """A run with the predictor writes, bit by bit, what a run without one writes."""
    requests = [
        Request(f"r{i}", f"Write about the {size} sea", max_tokens=40) for i, size in enumerate(("short", "long"))
    ]
    answers = []
    for predictor in ("none", str(folder)):
        with Pipeline(tiny_llama_dir, predictor=predictor) as pipeline:
            answers.append([(answer.id, answer.text, answer.completion_tokens) for answer in pipeline.run(requests)])
            assert (pipeline.predictor.model is None) == (predictor == "none")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_tuning_leaves_the_model_as_it_was(kind, family, model_dir, data, settings):
    """Weights, their types, whether they are trained, and the mode are the same afterwards."""
    loaded = load_model(ModelOptions(str(model_dir(family))))
    before = {name: (tensor.clone(), tensor.requires_grad) for name, tensor in loaded.model.named_parameters()}
    modules = [name for name, _ in loaded.model.named_modules()]
    backbone = LocalBackbone(loaded)
    few = {**settings, "epochs": 2, "batch_size": 8}
    predictor = train(kind, data, Target("max"), TrainConfig(backbone=backbone, model=backbone.model, settings=few))
    assert predictor.learned_from.target == "max-of-2"
    for model in (loaded.model, backbone.loaded.model):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name][0])
            assert parameter.grad is None
        assert not model.training
        assert [name for name, _ in model.named_modules()] == modules
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == [was for _, was in before.values()]


def test_the_same_seed_gives_the_same_adapter(kind, data, backbone, settings):
    """And another one another."""

    def weights(seed):
        config = TrainConfig(seed, backbone.model, backbone, {**settings, "epochs": 2, "batch_size": 8})
        return train(kind, data, Target(), config).adapter.contents["adapter_model.safetensors"]

    first = weights(1)
    assert weights(1) == first
    assert weights(2) != first


def test_there_must_be_a_model_to_tune(kind, data):
    """None, or one behind a server, is refused before anything begins."""
    with pytest.raises(UsageError, match="--model"):
        train(kind, data, Target(), TrainConfig())

    class Server:
        model = "served:tiny"

    with pytest.raises(PredictorError, match=r"served:tiny.*server"):
        train(kind, data, Target(), TrainConfig(backbone=Server()))


def test_too_little_and_odd_data_is_refused(kind, data, backbone):
    """One row, prompts of which none can be read, and projections that are not there: clear errors."""
    config = TrainConfig(backbone=backbone, model=backbone.model)
    with pytest.raises(PredictorError, match="There are 1 prompts"):
        train(kind, data[:1], Target(), config)
    with pytest.raises(PredictorError, match="max_prompt_tokens"):
        train(kind, data, Target(), replace(config, settings={"max_prompt_tokens": 2}))
    with pytest.raises(PredictorError, match=r"nothing_there.*q_proj"):
        train(kind, data, Target(), replace(config, settings={"target_modules": ["nothing_there"]}))
    with pytest.raises(UsageError, match="rank"):
        train(kind, data, Target(), replace(config, settings={"rank": 4}))
