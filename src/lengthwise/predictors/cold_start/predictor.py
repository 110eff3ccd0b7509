"""The predictor of a run for whose model none was trained: it learns from the run's own first answers.

Until it has learned, nothing is known, so nothing is cut, and requests start in a random order: what was started is
then a random sample of what was read, also where a file is sorted by something. It learns when 100, 200, 400, ... of
them have ended, and is used as soon as it tells more of held-out answers than their distribution does, by a test that
pure noise rarely passes. From there on the order depends on prompts, and what was started is a random sample no more;
but it does not depend on answers, so regressions on prompts stay right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.predictors.cold_start.cohort import Cohort, Examples
from lengthwise.predictors.cold_start.trial import Verdict, judge
from lengthwise.predictors.terms import prompt_text
from lengthwise.protocols import LengthPredictor
from lengthwise.types import Completion, Request

if TYPE_CHECKING:
    from lengthwise.predictors.text.predictor import TextPredictor

log = logging.getLogger("lengthwise")

LEAST = 50  # answers to learn from: of fewer, a third says nothing of the others
LEARNED_BY = "run"  # in the card of a predictor that a run taught itself


@dataclass(frozen=True)
class ColdStartConfig:
    """When a run learns from itself. Raises ValueError on a value out of range."""

    first_answers: int = 100  # ended ones when it learns first, then at each double; fewer rarely show a gain
    max_answers: int = 3_200  # ended ones when it learns last while it runs: a fit of these is a pause of a second
    max_examples: int = 5_000  # kept and learned from at the end: 40 MB of prompts at most
    num_folds: int = 3  # each third of the answers judges what was learned from the others
    max_judged_by_all: int = 1_000  # answers; of more, one third alone judges
    # Standard errors. Vicuna's lengths shuffled, 60 jobs, looks at 100, 200 and 400 answers: three looks of 180 passed
    # 2.5, one 3.0, none 3.5 (most 3.44). Raised to this after one of 40 other jobs had passed 2.5 with 3.42. True
    # lengths pass in 3 of 24 jobs at 100 answers, in 16 at 200, in all at 400.
    min_gain: float = 3.5
    min_share_ended: float = 0.95  # of a cohort where nobody tells progress: one that hangs holds nothing up
    in_background: bool = False  # fit in a thread. Only where another process answers: beside an engine in this one,
    # on two cores, a fit slowed the engine by as much as it takes alone

    def __post_init__(self) -> None:
        least_of = dict.fromkeys(("first_answers", "max_answers", "max_examples"), LEAST) | {"num_folds": 2}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        if not 0 < self.min_share_ended <= 1:
            raise ValueError(f"min_share_ended is {self.min_share_ended}; a share lies above 0 and is at most 1.")


@dataclass(frozen=True)
class _Lesson:
    """What came of learning once. `predictor` None: it told no more than the distribution."""

    predictor: TextPredictor | None
    verdict: Verdict | None  # None: not judged, it was good enough before
    num_ended: int


@dataclass(eq=False)
class ColdStartPredictor:
    """See the module. `model` is the identity of the model whose answers it learns from.

    `learned` is what is used: None as long as nothing is; it may be given, from a former run of the same model, and
    stays until as much is known anew. `on_learned` is called with what comes into use, in the thread that drives the
    run.
    """

    model: str | None
    config: ColdStartConfig = ColdStartConfig()
    seed: int = 0
    learned: LengthPredictor | None = None
    on_learned: Callable[[TextPredictor], None] | None = None
    verdict: Verdict | None = None  # the last one
    switched_at: int | None = None  # answers that had ended when what was learned here came into use
    _cohort: Cohort = field(init=False)
    _next: int = field(init=False)  # how many must have ended before it learns again
    _fit: Future[_Lesson] | None = None

    def __post_init__(self) -> None:
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
            self._apply(self._study(examples, self._cohort.num_ended, is_last=True))
        if self.verdict is not None and self.learned is None:
            log.info("%d answers showed no gain by their prompts: lengths were not used.", self._cohort.num_ended)

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
            return self._apply(self._study(examples, num_ended))
        threads = ThreadPoolExecutor(1, "lengthwise-learning")
        self._fit = threads.submit(self._study, examples, num_ended)
        threads.shutdown(wait=False)
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

    def _take_fit(self) -> _Lesson:
        assert self._fit is not None, "asked for while there is one"
        fit, self._fit = self._fit, None
        return fit.result()

    def _study(self, examples: Examples, num_ended: int, is_last: bool = False) -> _Lesson:
        """What is learned from the examples; judged until it was good enough once."""
        if len(examples) < LEAST:  # most of those that were started failed
            return _Lesson(None, None, num_ended)
        try:
            verdict = self._judge(examples) if self.switched_at is None else None
            if verdict is not None and verdict.gain < self.config.min_gain:
                return _Lesson(None, verdict, num_ended)
            return _Lesson(self._fitted(examples, is_last), verdict, num_ended)
        except PredictorError as error:  # too few different prompts, no common words
            log.debug("Nothing was learned from %d answers: %s", num_ended, error)
            return _Lesson(None, None, num_ended)

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

    def _apply(self, lesson: _Lesson) -> bool:
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
