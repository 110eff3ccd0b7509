"""When a run learns from itself, and when it believes what it learned."""

from __future__ import annotations

from dataclasses import dataclass

LEAST = 50  # answers to learn from: of fewer, a third says nothing of the others


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
