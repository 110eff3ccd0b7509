"""The predictor of a run for whose model none was trained: it learns from the run's own first answers.

Until it has learned, nothing is known, so nothing is cut, and requests that were taken in together start in a random
order: what was started is then a random sample of those, also where a file is sorted by something. It learns when 100,
200, 400, ... of them have ended, and is used as soon as it tells more of held-out answers than their distribution does,
by a test that pure noise rarely passes. From there on the order depends on prompts, and what was started is a random
sample no more; but it does not depend on answers, so regressions on prompts stay right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lengthwise.estimates import LengthEstimates
from lengthwise.predictors.cold_start.cohort import Cohort, Examples
from lengthwise.predictors.cold_start.config import ColdStartConfig as ColdStartConfig
from lengthwise.predictors.cold_start.study import Lesson, Study
from lengthwise.predictors.cold_start.trial import Verdict
from lengthwise.protocols import LengthPredictor
from lengthwise.types import Completion, Request

if TYPE_CHECKING:
    from lengthwise.predictors.text.predictor import TextPredictor

log = logging.getLogger("lengthwise")

LEARNED_BY = "run"  # in the card of a predictor that a run taught itself


@dataclass(eq=False)
class ColdStartPredictor:
    """See the module. `model` is the identity of the model whose answers it learns from.

    `learned` is what is used: None as long as nothing is; it may be given, from a former run of the same model, and
    stays until as much is known anew. `on_learned` is called with what comes into use, in the thread that drives the
    run.
    """

    model: str | None
    config: ColdStartConfig = field(default_factory=ColdStartConfig)
    seed: int = 0
    learned: LengthPredictor | None = None
    on_learned: Callable[[TextPredictor], None] | None = None
    verdict: Verdict | None = None  # the last one
    switched_at: int | None = None  # answers that had ended when what was learned here came into use
    _cohort: Cohort = field(init=False)
    _next: int = field(init=False)  # how many must have ended before it learns again
    _threads: ThreadPoolExecutor | None = None
    _fit: Future[Lesson] | None = None

    def __post_init__(self) -> None:
        self._study = Study(self.model, self.config, self.seed)
        self._cohort = Cohort(self.config.max_examples, self.seed)
        self._next = self.config.first_answers
        self._order = np.random.default_rng(self.seed)

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        return LengthEstimates.unknown(len(requests)) if self.learned is None else self.learned.predict(requests)

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        for request, completion in zip(requests, completions, strict=True):
            if completion.error is None and completion.completion_tokens >= 1:
                self._cohort.end(request, completion.completion_tokens, completion.finish_reason == "length")
            else:
                self._cohort.lose(request.id)

    def resume(self, former: LengthPredictor) -> None:
        """Use what a former run learned of this model, until at least as much is known anew."""
        self.learned = former
        self._next = max(self.config.first_answers, _num_examples(former))

    def finish(self) -> None:
        """Learn once more, from all answers that are kept, now that nothing waits for it. Takes some seconds."""
        if self._fit is not None:
            self._apply(self._take_fit())
        examples = self._cohort.by_progress({})
        if len(examples) >= max(self.config.first_answers, _num_examples(self.learned)):
            self._apply(self._lesson(examples, self._cohort.num_ended, is_last=True))
        if self.verdict is not None and self.learned is None:
            log.info("%d answers showed no gain by their prompts: lengths were not used.", self._cohort.num_ended)

    def close(self) -> None:
        """Wait for a fit that goes on in a thread, and drop what it learned; what was learned before stays."""
        self._fit = None
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def report(self) -> dict[str, Any] | None:
        """What was learned, for programs; None where there was too little to learn from."""
        if self.learned is None and self.verdict is None:
            return None
        found: dict[str, Any] = {
            "kind": None if self.learned is None else "text",
            "learned_from": _num_examples(self.learned),
            "switched_at": self.switched_at,
        }
        return found | (self.verdict.to_json() if self.verdict else {})

    # -- what the loop tells (protocols.Learner) ---------------------------------------------------------------

    def begin_run(self) -> None:
        self._cohort.lose_unfinished()

    def starting_order(self, num: int) -> Sequence[int] | None:
        """A random one while nothing is learned; as they come where there are too few to learn from."""
        if self.learned is not None or num < self.config.first_answers:
            return None
        order: list[int] = self._order.permutation(num).tolist()
        return order

    def begin(self, request: Request) -> None:
        self._cohort.begin(request)

    def lose(self, request_id: str) -> None:
        self._cohort.lose(request_id)

    def learn(self, written: Callable[[], Mapping[str, int]] | None) -> bool:
        if self._fit is not None:
            return self._fit.done() and self._apply(self._take_fit())
        if not self._is_due(has_progress=written is not None):
            return False
        num_ended = self._next if written is None else self._cohort.num_ended
        examples = self._cohort.of_first(self._next) if written is None else self._cohort.by_progress(written())
        while self._next <= num_ended:
            self._next *= 2
        if not self.config.in_background:
            return self._apply(self._lesson(examples, num_ended))
        self._threads = self._threads or ThreadPoolExecutor(1, "lengthwise-learning")
        self._fit = self._threads.submit(self._lesson, examples, num_ended)
        return False

    # -- how it learns -----------------------------------------------------------------------------------------

    def _is_due(self, has_progress: bool) -> bool:
        """Where progress is told, all that was started is a sample, censored at what is written. Where it isn't, those
        that were started first are one, as soon as all but a few of them have ended."""
        if self._next > self.config.max_answers:
            return False
        if has_progress:
            return self._cohort.num_ended >= self._next
        if self._cohort.num_begun < self._next:
            return False
        return self._cohort.num_open_of(self._next) <= (1 - self.config.min_share_ended) * self._next

    def _lesson(self, examples: Examples, num_ended: int, is_last: bool = False) -> Lesson:
        """Judged until it was good enough once."""
        return self._study.lesson(examples, num_ended, is_judged=self.switched_at is None, is_last=is_last)

    def _take_fit(self) -> Lesson:
        assert self._fit is not None, "asked for while there is one"
        fit, self._fit = self._fit, None
        return fit.result()

    def _apply(self, lesson: Lesson) -> bool:
        """Whether something else is in use now."""
        self.verdict = lesson.verdict or self.verdict
        if lesson.predictor is None:
            return False
        if self.switched_at is None:
            self.switched_at = lesson.num_ended
            log.info("Lengths are learned from %d answers, and used from here on: %s.", lesson.num_ended, self.verdict)
        held_out = self.verdict.to_json() if self.verdict else {}
        lesson.predictor.card = {"learned_by": LEARNED_BY, "switched_at": self.switched_at, **held_out}
        self.learned = lesson.predictor
        if self.on_learned is not None:
            self.on_learned(lesson.predictor)
        return True


def _num_examples(predictor: LengthPredictor | None) -> int:
    """How many answers it learned from, 0 where it doesn't say."""
    learned_from = getattr(predictor, "learned_from", None)
    return learned_from.num_examples if learned_from is not None else 0
