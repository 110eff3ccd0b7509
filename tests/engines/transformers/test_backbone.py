"""A model that predictors ask and look into, over the weights of the one that answers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from itertools import chain

import numpy as np
import pytest
import torch

from lengthwise.engines.transformers.backbone import MAX_BATCH_TOKENS, LocalBackbone, open_backbone
from lengthwise.engines.transformers.forward import RowModel
from lengthwise.engines.transformers.generate_engine import GenerateEngine
from lengthwise.engines.transformers.hidden import entropies
from lengthwise.engines.transformers.loading import load_model
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.errors import PredictorError
from lengthwise.protocols import Backbone
from lengthwise.types import Request, SamplingParams

WORDS = ["the", "garden", "and", "sea", "answer", "a", "question", "about", "bicycles", "with", "two", "wheels"]
FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma2", "mistral", "mixtral", "mamba")


def requests_of(num, longest=60):
    """Prompts of 1 to `longest` words."""
    draw = np.random.default_rng(0)
    return [Request(f"r{i}", " ".join(draw.choice(WORDS, draw.integers(1, longest)))) for i in range(num)]


@pytest.fixture(scope="module")
def backbone_of(model_dir):
    """`backbone_of(family)`, made once."""
    made = {}

    def make(family="llama"):
        if family not in made:
            made[family] = open_backbone(ModelOptions(str(model_dir(family))))
        return made[family]

    return make


@pytest.fixture
def old_adapter_dir(tiny_llama_dir, tmp_path):
    """An adapter as older versions of peft saved it: a short configuration, and the weights as a pickle."""
    torch.manual_seed(3)
    config = {
        "base_model_name_or_path": "/somewhere/else",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 8,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    weights = {}
    for layer in range(2):
        for name, width in (("q_proj", 32), ("v_proj", 16)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(8, 32)
            weights[f"{prefix}.lora_B.weight"] = torch.randn(width, 8)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(weights, folder / "adapter_model.bin")
    return folder


# -- sharing ---------------------------------------------------------------------------------------------------


def tensors_of(model):
    return {name: tensor.data_ptr() for name, tensor in chain(model.named_parameters(), model.named_buffers())}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_lie_in_memory_once(family, model_dir):
    """All of them, tied ones and buffers included; the modules are others."""
    loaded = load_model(ModelOptions(str(model_dir(family))))
    backbone = LocalBackbone(loaded)
    assert tensors_of(backbone.loaded.model) == tensors_of(loaded.model)
    assert not set(map(id, backbone.loaded.model.modules())) & set(map(id, loaded.model.modules()))


def test_an_adapter_leaves_the_answering_model_as_it_was(tiny_llama_dir, lora_dir):
    """Bit-equal logits, the same modules, the same marks on parameters; the weights below the adapter are shared."""
    loaded = load_model(ModelOptions(str(tiny_llama_dir)))
    ids = torch.arange(4, 40).unsqueeze(0)
    with torch.inference_mode():
        before = loaded.model(ids).logits
    names = [name for name, _ in loaded.model.named_modules()]
    trained = [parameter.requires_grad for parameter in loaded.model.parameters()]
    backbone = LocalBackbone(loaded).with_adapter(lora_dir)
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, before)
        assert not torch.allclose(backbone.loaded.model(ids).logits, before, atol=1e-3)
    assert [name for name, _ in loaded.model.named_modules()] == names
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == trained
    assert set(tensors_of(loaded.model).values()) <= set(tensors_of(backbone.loaded.model).values())


def test_an_adapter_does_what_peft_does(tiny_llama_dir, lora_dir):
    """The logits of peft's own model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(4, 40).unsqueeze(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    with torch.inference_mode():
        expected = PeftModel.from_pretrained(base, lora_dir).eval()(ids).logits
        found = open_backbone(ModelOptions(str(tiny_llama_dir))).with_adapter(lora_dir).loaded.model(ids).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_an_adapter_does_not_go_on_top_of_another(tiny_llama_dir, lora_dir, old_adapter_dir):
    """Which is said; the model that is served with the first is as it was."""
    loaded = load_model(ModelOptions(str(tiny_llama_dir), adapter=str(lora_dir)))
    backbone = LocalBackbone(loaded)
    before = backbone.states(requests_of(3), "mean")
    with pytest.raises(PredictorError, match="has an adapter already"):
        backbone.with_adapter(old_adapter_dir)
    with pytest.raises(PredictorError, match="has an adapter already"):
        backbone.with_adapter(lora_dir)
    assert np.array_equal(LocalBackbone(loaded).states(requests_of(3), "mean"), before)


