"""Real, tiny models with random weights, made once a session: folders as `save_pretrained` leaves them.

`tiny_llama_dir` and `model_dir("mistral")` are folders; `tiny_tokenizer` is the tokenizer that all of them share.
A folder costs about 20 ms; none is made unless a test asks for it. Don't change a folder in place: copy it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded: workers whose threads wait for each other's take
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many times as long, and so do the programs that they start

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what runs in the background; what tests
    signal.signal(signal.SIGINT, signal.default_int_handler)  # start would never hear it either

settings.register_profile("patient", deadline=None)  # a busy machine is slow at times
settings.load_profile("patient")

VOCABULARY = 384
CONTEXT = 256
EOS_TOKEN_IDS = (1, 91, 182, 273, 364)  # 1 is the tokenizer's; five of 384, so that many answers end by themselves
PAD_TOKEN_ID = 2

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no role ' + m['role']) }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

_CORPUS = [
    "A list of three fruits: apple, banana, cherry. The answer is short and the question is long.",
    "Write a letter to a friend about the weather, the garden and the journey to the sea.",
    "USER: Explain how a bicycle works. ASSISTANT: A bicycle is a machine with two wheels.",
    "<system> <user> <assistant> 0 1 2 3 4 5 6 7 8 9 Yes. No! Why? Because it is so; thus (and so) we end.",
]

# What all families share: two layers, 4 heads of 8, 2 of them for keys and values. Weights are drawn wide
# (0.2 instead of 0.02), so that greedy answers vary with the prompt and don't settle on one token at once.
_SHARED: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=CONTEXT,
    initializer_range=0.2,
    bos_token_id=0,
    eos_token_id=list(EOS_TOKEN_IDS),
    pad_token_id=PAD_TOKEN_ID,
    tie_word_embeddings=False,
)

# name → (configuration class, what differs). Windows are 16 tokens, short enough for a test to slide past.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": 16}),
    "gemma2": ("Gemma2Config", {"sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "sliding_window": 16,
            "query_pre_attn_scalar": 8,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", {"num_key_value_heads": 4}),
    "gpt2": ("GPT2Config", {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen3_moe": ("Qwen3MoeConfig", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    "mamba": ("MambaConfig", {"state_size": 8, "num_hidden_layers": 2}),
}
_NOT_SHARED = {  # families whose configuration has names of its own, and keeps what it does not know as an attribute
    "gpt2": {"num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings"}
    | {"hidden_size", "num_hidden_layers", "num_attention_heads"},
    "gpt_neox": {"num_key_value_heads", "head_dim"},
    "mamba": {"num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "intermediate_size"},
}


@pytest.fixture(scope="session", autouse=True)
def own_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Measurements are kept apart from the user's, and from those of another session of tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENGTHWISE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE of 384 tokens with start (0), end (1) and padding (2), without a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(_CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=CONTEXT
    )


@pytest.fixture(scope="session")
def make_model_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Callable[..., Path]:
    """`make_model_dir(family="llama", seed=0, chat_template=None, save=None, **changes)`: a new folder.

    `changes` go to the model's configuration, `save` to `save_pretrained` (`max_shard_size`, for instance).
    """
    return lambda family="llama", **options: _save(tmp_path_factory.mktemp(family), tiny_tokenizer, family, **options)


@pytest.fixture(scope="session")
def model_dir(make_model_dir: Callable[..., Path]) -> Callable[[str], Path]:
    """`model_dir(family)`: the folder of a tiny model of this family (FAMILIES), made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_model_dir(family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def tiny_llama_dir(model_dir: Callable[[str], Path]) -> Path:
    """The folder of a tiny Llama without a chat template."""
    return model_dir("llama")


@pytest.fixture(scope="session")
def chat_llama_dir(make_model_dir: Callable[..., Path]) -> Path:
    """The folder of a tiny Llama with a chat template."""
    return make_model_dir("llama", chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def lora_dir(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> Path:
    """A LoRA adapter for `tiny_llama_dir` with weights that change its answers, as `peft` saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("lora")
    get_peft_model(base, lora).save_pretrained(folder)
    return folder


def _save(
    folder: Path,
    tokenizer: Any,
    family: str,
    *,
    seed: int = 0,
    chat_template: str | None = None,
    save: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(_config(family, changes)).save_pretrained(folder, **(save or {}))
    tokenizer.save_pretrained(folder)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    return folder


def _config(family: str, changes: dict[str, Any]) -> Any:
    import transformers

    class_name, differs = FAMILIES[family]
    shared = {name: value for name, value in _SHARED.items() if name not in _NOT_SHARED.get(family, set())}
    return getattr(transformers, class_name)(**{**shared, **differs, **changes})
