"""What a run tells a predictor that learns while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import TypeVar

from lengthwise.protocols import Learner, LengthPredictor
from lengthwise.types import Request

log = logging.getLogger("lengthwise")

Result = TypeVar("Result")


class Lessons:
    """Passes a run's news to its predictor, where that is a Learner. One that fails is told nothing more: that costs
    accuracy, never an answer."""

    def __init__(self, predictor: LengthPredictor) -> None:
        self._learner: Learner | None = predictor if isinstance(predictor, Learner) else None
        self._tell(lambda learner: learner.begin_run(), None)

    @property
    def are_heard(self) -> bool:
        return self._learner is not None

    def starting_order(self, num: int) -> Sequence[int] | None:
        return self._tell(lambda learner: _permutation(learner.starting_order(num), num), None)

    def begin(self, request: Request) -> None:
        self._tell(lambda learner: learner.begin(request), None)

    def lose(self, request_id: str) -> None:
        self._tell(lambda learner: learner.lose(request_id), None)

    def learn(self, written: Callable[[], Mapping[str, int]] | None) -> bool:
        """Whether what waits should be estimated anew."""
        return self._tell(lambda learner: learner.learn(written), False)

    def _tell(self, news: Callable[[Learner], Result], otherwise: Result) -> Result:
        if self._learner is None:
            return otherwise
        try:
            return news(self._learner)
        except Exception:
            log.warning("%s could not learn; going on.", type(self._learner).__name__, exc_info=True)
            self._learner = None
            return otherwise


def _permutation(order: Sequence[int] | None, num: int) -> Sequence[int] | None:
    """Raises ValueError or TypeError where the order leaves out a request, or has one twice."""
    if order is None:
        return None
    places = [index(place) for place in order]
    if sorted(places) != list(range(num)):
        raise ValueError(f"Its starting order of {num} requests is no permutation of their places.")
    return places