@pytest.mark.parametrize("begun", ["olora", "pissa"])
def test_an_adapter_that_was_begun_in_the_model_s_weights_takes_its_own(begun, tiny_llama_dir, tmp_path):
    """peft takes out of the weights what such an adapter begins with, in place: those that answer stay as they are,
    and the logits are those of peft's own model."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=begun)
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), lora)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    made.save_pretrained(tmp_path)
    loaded = load_model(ModelOptions(str(tiny_llama_dir)))
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    found = LocalBackbone(loaded).with_adapter(tmp_path).loaded.model
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    ids = torch.arange(4, 40).unsqueeze(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    with torch.inference_mode():
        expected = PeftModel.from_pretrained(base, tmp_path).eval()(ids).logits
        assert torch.allclose(found(ids).logits, expected, atol=1e-4)


@pytest.mark.parametrize("config", ["[]", '{"peft_type": "LORA", "r": "x", "target_modules": ["q_proj"]}'])
def test_a_configuration_of_nonsense_is_a_predictor_error(config, tiny_llama_dir, lora_dir, tmp_path):
    folder = shutil.copytree(lora_dir, tmp_path / "nonsense")
    (folder / "adapter_config.json").write_text(config)
    with pytest.raises(PredictorError, match="does not fit"):
        open_backbone(ModelOptions(str(tiny_llama_dir))).with_adapter(folder)


def test_half_an_adapter_is_refused_and_harms_nothing(tiny_llama_dir, old_adapter_dir):
    """What transformers draws for tensors that are missing does not reach the shared weights."""
    loaded = load_model(ModelOptions(str(tiny_llama_dir)))
    before = LocalBackbone(loaded).states(requests_of(3), "mean")
    path = old_adapter_dir / "adapter_model.bin"
    torch.save({key: value for key, value in torch.load(path).items() if "layers.0" in key}, path)
    with pytest.raises(PredictorError, match="does not fit"):
        LocalBackbone(loaded).with_adapter(old_adapter_dir)
    assert np.array_equal(LocalBackbone(loaded).states(requests_of(3), "mean"), before)


def test_an_older_adapter_is_read_as_a_newer_one(tiny_llama_dir, old_adapter_dir, tmp_path):
    """`adapter_model.bin`: the same states as from safetensors, and the same identity."""
    from safetensors.torch import save_file

    newer = shutil.copytree(old_adapter_dir, tmp_path / "newer")
    save_file(torch.load(newer / "adapter_model.bin", weights_only=True), newer / "adapter_model.safetensors")
    (newer / "adapter_model.bin").unlink()
    backbone = open_backbone(ModelOptions(str(tiny_llama_dir)))
    old, new = backbone.with_adapter(old_adapter_dir), backbone.with_adapter(newer)
    requests = requests_of(3)
    assert np.array_equal(old.states(requests, "last"), new.states(requests, "last"))
    assert not np.allclose(old.states(requests, "last"), backbone.states(requests, "last"), atol=1e-2)
    assert old.model == new.model != backbone.model


class _Code:
    """What runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tiny_llama_dir, old_adapter_dir, tmp_path):
    """Both in torch's form and as a plain pickle."""
    backbone = open_backbone(ModelOptions(str(tiny_llama_dir)))
    trap, path = tmp_path / "trap", old_adapter_dir / "adapter_model.bin"
    torch.save({"a": _Code(trap)}, path)
    with pytest.raises(PredictorError, match="nothing of it was run"):
        backbone.with_adapter(old_adapter_dir)
    path.write_bytes(pickle.dumps(_Code(trap)))
    with pytest.raises(PredictorError, match="nothing of it was run"):
        backbone.with_adapter(old_adapter_dir)
    assert not trap.exists()


