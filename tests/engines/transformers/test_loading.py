import json
import logging
import re
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lengthwise.engines.transformers import ModelOptions
from lengthwise.engines.transformers.loading import choose_device, identify_model, load_model
from lengthwise.errors import ModelError
from lengthwise.types import Request


def load(folder, **options):
    return load_model(ModelOptions(model=str(folder), **options))


@pytest.fixture
def folder(tiny_llama_dir, tmp_path):
    """A copy of the tiny Llama that a test may spoil."""
    return Path(shutil.copytree(tiny_llama_dir, tmp_path / "spoilt"))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# -- what is loaded --------------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one_in_float32_on_a_cpu(tiny_llama_dir):
    """Logits equal those of `from_pretrained`, and the facts are those of the configuration."""
    loaded = load(tiny_llama_dir, device="cpu")
    ids = torch.tensor([loaded.encode_prompt(Request("r", "A list of fruits"))])
    expected = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, expected(ids).logits)
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert loaded.context_tokens == 256
    assert loaded.eos_token_ids == (1, 91, 182, 273, 364)


def test_sharded_weights_load(make_model_dir, tiny_llama_dir):
    """A model in several files gives the answers of the same model in one."""
    sharded = make_model_dir("llama", save={"max_shard_size": "20KB"})
    assert len(list(sharded.glob("*.safetensors"))) > 2
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        assert torch.equal(load(sharded).model(ids).logits, load(tiny_llama_dir).model(ids).logits)


def test_an_adapter_changes_the_model_as_peft_does(tiny_llama_dir, lora_dir):
    """The logits are those of PeftModel, and the model stays what engines expect."""
    from peft import PeftModel

    ids = torch.tensor([[5, 6, 7]])
    with_adapter = load(tiny_llama_dir, adapter=str(lora_dir))
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), lora_dir)
    with torch.inference_mode():
        logits = with_adapter.model(ids).logits
        assert torch.allclose(logits, expected(ids).logits, atol=1e-6)
        assert not torch.allclose(logits, load(tiny_llama_dir).model(ids).logits, atol=1e-2)


