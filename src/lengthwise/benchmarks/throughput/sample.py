"""What one run of one contender took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Span = tuple[float, float]  # seconds: when a request came into a row, and left it


@dataclass(frozen=True, slots=True)
class Sample:
    """One run, from the requests' texts to the last answer: tokenisation and prediction are part of `wall_s`. None:
    this contender doesn't tell.

    `computed_positions` counts a row in a decode step, whether its token was of use. `num_put_back` counts rows that
    left unfinished, to go on later. `peak_bytes` is the resident memory of the process that computes (on a GPU, what
    torch has allocated there) at its highest, `grown_bytes` what of it came in this run.
    """

    wall_s: float
    lengths: Mapping[str, int] = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)
    computed_positions: int | None = None
    recomputed_tokens: int | None = 0
    predict_s: float = 0.0
    num_put_back: int | None = 0
    num_errors: int = 0
    spans: Sequence[Span] = field(default=(), repr=False)
    peak_bytes: int | None = None
    grown_bytes: int | None = None

    @property
    def num_requests(self) -> int:
        return len(self.lengths) + self.num_errors

    @property
    def requests_per_s(self) -> float:
        """Of those that were answered."""
        return len(self.lengths) / self.wall_s

    @property
    def useful_tokens(self) -> int:
        return sum(self.lengths.values())

    @property
    def useful_tokens_per_s(self) -> float:
        return self.useful_tokens / self.wall_s

    @property
    def useful_share(self) -> float | None:
        """The paper's effective token ratio: real output tokens over computed decode positions."""
        return None if self.computed_positions is None else self.useful_tokens / max(1, self.computed_positions)

    @property
    def put_back_share(self) -> float | None:
        """Rows put back for each request."""
        return None if self.num_put_back is None else self.num_put_back / max(1, self.num_requests)

    @property
    def num_slots(self) -> int | None:
        """The most requests that ran at once."""
        return most_at_once(self.spans) if self.spans else None

    @property
    def idle_share(self) -> float | None:
        """Of the slots' time, from the first start to the last answer, what no unfinished request filled."""
        if not self.spans:
            return None
        slots_s = (self.wall_s - min(start for start, _ in self.spans)) * most_at_once(self.spans)
        return 1 - sum(end - start for start, end in self.spans) / slots_s


def most_at_once(spans: Sequence[Span]) -> int:
    """Who leaves makes room before another comes."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    num = most = 0
    for _, change in changes:
        num += change
        most = max(most, num)
    return most


def batch_spans(started_s: float, ended_s: float, lengths: Sequence[int], num_steps: int) -> list[Span]:
    """Of a batch that ran `num_steps` steps: a row of `lengths` tokens had ended at its share of them."""
    return [(started_s, started_s + (ended_s - started_s) * length / num_steps) for length in lengths]
