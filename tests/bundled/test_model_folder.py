"""What lies in the bundled model's folder: sizes, tokenizer, chat template."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

SENTENCE = "Dear Anna,\n\nthe café costs 1234 euros; isn't it “odd”?\t 日本 🙂"


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


def test_weights_are_16_bit_and_at_most_8_mib(model_dir):
    path = model_dir / "model.safetensors"
    assert path.stat().st_size <= 8 * 2**20
    with safe_open(path, framework="pt") as tensors:
        assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.float16}  # noqa: SIM118


@pytest.mark.parametrize("options", [{}, {"dtype": "auto"}, {"dtype": torch.float32}])
def test_the_model_runs_in_float32_however_it_is_loaded(model_dir, options):
    model = AutoModelForCausalLM.from_pretrained(model_dir, **options)
    assert model.dtype == torch.float32


def test_the_model_is_a_llama_of_at_most_4m_parameters_and_2048_positions(model_dir):
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    assert model.num_parameters() <= 4_000_000
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings >= 2048
    assert model.config.vocab_size <= 4096


def test_config_generation_config_and_tokenizer_agree_on_special_tokens(model_dir, tokenizer):
    for name in ("config.json", "generation_config.json"):
        config = json.loads((model_dir / name).read_text())
        assert config["eos_token_id"] == tokenizer.eos_token_id
        assert config["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.model_max_length == 2048


def test_any_text_survives_the_tokenizer(tokenizer):
    assert tokenizer.decode(tokenizer(SENTENCE)["input_ids"]) == SENTENCE


def test_digits_are_single_tokens(tokenizer):
    assert len(tokenizer) <= 4096
    assert tokenizer.tokenize("x1024") == ["x", "1", "0", "2", "4"]
    digits = [token for token in tokenizer.get_vocab() if any(character.isdigit() for character in token)]
    assert all(len(token) == 1 for token in digits if token.isascii())


def test_the_chat_template_marks_each_role_and_ends_each_turn(tokenizer):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>Hi<|end|><|user|>Bye<|end|><|assistant|>"
    )
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == text
    assert list(ids) == tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == len(messages)


def test_an_unknown_role_is_refused(tokenizer):
    with pytest.raises(Exception, match="unknown role"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_training_sees_the_ids_that_the_chat_template_gives(tokenizer):
    from tools.bundled_model.corpus import training_stream
    from tools.bundled_model.tokenization import Encoder, token_counter

    encoder = Encoder(tokenizer)
    stream = training_stream(1, token_counter(tokenizer))
    for conversation in (next(stream) for _ in range(200)):
        encoded = encoder.encode(conversation)
        ids = tokenizer.apply_chat_template(list(conversation.messages), return_dict=False)
        assert encoded.ids == list(ids)[:2048]
        assert len(encoded.weights) == len(encoded.ids)


def test_loss_is_taken_on_answers_and_their_end_only(tokenizer):
    from tools.bundled_model.corpus import Conversation
    from tools.bundled_model.tokenization import END_WEIGHT, Encoder

    messages = (
        {"role": "user", "content": "Give me some tips"},
        {"role": "assistant", "content": "Here are some tips"},
    )
    encoded = Encoder(tokenizer).encode(Conversation(messages, ()))
    scored = [token for token, weight in zip(encoded.ids, encoded.weights, strict=True) if weight]
    assert tokenizer.decode(scored) == "Here are some tips<|end|>"
    assert encoded.weights[-1] == END_WEIGHT
