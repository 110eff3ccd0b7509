"""The byte-level BPE tokenizer, its chat template, and encoding with loss weights."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.bundled_model.corpus import FIRST_MIX, Conversation, draw_conversation

VOCAB_SIZE = 3072
MODEL_MAX_LENGTH = 2048
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"

# Words with their leading blank, every digit alone, punctuation runs, white space.
_SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# The plan is a token or two of an answer; without extra weight their loss drowns among the words.
PLAN_WEIGHT = 8.0
MARKER_WEIGHT = 2.0
END_WEIGHT = 3.0


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each the weight of its loss (0 outside answers)."""

    ids: list[int]
    weights: list[float]


def train_tokenizer(seed: int, num_conversations: int = 20_000) -> PreTrainedTokenizerFast:
    """A tokenizer from the text of the stream with this seed (word counts stand in for the PO and PiA numbers)."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(seed, num_conversations), trainer)
    return wrap_tokenizer(backend)


def wrap_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """The form that `AutoTokenizer.from_pretrained` gives back."""
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MODEL_MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(seed: int, num_conversations: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(num_conversations):
        for message in draw_conversation(lambda text: len(text.split()), rng, FIRST_MIX).messages:
            yield message["content"]


def token_counter(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], int]:
    """Tokens of an answer, its end token included."""
    backend = tokenizer.backend_tokenizer
    return lambda answer: len(backend.encode(answer, add_special_tokens=False).ids) + 1


class Encoder:
    """Encodes conversations; keeps the special ids at hand because the stream calls it 80,000 times."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._backend = tokenizer.backend_tokenizer
        self._role_ids = {
            role: tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("system", "user", "assistant")
        }
        self._end_id = tokenizer.eos_token_id
        self._digit_ids = {tokenizer.convert_tokens_to_ids(digit) for digit in "0123456789"}

    def encode(self, conversation: Conversation) -> Encoded:
        """Ids as the chat template gives them, cut at the context length."""
        ids: list[int] = []
        weights: list[float] = []
        for message in conversation.messages:
            content = self._backend.encode(message["content"], add_special_tokens=False).ids
            ids += [self._role_ids[message["role"]], *content, self._end_id]
            is_answer = message["role"] == "assistant"
            weights += [0.0, *self._weigh(content), END_WEIGHT] if is_answer else [0.0] * (len(content) + 2)
        return Encoded(ids[:MODEL_MAX_LENGTH], weights[:MODEL_MAX_LENGTH])

    def _weigh(self, answer: list[int]) -> list[float]:
        weights = [MARKER_WEIGHT if token in self._digit_ids else 1.0 for token in answer]
        first = next((index for index, token in enumerate(answer) if token in self._digit_ids), None)
        if first is not None and len(answer) > 5:
            for index in range(first, min(first + 2, len(answer))):
                weights[index] = PLAN_WEIGHT
        return weights
