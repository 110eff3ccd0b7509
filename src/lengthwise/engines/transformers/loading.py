"""Options → a loaded model: any Hugging Face causal model, on the device that is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lengthwise.bundled import MODEL_DIR, is_bundled
from lengthwise.engines.transformers.checkpoint import find_adapter, find_model, find_weights
from lengthwise.engines.transformers.identity import adapter_digest, model_identity, text_digest
from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.options import ModelOptions
from lengthwise.engines.transformers.quiet import quiet
from lengthwise.engines.transformers.templates import ChatTemplate, PromptEncoder, choose_template, is_own_template
from lengthwise.errors import ModelError, first_line

log = logging.getLogger("lengthwise")

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
# Where nothing says how much a model reads (recurrent ones have no limit): what most of them were trained on.
FALLBACK_CONTEXT_TOKENS = 2048
# A tokenizer without a limit of its own reports 10^30.
MAX_PLAUSIBLE_CONTEXT_TOKENS = 10**9


@dataclass(frozen=True)
class _Files:
    """All of a model but its weights."""

    name: str
    folder: Path
    adapter: Path | None
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate | None


def load_model(options: ModelOptions) -> LoadedModel:
    """The model, its tokenizer, and what an engine must know of them.

    All else is looked at before weights are fetched, and all files before anything is loaded. Reaches the hub only for
    a name that is no folder, and runs code that comes with a model only if told to. Raises ModelError, one clear
    sentence, for anything that can't be loaded.
    """
    device = choose_device(options.device)
    _check_quantization(options.quantization)
    files = _find_files(options)
    context_tokens = _context_tokens(files.config, files.tokenizer, options.context_tokens)
    find_weights(files.folder, files.name, options.revision)
    log.info("Loading %s.", files.name)
    with quiet(), _as_model_error(files.name):
        model = _load_weights(files.folder, files.config, options, device)
        if files.adapter is not None:
            add_adapter(model, files.adapter, str(options.adapter))
    eos = eos_token_ids(model, files.tokenizer)
    _drop_generation_defaults(model, eos)
    encode = PromptEncoder(files.tokenizer, files.template, _max_token_id(model, files.tokenizer))
    return LoadedModel(model, files.tokenizer, _identity(files, options), context_tokens, eos, encode)


def identify_model(options: ModelOptions) -> str:
    """The identity that the loaded model would have, without loading its weights. Raises ModelError."""
    files = _find_files(options)
    find_weights(files.folder, files.name, options.revision)
    return _identity(files, options)


def read_without_weights(options: ModelOptions) -> tuple[str, PromptEncoder, int]:
    """A model's identity, how it reads prompts, and the tokens that prompt and answer may have: what can be known
    without loading it. Raises ModelError."""
    files = _find_files(options)
    find_weights(files.folder, files.name, options.revision)
    context_tokens = _context_tokens(files.config, files.tokenizer, options.context_tokens)
    return _identity(files, options), PromptEncoder(files.tokenizer, files.template, None), context_tokens


def choose_device(wanted: str) -> str:
    """`auto` → cuda, mps or cpu, the first that is there. Raises ModelError for a device that is not."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ModelError(f"device is {wanted!r}; it must be auto, cpu, cuda, cuda:1 or mps.") from error
    is_there = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": _has_cuda(device.index)}
    if not is_there.get(device.type, False):
        raise ModelError(f"The device {wanted!r} is not there (torch {torch.__version__}); use auto or cpu.")
    return wanted


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All tokens that end an answer, in ascending order: the generation config's, the tokenizer's, the config's."""
    generation = model.generation_config
    sources = (generation.eos_token_id if generation else None, tokenizer.eos_token_id, _config_eos(model.config))
    found = {token for source in sources if source is not None for token in _as_list(source)}
    valid = tuple(sorted(token for token in found if 0 <= token < _num_embeddings(model)))
    if not valid:
        log.warning("The model has no end-of-sequence token: answers run to their limit, or to a stop text.")
    return valid


# -- before the weights ----------------------------------------------------------------------------------------


def _find_files(options: ModelOptions) -> _Files:
    name = str(MODEL_DIR) if options.model is None or is_bundled(options.model) else options.model
    folder = find_model(name, options.revision, options.trust_remote_code)
    with quiet(), _as_model_error(name):
        config = _load_config(folder, name, options)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **_trust(options))
        template = choose_template(tokenizer, options.chat_template)
    adapter = find_adapter(options.adapter) if options.adapter is not None else None
    return _Files(name, folder, adapter, config, tokenizer, template)


def _check_quantization(wanted: str | None) -> None:
    if wanted is not None and find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization {wanted!r} needs bitsandbytes, which is not installed: pip install bitsandbytes, or give a "
            "checkpoint that is quantised already."
        )


def _identity(files: _Files, options: ModelOptions) -> str:
    """The files' identity, and what the options make of it."""
    parts: list[str] = []
    if options.quantization is not None:
        parts.append(options.quantization)
    if files.adapter is not None:
        parts.append(f"adapter-{adapter_digest(files.adapter)}")
    if not is_own_template(files.tokenizer, files.template):
        parts.append(f"template-{text_digest(files.template.source)}" if files.template else "no-template")
    return model_identity(files.folder, parts)