def test_an_adapter_that_can_not_be_is_a_predictor_error(model_dir, lora_dir, old_adapter_dir, tmp_path):
    """Of another model, cut short, no tensors, no configuration, nothing at all."""
    backbone = open_backbone(ModelOptions(str(model_dir("llama"))))
    with pytest.raises(PredictorError, match="does not fit"):
        open_backbone(ModelOptions(str(model_dir("gpt2")))).with_adapter(lora_dir)
    with pytest.raises(PredictorError, match="no such folder"):
        backbone.with_adapter(tmp_path / "nowhere")
    torch.save({"epoch": 3}, old_adapter_dir / "adapter_model.bin")
    with pytest.raises(PredictorError, match="not tensors by name"):
        backbone.with_adapter(old_adapter_dir)
    (old_adapter_dir / "adapter_config.json").unlink()
    with pytest.raises(PredictorError, match=r"no adapter_config\.json"):
        backbone.with_adapter(old_adapter_dir)
    cut = shutil.copytree(lora_dir, tmp_path / "cut")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PredictorError, match="cut short"):
        backbone.with_adapter(cut)


# -- states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "last", "entropy"])
def test_states_are_those_of_the_prompt_alone(family, pooling, backbone_of):
    """By a plain forward pass over one prompt, its logits and its last states; in a batch the same within 1e-4."""
    backbone = backbone_of(family)
    requests = requests_of(7)
    found = backbone.states(requests, pooling)
    assert found.dtype == np.float32
    for row, request in zip(found, requests, strict=True):
        ids = torch.tensor([backbone.loaded.encode_prompt(request)])
        with torch.inference_mode():
            out = backbone.loaded.model(ids, output_hidden_states=True, use_cache=False)
        hidden, logits = out.hidden_states[-1][0], out.logits[0]
        chances = logits.double().softmax(-1)
        entropy = -(chances * chances.clamp_min(1e-300).log()).sum(-1).float()
        weights = {
            "mean": torch.full_like(entropy, 1 / len(entropy)),
            "last": torch.eye(len(entropy))[-1],
            "entropy": entropy / entropy.sum(),
        }
        assert np.allclose(row, (weights[pooling] @ hidden).numpy(), atol=1e-4)
        assert np.allclose(row, backbone.states([request], pooling)[0], atol=1e-4)


def test_entropies_need_few_logits_at_once(backbone_of, monkeypatch):
    """In chunks of two tokens they are what they are at once."""
    model = backbone_of().loaded.model
    hidden = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = entropies(model, hidden)
        monkeypatch.setattr("lengthwise.engines.transformers.hidden.MAX_CHUNK_LOGITS", 2 * len(model.lm_head.weight))
        sizes = []
        model.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
        assert torch.allclose(entropies(model, hidden), whole, atol=1e-6)
    assert sizes == [2, 2, 2, 2, 1]


def test_states_are_read_in_bounded_batches(backbone_of, monkeypatch):
    """However many requests there are: at most so many tokens at once, padding counted."""
    sizes = []
    monkeypatch.setattr(
        "lengthwise.engines.transformers.backbone.last_hidden",
        lambda model, ids: sizes.append(tuple(ids.shape)) or torch.zeros(*ids.shape, 32),
    )
    backbone_of().states(requests_of(300), "mean")
    assert sum(rows for rows, _ in sizes) == 300
    assert len(sizes) > 1
    assert max(rows * width for rows, width in sizes) <= MAX_BATCH_TOKENS


def test_states_survive_the_end_of_memory(backbone_of, monkeypatch):
    """Batches are read in halves, and a prompt that has no room alone has no state."""
    from lengthwise.engines.transformers import backbone as module

    requests = [*requests_of(5), Request("long", "garden " * 80)]
    expected = backbone_of().states(requests, "mean")
    whole = module.last_hidden

    def small(model, ids):
        if len(ids) > 2 or ids.shape[1] > 150:
            raise torch.OutOfMemoryError("out of memory")
        return whole(model, ids)

    monkeypatch.setattr(module, "last_hidden", small)
    found = backbone_of().states(requests, "mean")
    assert np.isnan(found[-1]).all()
    assert np.allclose(found[:-1], expected[:-1], atol=1e-4)


def test_what_can_not_be_encoded_has_no_state_and_what_is_too_long_has_one(backbone_of):
    """An empty prompt and half a character; a prompt of many contexts is read by its beginning and its end."""
    odd = [Request("empty", ""), Request("half", "\ud800"), Request("long", "garden " * 5000)]
    found = backbone_of().states([*odd, *requests_of(1)], "mean")
    assert np.isnan(found).all(axis=1).tolist() == [True, True, False, False]
    assert backbone_of().states([], "mean").shape == (0, 32)


# -- asking ----------------------------------------------------------------------------------------------------


