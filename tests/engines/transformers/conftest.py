"""Loaded tiny models, and answers of one request run alone, for tests of the engines' own loops."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.transformers.model import LoadedModel
from lengthwise.engines.transformers.prompts import Prompts
from lengthwise.types import Cut, Event, Failed, Finished, Progress, Request

EOS_TOKEN_IDS = (1, 91, 182, 273, 364)
CONTEXT = 256
TIE = 1e-4  # two logits this close may change places


class IdTokenizer:
    """Text is the ids themselves, so that equal text means equal tokens."""

    pad_token_id = 2

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, tokens))


def encode_ids(request: Request) -> list[int]:
    """The prompt of a test request is its ids, written out."""
    assert isinstance(request.prompt, str)
    return [int(word) for word in request.prompt.split()]


@dataclass
class Alone:
    """What `model.generate` answers to one request at a time."""

    loaded: LoadedModel
    known: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def answer(self, request: Request) -> list[int]:
        import torch

        assert request.max_tokens is not None
        prompt = torch.tensor([encode_ids(request)])
        out = self.loaded.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=request.max_tokens,
            do_sample=False,
            eos_token_id=list(EOS_TOKEN_IDS),
            pad_token_id=2,
        )
        return list(out[0, prompt.shape[1] :].tolist())

    def check(self, request: Request, answer: Finished) -> None:
        """The answer is the one of the request alone, or differs first at a tie."""
        expected = self.answer(request)
        written = list(answer.tokens)
        if written == expected:
            assert answer.completion_tokens == len(expected)
            assert answer.finish_reason == ("stop" if expected[-1] in EOS_TOKEN_IDS else "length")
        else:
            assert self._tie(encode_ids(request), written, expected) <= TIE, f"{written} instead of {expected}"

    def _tie(self, prompt: list[int], written: list[int], expected: list[int]) -> float:
        import torch

        same = next(i for i, (a, b) in enumerate(zip(written, expected, strict=False)) if a != b)
        with torch.inference_mode():
            logits = self.loaded.model(torch.tensor([prompt + expected[:same]])).logits[0, -1]
        return float(logits[expected[same]] - logits[written[same]])


@dataclass
class Driver:
    """Runs requests through an engine: at most `at_once`, in pieces of `piece` tokens (None: whole)."""

    engine: Any
    at_once: int = 5
    piece: Callable[[Request], int | None] = lambda request: None
    cuts: list[Cut] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    num_polls: int = 0

    def run(self, requests: Sequence[Request]) -> dict[str, Finished | Failed]:
        queue: list[tuple[Request, tuple[int, ...]]] = [(request, ()) for request in requests]
        running: dict[str, Request] = {}
        ended: dict[str, Finished | Failed] = {}
        while queue or running:
            while queue and len(running) < min(self.at_once, self.engine.capabilities.max_running):
                request, tokens = queue.pop(0)
                running[request.id] = request
                self.engine.start(request, tokens, len(tokens) + (self.piece(request) or 10**6), None)
            for event in self._poll():
                request = running.pop(event.id)
                if isinstance(event, Cut):
                    self.cuts.append(event)
                    queue.append((request, event.tokens))
                else:
                    assert isinstance(event, Finished | Failed)
                    assert event.id not in ended, f"{event.id} ended twice"
                    ended[event.id] = event
        return ended

    def _poll(self) -> list[Event]:
        self.num_polls += 1
        assert self.num_polls < 10_000, "the engine makes no headway"
        events = self.engine.poll(1.0)
        self.progress += [event for event in events if isinstance(event, Progress)]
        return [event for event in events if not isinstance(event, Progress)]


def make_requests(
    num: int, seed: int = 0, max_prompt: int = 60, max_tokens: int = 60, **sampling: Any
) -> list[Request]:
    """Prompts of 1 to `max_prompt` random ids, with limits of 1 to `max_tokens`."""
    from lengthwise.types import SamplingParams

    draw = random.Random(seed)
    return [
        Request(
            f"r{index}",
            " ".join(str(draw.randrange(3, 384)) for _ in range(draw.randint(1, max_prompt))),
            SamplingParams(**sampling, seed=index),
            max_tokens=draw.randint(1, max_tokens),
        )
        for index in range(num)
    ]


@pytest.fixture(scope="session")
def loaded_ids(model_dir: Callable[[str], Path]) -> Callable[..., LoadedModel]:
    """`loaded_ids(family)`: a tiny model whose prompts and answers are ids, written out."""
    from transformers import AutoModelForCausalLM

    made: dict[str, LoadedModel] = {}

    def load(family: str = "llama") -> LoadedModel:
        if family not in made:
            model = AutoModelForCausalLM.from_pretrained(model_dir(family)).eval()
            tokenizer: Any = IdTokenizer()
            made[family] = LoadedModel(model, tokenizer, family, CONTEXT, EOS_TOKEN_IDS, encode_ids)
        return made[family]

    return load


@pytest.fixture
def make_engine(loaded_ids: Callable[..., LoadedModel]) -> Callable[..., Any]:
    """`make_engine(family="llama", loaded=None, **config)`: a TransformersEngine."""
    from lengthwise.engines.transformers.engine import RowEngineConfig, TransformersEngine

    def make(family: str = "llama", loaded: LoadedModel | None = None, **config: Any) -> Any:
        model = loaded or loaded_ids(family)
        return TransformersEngine(model, Prompts(model, 64), RowEngineConfig(**config))

    return make


@pytest.fixture(scope="session")
def tools() -> Any:
    """What stands above, `tools.Driver` for instance: tests can't import a conftest."""
    from types import SimpleNamespace

    return SimpleNamespace(
        Driver=Driver, Alone=Alone, make_requests=make_requests, IdTokenizer=IdTokenizer, encode_ids=encode_ids
    )
