"""One lesson: what answers teach, and whether it tells more of held-out ones than their distribution does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.predictors.cold_start.cohort import Examples
from lengthwise.predictors.cold_start.config import LEAST, ColdStartConfig
from lengthwise.predictors.cold_start.trial import Verdict, judge
from lengthwise.predictors.terms import prompt_text

if TYPE_CHECKING:
    from lengthwise.predictors.text.predictor import TextPredictor

log = logging.getLogger("lengthwise")


@dataclass(frozen=True)
class Lesson:
    """What came of learning once. `predictor` None: it told no more than the distribution."""

    predictor: TextPredictor | None
    verdict: Verdict | None  # None: not judged, it was good enough before
    num_ended: int


@dataclass(frozen=True)
class Study:
    """How lessons are made. `model` is the identity of the model whose answers are learned from."""

    model: str | None
    config: ColdStartConfig
    seed: int

    def lesson(self, examples: Examples, num_ended: int, *, is_judged: bool, is_last: bool = False) -> Lesson:
        """What is learned from the examples; nothing where they are judged, and it is not good enough."""
        if len(examples) < LEAST:  # most of those that were started failed
            return Lesson(None, None, num_ended)
        try:
            verdict = self._judge(examples) if is_judged else None
            if verdict is not None and verdict.gain < self.config.min_gain:
                return Lesson(None, verdict, num_ended)
            return Lesson(self._fitted(examples, is_last), verdict, num_ended)
        except PredictorError as error:  # too few different prompts, no common words
            log.debug("Nothing was learned from %d answers: %s", num_ended, error)
            return Lesson(None, None, num_ended)

    def _judge(self, examples: Examples) -> Verdict:
        """On each third of them what the others teach, which tells more than one third; of many, one does."""
        num_folds = self.config.num_folds if len(examples) <= self.config.max_judged_by_all else 1
        places = self._folds(examples)
        parts = [self._foretold(examples, places == fold) for fold in range(num_folds)]
        held_out, estimates, constant = zip(*parts, strict=True)
        return judge(
            LengthEstimates.concatenate(estimates),
            LengthEstimates.concatenate(constant),
            examples[np.concatenate(held_out)],
        )

    def _folds(self, examples: Examples) -> NDArray[np.intp]:
        """In which of `num_folds` each example stands: all answers to a prompt in the same one, as they began."""
        numbers: dict[str, int] = {}
        prompts = [numbers.setdefault(prompt_text(request), len(numbers)) for request in examples.requests]
        if len(numbers) < self.config.num_folds:
            raise PredictorError(f"There are {len(numbers)} different prompts; {self.config.num_folds} are needed.")
        return np.array(prompts, np.intp) % self.config.num_folds

    def _foretold(
        self, examples: Examples, is_held_out: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], LengthEstimates, LengthEstimates]:
        """Rows that are held out, what is foretold of them, and their distribution as the others have it."""
        from lengthwise.predictors.constant import ConstantPredictor

        seen, rows = examples[np.flatnonzero(~is_held_out)], np.flatnonzero(is_held_out)
        requests = examples[rows].requests
        constant = ConstantPredictor.fit(seen.lengths, seen.is_censored)
        return rows, self._fitted(seen, has_trees=False).predict(requests), constant.predict(requests)

    def _fitted(self, examples: Examples, has_trees: bool) -> TextPredictor:
        """Trees only at the end: while it runs they cost three times the time, and below some thousand prompts they
        order hardly better than the regression."""
        from lengthwise.predictors.text.boosting_fit import BoostingConfig
        from lengthwise.predictors.text.predictor import TextConfig, TextPredictor

        config = TextConfig() if has_trees else TextConfig(boosting=BoostingConfig(min_prompts=len(examples) + 1))
        return TextPredictor.fit(
            examples.requests, examples.lengths, examples.is_censored, model=self.model, seed=self.seed, config=config
        )