def _load_config(folder: Path, name: str, options: ModelOptions) -> PreTrainedConfig:
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, **_trust(options))
    if config.is_encoder_decoder:
        raise ModelError(f"{name!r} is an encoder-decoder model ({config.model_type}); this runs causal ones only.")
    if not _is_causal(config, options.trust_remote_code):
        made_for = ", ".join(config.architectures or ()) or config.model_type
        raise ModelError(
            f"{name!r} holds {made_for}, which does not generate text from left to right: give a causal language model."
        )
    return config


def _is_causal(config: PreTrainedConfig, trust_remote_code: bool) -> bool:
    """Whether transformers has a causal class for this configuration and the weights were made for it."""
    if trust_remote_code and "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return True
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    causal = _as_list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ()))
    return not config.architectures or any(
        architecture.lower() in {name.lower() for name in causal} for architecture in config.architectures
    )


def _context_tokens(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, wanted: int | None) -> int:
    text_config = config.get_text_config()
    stated = next((value for name in CONTEXT_NAMES if (value := getattr(text_config, name, None))), None)
    if stated is None and tokenizer.model_max_length < MAX_PLAUSIBLE_CONTEXT_TOKENS:
        stated = tokenizer.model_max_length
    if wanted is not None:
        if stated is not None and wanted > stated:
            raise ModelError(f"context_tokens is {wanted}, but the model reads {stated}: give at most {stated}.")
        return wanted
    if stated is None:
        log.warning("The model does not say how long its context is: %d tokens assumed.", FALLBACK_CONTEXT_TOKENS)
    return int(stated or FALLBACK_CONTEXT_TOKENS)


# -- weights ---------------------------------------------------------------------------------------------------


def _load_weights(folder: Path, config: PreTrainedConfig, options: ModelOptions, device: str) -> PreTrainedModel:
    loader: Any = AutoModelForCausalLM
    model, info = loader.from_pretrained(
        folder,
        config=config,
        dtype=_dtype(options, config, device),
        device_map=options.device_map or {"": device},
        quantization_config=_quantization(options.quantization),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **_trust(options),
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"The weights lack {len(missing)} tensors that the configuration asks for ({missing[0]}): they would be "
            "random. The files don't belong together, or the checkpoint has no language-model head."
        )
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    return model


def _dtype(options: ModelOptions, config: PreTrainedConfig, device: str) -> torch.dtype | str:
    if options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype
    is_quantized = options.quantization is not None or getattr(config, "quantization_config", None) is not None
    return torch.float32 if device == "cpu" and options.device_map is None and not is_quantized else "auto"


def _quantization(wanted: str | None) -> BitsAndBytesConfig | None:
    if wanted is None:
        return None
    make: Any = BitsAndBytesConfig
    quantization: BitsAndBytesConfig = make(load_in_4bit=wanted == "4bit", load_in_8bit=wanted == "8bit")
    return quantization


def add_adapter(model: PreTrainedModel, folder: Path, name: str) -> None:
    """Put a LoRA adapter into the model, unmerged: merging into 16 bit or quantised weights would change answers.
    `name` is what messages call it. Raises ModelError where it doesn't fit."""
    try:
        with quiet():
            info = model.load_adapter(str(folder), adapter_kwargs={"local_files_only": True})
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"The adapter {name!r} does not fit the model ({first_line(error)}): give its own base."
        ) from error
    unfit = sorted({*info.missing_keys, *info.unexpected_keys})
    if unfit:
        raise ModelError(f"The adapter {name!r} does not fit the model ({unfit[0]}): give its own base.")


def _drop_generation_defaults(model: PreTrainedModel, eos: Sequence[int]) -> None:
    """`model.generate` would add the model's own penalties and samplings to what a request asks for, and no other
    engine does; requests say all that they want."""
    make: Any = GenerationConfig
    model.generation_config = make(eos_token_id=list(eos) or None)


# -- small facts -----------------------------------------------------------------------------------------------


def _max_token_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The last token that the model has, where its tokenizer has more; None where every prompt is safe."""
    num_embeddings = _num_embeddings(model)
    if len(tokenizer) <= num_embeddings:
        return None
    log.warning("The tokenizer has %d tokens, the model %d: prompts with others fail.", len(tokenizer), num_embeddings)
    return num_embeddings - 1


def _num_embeddings(model: PreTrainedModel) -> int:
    return len(model.get_input_embeddings().weight)


def _has_cuda(index: int | None) -> bool:
    return torch.cuda.is_available() and (index or 0) < torch.cuda.device_count()


def _trust(options: ModelOptions) -> dict[str, Any]:
    return {"trust_remote_code": options.trust_remote_code}


def _config_eos(config: PreTrainedConfig) -> int | list[int] | None:
    eos: int | list[int] | None = getattr(config.get_text_config(), "eos_token_id", None)
    return eos


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@contextmanager
def _as_model_error(name: str) -> Iterator[None]:
    """Whatever transformers, tokenizers or torch raise on a model becomes one clear sentence."""
    try:
        yield
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{name!r} does not fit into the device's memory: use a 16 bit dtype, quantization, or device_map='auto'."
        ) from error
    except Exception as error:
        raise ModelError(f"{name!r} can't be loaded: {first_line(error)}") from error