def test_a_dtype_is_taken(tiny_llama_dir):
    """What is asked for wins over the default of the device."""
    assert load(tiny_llama_dir, dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_device_map_is_handed_on(tiny_llama_dir):
    """accelerate places the model, inputs go where the embedding is; a map that it does not know is refused."""
    loaded = load(tiny_llama_dir, device_map="auto")
    assert loaded.device == loaded.model.get_input_embeddings().weight.device
    with pytest.raises(ModelError, match="everywhere"):
        load(tiny_llama_dir, device_map="everywhere")


def test_the_model_s_own_chat_template_is_used(chat_llama_dir):
    """`auto` finds it; `none` leaves the text alone."""
    ids = load(chat_llama_dir).encode_prompt(Request("r", "Hello"))
    tokenizer = AutoTokenizer.from_pretrained(chat_llama_dir)
    assert tokenizer.decode(ids) == "<s><user>Hello\n<assistant>"
    assert (
        tokenizer.decode(load(chat_llama_dir, chat_template="none").encode_prompt(Request("r", "Hello"))) == "<s>Hello"
    )


def test_the_context_is_taken_where_it_is_stated(model_dir, folder, caplog):
    """GPT-2 says n_positions; Mamba says nothing, and its tokenizer does; else a stated guess, with a warning."""
    assert load(model_dir("gpt2")).context_tokens == 256
    assert load(model_dir("mamba")).context_tokens == 256
    assert load(folder, context_tokens=100).context_tokens == 100
    unlimited = Path(shutil.copytree(model_dir("mamba"), folder / "unlimited"))
    edit(unlimited / "tokenizer_config.json", model_max_length=10**30)
    with caplog.at_level(logging.WARNING, "lengthwise"):
        assert load(unlimited).context_tokens == 2048
    assert "2048" in caplog.text


def test_a_tokenizer_larger_than_the_model_fails_the_prompt_and_not_the_run(folder):
    """A token without an embedding would end a CUDA process."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)
    encode = load(folder).encode_prompt
    good, bad = encode.many([Request("a", "Hi"), Request("b", "Hi <extra>")])
    assert good == encode(Request("a", "Hi"))
    assert "384" in str(bad)


# -- identity --------------------------------------------------------------------------------------------------


def test_the_identity_is_that_of_the_content(tiny_llama_dir, folder):
    """Equal for a copy in another folder and another dtype; readable; no path in it."""
    identity = load(tiny_llama_dir).identity
    assert re.fullmatch(r"llama-40\.1K-[0-9a-f]{12}", identity)
    assert load(folder, dtype="bfloat16").identity == identity


def test_the_identity_changes_with_whatever_changes_answers(make_model_dir, tiny_llama_dir, lora_dir, folder):
    """Weights, shape, tokenizer, adapter, template."""
    seen = {load(tiny_llama_dir).identity}
    seen.add(load(make_model_dir("llama", seed=1)).identity)
    seen.add(load(tiny_llama_dir, adapter=str(lora_dir)).identity)
    seen.add(load(tiny_llama_dir, chat_template="vicuna").identity)
    edit(folder / "tokenizer_config.json", bos_token="</s>")
    seen.add(load(folder).identity)
    assert len(seen) == 5


@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_model_is_identified_without_its_weights(tiny_llama_dir, lora_dir, with_adapter):
    """The same text, for a command that needs no answer."""
    adapter = str(lora_dir) if with_adapter else None
    options = ModelOptions(model=str(tiny_llama_dir), adapter=adapter, chat_template="vicuna")
    assert identify_model(options) == load_model(options).identity


def test_one_changed_weight_of_a_small_model_is_seen(tiny_llama_dir, folder):
    """A file up to 32 MiB counts as a whole."""
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    assert load(folder).identity != load(tiny_llama_dir).identity


def test_every_tensor_of_a_large_file_counts(tmp_path, monkeypatch):
    """Beyond that size a piece of each tensor does: training one layer only is seen, and little is read."""
    from safetensors.torch import save_file

    from lengthwise.engines.transformers import identity

    monkeypatch.setattr(identity, "WHOLE_FILE_BYTES", 0)
    tensors = {f"layer{n}": torch.full((100, 100), float(n)) for n in range(4)}
    digests = set()
    for changed in [None, *tensors]:
        folder = tmp_path / str(changed)
        folder.mkdir()
        save_file({name: t + 1 if name == changed else t for name, t in tensors.items()}, folder / "m.safetensors")
        digests.add(identity.digest_files(folder, (), ("m.safetensors",)))
    assert len(digests) == 5


# -- what can't be loaded --------------------------------------------------------------------------------------


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def as_pickle(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def truncate(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def without_head(folder):
    AutoModelForCausalLM.from_pretrained(folder).model.save_pretrained(folder)


def claim(**changes):
    return lambda folder: edit(folder / "config.json", **changes)


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


BAD_FOLDERS = {
    "no config": (remove("config.json"), "no config.json"),
    "config is no json": (write("config.json", "{"), "can't be read as JSON"),
    "config is a list": (write("config.json", "[]"), "not an object"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
    "broken tokenizer": (write("tokenizer.json", "{}"), "can't be loaded"),
    "no weights": (remove("model.safetensors"), "no weights"),
    "pickle only": (as_pickle, "pickle weights only"),
    "truncated": (truncate, "cut short"),
    "lfs pointer": (lfs_pointer, "git lfs pull"),
    "no head": (without_head, "LlamaModel"),
    "weights lack tensors": (claim(num_hidden_layers=3), "lack"),
    "unknown architecture": (claim(model_type="nonesuch"), "nonesuch"),
    "encoder": (claim(model_type="bert", architectures=["BertForMaskedLM"]), "BertForMaskedLM"),
    "encoder-decoder": (claim(model_type="t5", architectures=["T5ForConditionalGeneration"]), "encoder-decoder"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_folder_that_cant_be_loaded_is_one_clear_sentence(folder, case):
    """It names the model, and says what is wrong."""
    spoil, says = BAD_FOLDERS[case]
    spoil(folder)
    with pytest.raises(ModelError, match=re.escape(says)) as caught:
        load(folder)
    assert "spoilt" in str(caught.value) or case == "weights lack tensors"
    assert "\n" not in str(caught.value)


def test_the_way_out_of_pickle_weights_works(folder, tiny_llama_dir, monkeypatch):
    """The command in the message makes a folder that loads, with the same weights."""
    as_pickle(folder)
    with pytest.raises(ModelError) as caught:
        load(folder)
    (program,) = re.findall(r'python -c "(.*)"', str(caught.value))
    exec(program)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        converted = load(f"{folder}-safetensors").model(ids).logits
        assert torch.equal(converted, load(tiny_llama_dir).model(ids).logits)


def test_a_missing_shard_is_named(make_model_dir):
    """The first file that is not there, and how many."""
    folder = make_model_dir("llama", save={"max_shard_size": "20KB"})
    (folder / "model-00003-of-00006.safetensors").unlink()
    with pytest.raises(ModelError, match=r"1 of its 6 .*model-00003-of-00006"):
        load(folder)


@pytest.mark.parametrize(("name", "says"), [("./nowhere", "does not exist"), ("/no/such/folder", "does not exist")])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name, says):
    """What looks like a path is one."""
    with pytest.raises(ModelError, match=says):
        load(name)


def test_a_folder_of_nobody_and_one_that_cant_be_reached_are_sentences(folder, monkeypatch):
    """A user that is not there, and a folder that may not be looked into."""
    with pytest.raises(ModelError, match="does not exist or can't be read"):
        load("~nobody-here/model")
    monkeypatch.setattr("lengthwise.engines.transformers.checkpoint.os.access", lambda *args: False)
    with pytest.raises(ModelError, match="can't be read"):
        load(folder)


def test_a_weight_file_that_cant_be_read_is_a_sentence(folder, monkeypatch):
    """It is somebody else's, for instance."""
    opened = Path.open

    def open_others(path, *args, **options):
        if path.name == "model.safetensors":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_others)
    with pytest.raises(ModelError, match=r"can't be read \(Permission denied\)"):
        load(folder)


