"""The paper's predictors without training: the model that will answer is asked how long its answer would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from lengthwise.errors import PredictorError
from lengthwise.estimates import GRID, Floats, LengthEstimates
from lengthwise.predictors import folder as files
from lengthwise.predictors.prompted.lengths import ARRAY_SHAPES, StatedLengths, assumed_survival
from lengthwise.predictors.prompted.number import first_line, read_tokens
from lengthwise.predictors.prompted.question import QUESTIONS, Form, question_about
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.tuned.adapter_files import FOLDER, AdapterFiles
from lengthwise.protocols import Backbone
from lengthwise.types import Completion, Request

MAX_NEW_TOKENS = 16  # "Approximately 1,200 tokens would be needed." and no tale
CHUNK = 512  # asked at once: bounds what is held of questions and their tokens


class PromptedPredictor:
    """Perception Only (`po`) and Perception in Advance (`pia`): one question a request to `backbone`, whose number is
    the median, or, once `learned` from answers, stands for what followed such numbers.

    Where no number can be read nothing is known; `num_asked` and `num_failed` count questions and those. `adapter` is
    the LoRA adapter that is switched on for the questions (only for them). Not trained it has no `learned_from`.
    """

    def __init__(
        self,
        backbone: Backbone,
        form: Form,
        *,
        learned: StatedLengths | None = None,
        learned_from: Provenance | None = None,
        card: Mapping[str, Any] | None = None,
        adapter: Path | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        """Raises PredictorError where the adapter can't be switched on."""
        self.model: str | None = backbone.model
        self.form = form
        self.learned = learned
        self.learned_from = learned_from
        self.card = dict(card or {})
        self.max_new_tokens = max_new_tokens
        self.num_asked = self.num_failed = 0
        self._adapter = adapter
        self._asked = backbone if adapter is None else backbone.with_adapter(adapter)

    @property
    def failure_ratio(self) -> float:
        """The share of questions so far whose answer had no number; NaN before the first."""
        return self.num_failed / self.num_asked if self.num_asked else float("nan")

    def stated(self, requests: Sequence[Request]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The numbers of tokens that the model states (n, NaN where none can be read). Raises EngineError where the
        model is behind a server that doesn't answer."""
        found = np.full(len(requests), np.nan)
        for start in range(0, len(requests), CHUNK):
            questions = [question_about(request, self.form) for request in requests[start : start + CHUNK]]
            answers = self._asked.ask(questions, self.max_new_tokens)
            numbers = [read_tokens(first_line(answer) if self.form == "pia" else answer) for answer in answers]
            found[start : start + CHUNK] = [np.nan if number is None else number for number in numbers]
        self.num_asked += len(found)
        self.num_failed += int(np.isnan(found).sum())
        return found

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        stated = self.stated(requests)
        is_read = ~np.isnan(stated)
        curves: Floats = np.ones((len(requests), len(GRID)), np.float32)
        if is_read.any():
            logs = np.log(stated[is_read])
            curves[is_read] = assumed_survival(logs) if self.learned is None else self.learned.survival(logs)
        return LengthEstimates.from_survival(curves)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Learns nothing: it asks."""

    # -- on disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write it into `folder`, which is made where it does not exist; the model itself stays where it is, and its
        identity is noted. Raises PredictorError on an adapter whose weights are a pickle."""
        target = Path(folder)
        adapter = None if self._adapter is None else AdapterFiles.read(self._adapter)
        files.begin(target)
        if adapter is not None:
            adapter.write(target / FOLDER)
        if self.learned is not None:
            files.write_arrays(target, self.learned.arrays())
        fields = {
            "model": self.model,
            "max_new_tokens": self.max_new_tokens,
            "has_adapter": adapter is not None,
            "learned_from": None if self.learned_from is None else self.learned_from.to_json(),
            "card": self.card,
        }
        files.write_header(target, self.form, fields)

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone) -> Self:
        """Raises PredictorError on a folder that can't be read, or one that asked another model."""
        source = Path(folder)
        header = files.read_header(source)
        files.check_backbone(source, files.field(source, header, "model", str), backbone)
        form = files.field(source, header, "kind", str)
        if form not in QUESTIONS:
            raise PredictorError(f"{source} holds a predictor of kind {form!r}, which is no question. Train it again.")
        max_new_tokens = files.field(source, header, "max_new_tokens", int)
        if max_new_tokens < 1:
            raise PredictorError(f"{source}: max_new_tokens is {max_new_tokens}; 1 or more was expected.")
        known = files.field(source, header, "learned_from", dict | None)
        arrays = files.read_arrays(source, ARRAY_SHAPES) if known is not None else None
        has_adapter = files.field(source, header, "has_adapter", bool)
        return cls(
            backbone,
            form,
            learned=None if arrays is None else StatedLengths.from_arrays(arrays, source),
            learned_from=None if known is None else Provenance.from_json(known),
            card=files.field(source, header, "card", dict),
            adapter=source / FOLDER if has_adapter else None,
            max_new_tokens=max_new_tokens,
        )
