"""A model behind a server as predictors use it: it can be asked, and not looked into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from lengthwise.engines.driving import answered
from lengthwise.errors import PredictorError
from lengthwise.estimates import Floats
from lengthwise.protocols import Backbone, Engine, Pooling
from lengthwise.types import ErrorInfo, Request, SamplingParams


class ServerBackbone:
    """Asks through an engine of its own, so that answers which are on their way meanwhile are not mixed up with these.

    `model` is the identity of the engine that answers, `open_engine` opens another for the same servers; that is done
    at the first question, and kept.
    """

    def __init__(self, model: str, open_engine: Callable[[], Engine]) -> None:
        self.model = model
        self._open_engine = open_engine
        self._engine: Engine | None = None

    def ask(self, requests: Sequence[Request], max_tokens: int) -> list[str | None]:
        """Greedy answers of at most `max_tokens` tokens, whatever the requests say of sampling and limit. None where a
        server refuses a request. Raises EngineError where nobody answers any more."""
        questions = [
            replace(request, id=str(i), sampling=SamplingParams(), max_tokens=max_tokens)
            for i, request in enumerate(requests)
        ]
        self._engine = engine = self._engine or self._open_engine()
        prepared = engine.prepare(questions)
        able = [one for one, said in zip(questions, prepared, strict=True) if not isinstance(said, ErrorInfo)]
        answers: list[str | None] = [None] * len(requests)
        try:
            for answer in answered(engine, able, max_tokens):
                answers[int(answer.id)] = answer.text
        except BaseException:
            self.close()  # what was asked and is not answered goes with it
            raise
        return answers

    def states(self, requests: Sequence[Request], pooling: Pooling) -> Floats:
        """Raises PredictorError, always."""
        self._refuse("needs the states of its layers, which no server gives")

    def last_state_after(self, requests: Sequence[Request], vector: Floats) -> Floats:
        """Raises PredictorError, always."""
        self._refuse("needs the states of its layers, which no server gives")

    def with_adapter(self, folder: Path) -> Backbone:
        """Raises PredictorError, always."""
        self._refuse(f"needs the adapter {folder} switched on, which no server does for one request of many")

    def close(self) -> None:
        """Close the connections; the next question opens others."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _refuse(self, why: str) -> NoReturn:
        raise PredictorError(
            f"This predictor {why}, and {self.model} is behind one. Load the model here (--model without --base-url; "
            "for run, --engine transformers), or use a predictor that reads the prompt or asks (`po`, `pia`)."
        )
