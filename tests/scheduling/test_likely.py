"""What is kept of an estimate: a few equally likely lengths."""

from __future__ import annotations

import numpy as np

from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.likely import NUM_DRAWS, UNKNOWN, LikelyRows, more_tokens
from lengthwise.types import WaitingRequest
from tests.scheduling.worlds import curve

LIMIT = 512


def rows(estimates: LengthEstimates, num_tokens: int = 0) -> LikelyRows:
    requests = [WaitingRequest(f"r{i}", 5, LIMIT, num_tokens) for i in range(len(estimates))]
    return LikelyRows.of(requests, estimates.given(num_tokens).capped(LIMIT), np.random.default_rng(0))


def test_draws_are_those_of_the_estimate():
    """Of each row one from each sixteenth of its distribution; over many rows the shares beyond any length are right,
    rare ones too."""
    estimates = LengthEstimates.from_survival([curve(60.0)] * 4000).capped(LIMIT)
    found = rows(estimates)
    for n in (10, 60, 200, 400):
        share = (found.ends > n).mean()
        assert abs(share - estimates[0].exceeds(n)[0]) < 0.003, n
    median = estimates[0].quantile(0.5)[0]
    assert ((found.ends <= np.ceil(median)).sum(axis=1) >= NUM_DRAWS // 2).all()


def test_draws_of_two_rows_have_nothing_to_do_with_each_other():
    """A column is a job as it may come: not all of it long at once."""
    found = rows(LengthEstimates.from_survival([curve(60.0)] * 500).capped(LIMIT))
    assert found.ends.mean(axis=0).std() < 0.15 * found.ends.mean()


def test_known_lengths_are_drawn_as_they_are():
    """And what is not known goes to its limit, and has no place in an order."""
    certain = rows(LengthEstimates.certain([7, 90]))
    assert (certain.ends == [[7], [90]]).all()
    assert certain.expected_tokens.tolist() == [7, 90]
    unknown = rows(LengthEstimates.unknown(2))
    assert (unknown.ends == LIMIT).all()
    assert unknown.expected_tokens.tolist() == [UNKNOWN, UNKNOWN]


def test_an_answer_that_goes_on_is_longer_than_it_is():
    """Draws are given the tokens so far."""
    found = rows(LengthEstimates.from_survival([curve(20.0)] * 50), num_tokens=100)
    assert (found.more_tokens > 0).all()
    assert (found.held_tokens == 105).all()


def test_what_outlived_a_draw_has_refuted_it():
    """And what outlived all goes on to its limit."""
    ends = np.array([[10, 20, 30], [10, 10, 10]])
    more = more_tokens(ends, np.array([15, 15]), np.array([100, 100]))
    assert more.tolist() == [[0, 5, 15], [85, 85, 85]]


def test_no_requests_are_no_rows():
    """An empty piece of a stream."""
    assert len(rows(LengthEstimates.unknown(0))) == 0