def test_one_weight_file_comes_before_an_index(make_model_dir, folder, tiny_llama_dir):
    """As transformers reads a folder that holds both: shards that were left lying change nothing."""
    sharded = make_model_dir("llama", seed=1, save={"max_shard_size": "20KB"})
    shutil.copy(sharded / "model.safetensors.index.json", folder)
    assert load(folder).identity == load(tiny_llama_dir).identity


def test_a_file_is_no_model(folder):
    """The folder around it is."""
    with pytest.raises(ModelError, match="is a file"):
        load(folder / "config.json")


def test_a_folder_has_no_revision(folder):
    """The option would be ignored otherwise."""
    with pytest.raises(ModelError, match="no revision 'main'"):
        load(folder, revision="main")


def test_an_adapter_given_as_model_names_its_base(lora_dir):
    """The mistake that is made most often with adapters."""
    with pytest.raises(ModelError, match="is an adapter"):
        load(lora_dir)


def test_a_context_beyond_the_model_s_is_refused(folder):
    """It would read positions that were never trained."""
    with pytest.raises(ModelError, match=r"257.*256"):
        load(folder, context_tokens=257)


@pytest.mark.parametrize(
    ("family", "changes"), [("llama", {"hidden_size": 64}), ("llama", {"num_hidden_layers": 1}), ("gpt_neox", {})]
)
def test_an_adapter_that_does_not_fit_is_refused(family, changes, make_model_dir, lora_dir):
    """Another size, a layer too many, and other layer names."""
    with pytest.raises(ModelError, match="does not fit the model"):
        load(make_model_dir(family, **changes), adapter=str(lora_dir))


def test_a_folder_that_is_no_adapter_is_refused(tiny_llama_dir):
    """A model is no adapter."""
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        load(tiny_llama_dir, adapter=str(tiny_llama_dir))


def test_quantising_needs_bitsandbytes(tiny_llama_dir, monkeypatch):
    """Without it the message says what to install."""
    monkeypatch.setattr("lengthwise.engines.transformers.loading.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        load(tiny_llama_dir, quantization="4bit")


@pytest.mark.parametrize(
    "options",
    [{"dtype": "float8"}, {"quantization": "2bit"}, {"device": "cpu", "device_map": "auto"}, {"context_tokens": 1}],
)
def test_options_that_cant_be_are_refused_when_made(options):
    """Before any file is touched."""
    with pytest.raises(ModelError):
        ModelOptions(**options)


@pytest.mark.parametrize("device", ["cuda:99", "xpu", "toaster"])
def test_a_device_that_is_not_there_is_refused(device):
    """Instead of a stack trace at the first tensor."""
    with pytest.raises(ModelError, match=device):
        choose_device(device)


# -- the hub ---------------------------------------------------------------------------------------------------


def test_without_a_network_a_hub_name_is_one_sentence_at_once(monkeypatch, tmp_path):
    """It says that the hub can't be reached and that a folder would do."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        started_s = time.monotonic()
        with pytest.raises(ModelError, match=r"can't be reached.*give a folder"):
            load("nobody/nothing")
    assert time.monotonic() - started_s < 20  # the hub client would try again for longer


@pytest.mark.parametrize("kind", ["ProxyError", "ReadError"])
def test_errors_of_the_hub_s_http_client_are_one_sentence(monkeypatch, kind):
    """They are no OSErrors."""
    from huggingface_hub.utils import _http

    def broken(*args, **options):
        raise getattr(_http.httpx2, kind)("503 Service Unavailable")

    monkeypatch.setattr("lengthwise.engines.transformers.checkpoint.snapshot_download", broken)
    with pytest.raises(ModelError, match=r"can't be reached \(503 Service Unavailable\)"):
        load("owner/name")


@pytest.mark.parametrize("name", ["what is this", ""])
def test_a_name_that_can_be_neither_is_refused(name):
    """Neither a folder nor a hub id."""
    with pytest.raises(ModelError):
        load(name)