def alone(backbone, request, max_tokens):
    """The answer by the model's own `generate`."""
    ids = torch.tensor([backbone.loaded.encode_prompt(request)])
    out = backbone.loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False, pad_token_id=2
    )
    return backbone.loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_prompt_alone(family, backbone_of):
    """Greedy, in order, whatever stands beside them; also for models that the row engine can't run."""
    backbone = backbone_of(family)
    requests = requests_of(9, longest=40)
    assert backbone.ask(requests, 6) == [alone(backbone, request, 6) for request in requests]


def test_a_request_s_own_sampling_does_not_matter(backbone_of):
    """What is asked here is not what the request asks for."""
    request = requests_of(1)[0]
    hot = Request("hot", request.prompt, SamplingParams(temperature=2.0, seed=1, stop=("e",)), max_tokens=1)
    assert backbone_of().ask([hot], 6) == backbone_of().ask([request], 6)


def test_what_can_not_be_asked_has_no_answer(backbone_of):
    """At its place; a prompt that is too long is shortened to what leaves room for an answer."""
    odd = [Request("empty", ""), Request("half", "\ud800"), Request("long", "garden " * 5000), *requests_of(1)]
    answers = backbone_of().ask(odd, 6)
    assert [answer is None for answer in answers] == [True, True, False, False]
    assert backbone_of().ask([], 6) == []


def test_asking_survives_the_end_of_memory(backbone_of, monkeypatch):
    """Rows that are cut go on, and all answers come."""
    requests = requests_of(30)
    expected = backbone_of().ask(requests, 6)
    whole, num_rows = RowModel.step, []

    def small(model, rows):
        num_rows.append(len(rows))
        if len(rows) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return whole(model, rows)

    monkeypatch.setattr(RowModel, "step", small)
    assert backbone_of().ask(requests, 6) == expected
    assert max(num_rows) > 4


def test_asking_keeps_within_its_share_of_the_memory(backbone_of, monkeypatch):
    """As many rows run as have room, and all answers come."""
    requests = requests_of(30)
    expected = backbone_of().ask(requests, 6)
    whole, num_rows = RowModel.step, []
    monkeypatch.setattr("lengthwise.engines.transformers.backbone.kv_tokens", lambda *arguments: 300)
    monkeypatch.setattr("lengthwise.engines.transformers.backbone.MAX_ROWS", 4)
    monkeypatch.setattr(RowModel, "step", lambda model, rows: num_rows.append(len(rows)) or whole(model, rows))
    assert backbone_of().ask(requests, 6) == expected
    assert max(num_rows) <= 4


def test_the_chat_template_is_used(chat_llama_dir):
    """A prompt is what the engine would read."""
    backbone = open_backbone(ModelOptions(str(chat_llama_dir)))
    chat = Request("chat", ({"role": "user", "content": "the garden"},))
    text, raw = Request("text", "the garden"), Request("raw", "the garden", is_raw=True)
    states = backbone.states([chat, text, raw], "mean")
    assert np.array_equal(states[0], states[1])
    assert not np.allclose(states[1], states[2], atol=1e-3)


# -- engines ---------------------------------------------------------------------------------------------------


def test_engines_offer_one(make_engine, loaded_ids):
    """Of their own weights and identity, made once."""
    loaded = loaded_ids()
    for engine in (make_engine(loaded=loaded), GenerateEngine(loaded, Prompts(loaded, 64), 4)):
        backbone = engine.backbone()
        assert isinstance(backbone, Backbone)
        assert backbone.model == engine.model
        assert engine.backbone() is backbone
        assert tensors_of(backbone.loaded.model) == tensors_of(loaded.model)


def test_asking_does_not_disturb_rows_that_run(make_engine, loaded_ids, tools):
    """An engine that is asked for states and answers between its steps writes what it writes alone."""
    loaded = loaded_ids()
    engine = make_engine(loaded=loaded, progress_interval_s=0.0)
    requests = tools.make_requests(6, seed=5)
    for request in requests:
        engine.start(request, (), 10**6, None)
    ended = {}
    while len(ended) < len(requests):
        ended.update({event.id: event for event in engine.poll(0.0) if hasattr(event, "text")})
        engine.backbone().ask(requests[:3], 3)
        engine.backbone().states(requests[:3], "entropy")
    for request in requests:
        tools.Alone(loaded).check(request, ended[request.id])
