"""LengthEstimates: one survival function, whatever is known beside the curve.

The reference in these tests is a slow scalar reading of the module's docstring, not the code's own formulas.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lengthwise.estimates import GRID, MAX_TOKENS, MIN_SURVIVAL, LengthEstimates

COUNTS = st.one_of(
    st.integers(1, 2 * MAX_TOKENS).map(float),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 512.0, float(MAX_TOKENS)]),
    st.sampled_from(GRID.tolist()),
    st.floats(0, 3000, width=32),
)
LIMITS = st.one_of(st.just(math.inf), st.integers(1, 200_000).map(float))


@st.composite
def curves(draw: st.DrawFn) -> NDArray[np.float32]:
    """Falling curves of all kinds: steps, slopes, flats, a jump at 1, an open tail, a fall to 0."""
    places = sorted(draw(st.sets(st.integers(0, len(GRID) - 1), min_size=1, max_size=6)))
    values = sorted(draw(st.lists(st.floats(0, 1, width=32), min_size=len(places), max_size=len(places))), reverse=True)
    if draw(st.booleans()):
        values[-1] = 0.0
    if draw(st.booleans()):
        return np.interp(np.arange(len(GRID)), places, values).astype(np.float32)
    steps = np.searchsorted(places, np.arange(len(GRID)), side="right")
    return np.array([1.0, *values], np.float32)[steps]


def survival_by_hand(curve: NDArray[np.float32], n: float) -> float:
    """S(n) as the module's docstring says it, for one n, in Python floats."""
    if n < 1:
        return 1.0
    log_grid = np.log(GRID.astype(float))
    falls = np.flatnonzero(curve <= MIN_SURVIVAL)
    tail_start = math.inf
    if len(falls) and falls[0] == 0:
        tail_start = 1.0
    elif len(falls):
        right = falls[0]
        before, after = float(curve[right - 1]), float(curve[right])
        share = (before - MIN_SURVIVAL) / (before - after)
        tail_start = math.exp(log_grid[right - 1] + share * (log_grid[right] - log_grid[right - 1]))
    if n >= tail_start:
        return MIN_SURVIVAL * tail_start / n
    return float(np.interp(math.log(n), log_grid, curve.astype(float)))


def of_curve(curve: NDArray[np.float32]) -> LengthEstimates:
    return LengthEstimates.from_survival(curve[None])


def chance(estimates: LengthEstimates, n: float) -> float:
    return float(estimates.exceeds(n)[0])


# -- the survival function -------------------------------------------------------------------------------------


@given(curves(), COUNTS)
def test_exceeds_is_the_curve_then_its_tail(curve: Any, n: float) -> None:
    """P(length > n) is linear in log n between grid points, 1 below one token, and falls as 1/n past MIN_SURVIVAL."""
    assert chance(of_curve(curve), n) == pytest.approx(survival_by_hand(curve, n), abs=2e-5, rel=2e-4)


@given(curves(), st.integers(0, len(GRID) - 1))
def test_grid_points_are_read_exactly(curve: Any, k: int) -> None:
    """At a grid point the answer is the column, where the curve is read at all."""
    if curve[k] > MIN_SURVIVAL:
        assert chance(of_curve(curve), float(GRID[k])) == pytest.approx(curve[k], abs=1e-5)


@given(curves(), st.lists(COUNTS, min_size=2, max_size=6), COUNTS, LIMITS)
def test_exceeds_never_rises(curve: Any, asked: list[float], start: float, limit: float) -> None:
    """A longer answer is never more likely."""
    estimates = of_curve(curve).given(start).capped(limit)
    chances = [chance(estimates, n) for n in sorted(asked)]
    assert all(0 <= c <= 1 for c in chances)
    assert all(b <= a + 1e-6 for a, b in itertools.pairwise(chances))


def test_one_token_is_certain() -> None:
    """An answer has at least one token, even if the curve has no mass above it."""
    short = of_curve(np.zeros(len(GRID), np.float32))
    assert (chance(short, 0), chance(short, 0.99)) == (1, 1)
    assert chance(short, 1) == pytest.approx(MIN_SURVIVAL)
    assert short.median[0] == 1


# -- quantiles -------------------------------------------------------------------------------------------------


@given(curves(), st.floats(0.001, 0.999), COUNTS, LIMITS)
def test_quantile_and_exceeds_are_inverse(curve: Any, q: float, start: float, limit: float) -> None:
    """Just below the q-quantile more than 1 - q is left, just above it no more than that."""
    estimates = of_curve(curve).given(start).capped(limit)
    n = float(estimates.quantile(q)[0])
    slack = 1e-3
    below = min(n * (1 - 1e-5), 1e30)
    assert chance(estimates, below) >= (1 - q) * (1 - slack) or below < start
    if math.isfinite(n):
        assert chance(estimates, n * (1 + 1e-5)) <= (1 - q) * (1 + slack)


@given(curves(), st.floats(0.01, 0.99), st.floats(0.01, 0.99), COUNTS, LIMITS)
def test_quantile_rises_with_q(curve: Any, a: float, b: float, start: float, limit: float) -> None:
    """A higher quantile is never shorter, and all lie between what is there and the limit."""
    estimates = of_curve(curve).given(start).capped(limit)
    low, high = (float(estimates.quantile(q)[0]) for q in sorted((a, b)))
    assert start <= low <= high
    assert high <= limit or start >= limit


def test_median_of_a_known_curve() -> None:
    """A curve that falls evenly in log n from 64 to 256 tokens has its median at 128."""
    curve = np.interp(np.log(GRID), np.log([64, 256]), [1, 0]).astype(np.float32)
    estimates = of_curve(curve)
    assert estimates.median[0] == pytest.approx(128, rel=1e-4)
    assert estimates.quantile(0.25)[0] == pytest.approx(64 * math.sqrt(2), rel=1e-4)
    assert estimates.given(128).median[0] == pytest.approx(128 * math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("q", [0, 1, -0.1, 1.5, math.nan])
def test_a_quantile_lies_between_0_and_1(q: float) -> None:
    """0 and 1 have no quantile here: the error names the value."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        LengthEstimates.unknown(1).quantile(q)


@given(st.lists(curves(), min_size=1, max_size=5), COUNTS, LIMITS, st.randoms(use_true_random=False))
def test_quantiles_are_each_row_s_own(found: list[Any], already: float, limit: float, rng: Any) -> None:
    """A chance a row gives what each row gives alone for its chance."""
    estimates = LengthEstimates.from_survival(found).given(already).capped(limit)
    chances = np.array([rng.uniform(0.001, 0.999) for _ in found])
    alone = [estimates[row].quantile(chance)[0] for row, chance in enumerate(chances)]
    np.testing.assert_array_equal(estimates.quantiles(chances), alone)


# -- narrowing -------------------------------------------------------------------------------------------------


@given(curves(), COUNTS, COUNTS, COUNTS)
def test_given_twice_is_given_the_longer(curve: Any, a: float, b: float, m: float) -> None:
    """given(a).given(b) is given(max(a, b)), in either order."""
    estimates = of_curve(curve)
    both = estimates.given(a).given(b)
    longer = estimates.given(max(a, b))
    assert chance(both, m) == chance(longer, m)
    assert both.median[0] == longer.median[0]
    assert both.mean()[0] == longer.mean()[0]


@given(curves(), COUNTS, COUNTS, COUNTS)
def test_chances_multiply(curve: Any, a: float, b: float, m: float) -> None:
    """P(L > m | L > a) = P(L > b | L > a) · P(L > m | L > b), also where the curve has nothing left at a or b."""
    a, b, m = sorted((a, b, m))
    estimates = of_curve(curve)
    direct = chance(estimates.given(a), m)
    by_way = chance(estimates.given(a), b) * chance(estimates.given(b), m)
    assert direct == pytest.approx(by_way, rel=1e-3, abs=1e-6)


@given(curves(), COUNTS)
def test_given_always_has_mass(curve: Any, start: float) -> None:
    """However long an answer already is, it can go on, and something is expected of it."""
    estimates = of_curve(curve).given(start)
    assert chance(estimates, start) == pytest.approx(1, abs=1e-6)
    assert chance(estimates, 2 * start) > 0
    assert estimates.median[0] >= start
    assert estimates.mean()[0] >= start


def test_an_outlived_curve_doubles() -> None:
    """Half of the answers that outlived their curve at n tokens reach 2n."""
    curve = np.where(GRID < 100, 1, 0).astype(np.float32)
    for n in (150, 1000, 100_000, 200_000):
        assert of_curve(curve).given(n).median[0] == pytest.approx(2 * n, rel=1e-5)


@given(curves(), LIMITS, COUNTS)
def test_the_rest_stands_on_the_limit(curve: Any, limit: float, n: float) -> None:
    """capped(limit) changes nothing below the limit and leaves nothing above it."""
    estimates = of_curve(curve)
    capped = estimates.capped(limit)
    assert chance(capped, n) == (chance(estimates, n) if n < limit else 0)
    left = chance(estimates, limit * (1 - 1e-6)) if math.isfinite(limit) else 0
    if 0.01 < left < 0.99:
        assert capped.quantile(1 - left / 2)[0] == limit


@given(curves(), LIMITS, LIMITS, COUNTS)
def test_the_tighter_limit_holds(curve: Any, a: float, b: float, n: float) -> None:
    """capped(a).capped(b) is capped(min(a, b))."""
    estimates = of_curve(curve)
    assert chance(estimates.capped(a).capped(b), n) == chance(estimates.capped(min(a, b)), n)


@pytest.mark.parametrize("there", [100.0, 101.0, 5000.0])
def test_a_refuted_limit_gives_way(there: float) -> None:
    """An answer that has passed its limit is unlimited until it is capped again."""
    estimates = LengthEstimates.certain([100]).given(there)
    assert estimates.median[0] == math.inf
    assert estimates.capped(8000).median[0] == 8000
    assert estimates.capped(8000).mean()[0] == 8000


def test_a_limit_below_one_token() -> None:
    """A limit of half a token is odd but harmless: the answer has that."""
    estimates = of_curve(np.linspace(1, 0, len(GRID), dtype=np.float32)).capped(0.5)
    assert estimates.median[0] == 0.5
    assert estimates.mean()[0] == 0.5


def test_limits_and_tokens_go_by_row() -> None:
    """`capped` and `given` take one value a row."""
    estimates = LengthEstimates.unknown(3).capped([10, 20, 30]).given([0, 5, 40])
    assert estimates.median.tolist() == [10, 20, math.inf]
    with pytest.raises(ValueError, match="broadcast"):
        LengthEstimates.unknown(1).given([1, 2])


# -- the mean --------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(curves(), COUNTS, LIMITS)
def test_mean_is_the_area_under_the_chances(curve: Any, start: float, limit: float) -> None:
    """E[L | L > start] = start + ∫ P(L > n | L > start) dn up to the limit, at most the grid's end."""
    if start >= min(limit, MAX_TOKENS):
        return
    estimates = of_curve(curve).given(start).capped(limit)
    end = min(limit, MAX_TOKENS)
    points = np.unique(np.concatenate([np.geomspace(max(start, 1), max(end, 1), 20_000), [start, min(1, end), end]]))
    points = points[(points >= start) & (points <= end)].astype(np.float32)
    chances = estimates[np.zeros(len(points), np.intp)].exceeds(points * (1 - 1e-7))
    area = float(np.trapezoid(chances.astype(float), points.astype(float)))
    jump = 1.0 if start < 1 <= end else 0.0  # the fall at one token, which the trapezium smears
    assert estimates.mean()[0] == pytest.approx(start + area, rel=3e-3, abs=0.02 + jump)


def test_mean_of_what_is_known_exactly() -> None:
    """A certain length is its own mean; one that is only limited expects its limit."""
    assert LengthEstimates.certain([1, 7, 131_072]).mean().tolist() == [1, 7, 131_072]
    assert LengthEstimates.unknown(1).capped(512).mean()[0] == pytest.approx(512, rel=1e-5)
    assert LengthEstimates.unknown(1).given(200_000).capped(300_000).mean()[0] == 200_000  # the grid ends before


def test_mean_keeps_cells_apart() -> None:
    """Evenly in log n from 64 to 256: (256 - 64) / ln 4, and the tail past MIN_SURVIVAL adds its known price."""
    curve = np.interp(np.log(GRID), np.log([64, 256]), [1, 0]).astype(np.float32)
    assert of_curve(curve).capped(256).mean()[0] == pytest.approx(192 / math.log(4), rel=1e-3)
    price = MIN_SURVIVAL * 256 * math.log(MAX_TOKENS / 256)
    assert of_curve(curve).mean()[0] == pytest.approx(192 / math.log(4) + price, rel=1e-3)


# -- making ----------------------------------------------------------------------------------------------------


def test_certain_is_exact() -> None:
    """A length known exactly is not smeared over a grid cell."""
    estimates = LengthEstimates.certain([1, 100, 777.0])
    assert estimates.quantile(0.001).tolist() == [1, 100, 777]
    assert estimates.quantile(0.999).tolist() == [1, 100, 777]
    assert estimates.exceeds([0, 99, 777]).tolist() == [1, 1, 0]


@pytest.mark.parametrize("length", [math.nan, 0.0, -5.0, 0.5, math.inf, -math.inf])
def test_impossible_lengths_are_unknown(length: float) -> None:
    """What can't be a length becomes "nothing is known"."""
    assert LengthEstimates.certain([length]).median[0] == math.inf
    assert LengthEstimates.certain([length]).capped(512).median[0] == 512


def test_unknown_expects_the_limit() -> None:
    """Nothing known: every quantile is the limit, so caps cut nothing and order stays as it was."""
    estimates = LengthEstimates.unknown(2)
    assert estimates.quantile(0.01).tolist() == [math.inf, math.inf]
    assert estimates.capped(512).quantile(0.01).tolist() == [512, 512]
    assert estimates.given(100).capped(512).quantile(0.01).tolist() == [512, 512]
    assert estimates.exceeds(MAX_TOKENS * 10).tolist() == [1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        np.full(len(GRID), np.nan),
        np.where(np.arange(len(GRID)) == 5, np.nan, 0.5),
        np.linspace(0, 1, len(GRID)),
        np.linspace(1, -0.1, len(GRID)),
        np.linspace(1.1, 0, len(GRID)),
        np.full(len(GRID), np.inf),
        np.full(len(GRID), -np.inf),
    ],
)
def test_wrong_curves_become_unknown(wrong: Any) -> None:
    """NaN, rising, negative and above-1 curves say nothing; good neighbours stay."""
    good = np.linspace(1, 0, len(GRID))
    estimates = LengthEstimates.from_survival(np.stack([good, wrong, good]))
    assert np.isfinite(estimates.median).tolist() == [True, False, True]
    assert estimates.survival[1].tolist() == [1.0] * len(GRID)


def test_rounding_is_no_rise() -> None:
    """A rise of 1e-6 is rounding: it is flattened, and the row is kept."""
    curve = np.linspace(1, 0, len(GRID), dtype=np.float32)
    curve[7] = curve[6] + np.float32(1e-6)
    assert (np.diff(of_curve(curve).survival[0]) <= 0).all()
    assert np.isfinite(of_curve(curve).median[0])


def test_from_survival_takes_its_own_copy() -> None:
    """A caller's array is neither changed nor read later."""
    mine = np.full((1, len(GRID)), np.nan, np.float32)
    estimates = LengthEstimates.from_survival(mine)
    assert np.isnan(mine).all()
    mine[:] = 0
    assert estimates.survival.min() == 1


def test_a_curve_of_another_grid_is_refused() -> None:
    """A wrong number of grid points is the caller's error, not a wrong estimate."""
    with pytest.raises(ValueError, match="grid points"):
        LengthEstimates.from_survival(np.ones((2, 10)))


# -- rows ------------------------------------------------------------------------------------------------------


def _three() -> LengthEstimates:
    return LengthEstimates.certain([10, 20, 30])


def test_rows_are_views() -> None:
    """One row, a slice, a list, a mask and a numpy integer pick what they name; slices share memory."""
    rows = _three()
    assert rows[1].median.tolist() == [20]
    assert rows[-1].median.tolist() == [30]
    assert rows[np.int64(2)].median.tolist() == [30]
    assert rows[[2, 0]].median.tolist() == [30, 10]
    assert rows[1:].median.tolist() == [20, 30]
    assert rows[np.array([True, False, True])].median.tolist() == [10, 30]
    curve = of_curve(np.linspace(1, 0, len(GRID), dtype=np.float32))
    assert np.shares_memory(curve[0].survival, curve.survival)


def test_iteration_ends() -> None:
    """Rows can be iterated over, and a row that is not there is an IndexError."""
    assert [float(row.median[0]) for row in _three()] == [10, 20, 30]
    with pytest.raises(IndexError):
        _three()[3]


def test_rows_are_independent_of_their_neighbours() -> None:
    """A row asked alone answers as in a batch."""
    rng = np.random.default_rng(0)
    all_rows = LengthEstimates.from_survival(-np.sort(-rng.random((50, len(GRID))), axis=1)).given(3).capped(5000)
    for name in ("median", "mean"):
        batch = all_rows.median if name == "median" else all_rows.mean()
        alone = [row.median[0] if name == "median" else row.mean()[0] for row in all_rows]
        np.testing.assert_allclose(batch, alone, rtol=1e-6)


def test_concatenate_keeps_order() -> None:
    """Rows of parts, in order; no parts make no rows."""
    joined = LengthEstimates.concatenate([_three(), LengthEstimates.unknown(1), _three()[:1]])
    assert joined.median.tolist() == [10, 20, 30, math.inf, 10]
    assert len(LengthEstimates.concatenate([])) == 0


def test_no_rows() -> None:
    """Zero requests have zero estimates, through every method."""
    for empty in (LengthEstimates.unknown(0), LengthEstimates.certain([]), _three()[:0]):
        asked = empty.given(5).capped(10)
        assert len(asked) == len(asked.median) == len(asked.mean()) == len(asked.exceeds(3)) == 0
    assert len(LengthEstimates.from_survival(np.empty((0, len(GRID))))) == 0


def test_everything_is_float32() -> None:
    """Columns and answers are float32, whatever comes in."""
    estimates = LengthEstimates.from_survival(np.linspace(1, 0, len(GRID))).given(3).capped(np.float64(100))
    answers = (estimates.survival, estimates.at_least, estimates.limit, estimates.median, estimates.mean())
    assert {a.dtype for a in (*answers, estimates.exceeds(5))} == {np.dtype(np.float32)}


def test_nothing_is_changed_in_place() -> None:
    """Narrowing returns new objects; the old one answers as before."""
    estimates = _three()
    estimates.capped(5)
    estimates.given(25)
    assert estimates.median.tolist() == [10, 20, 30]


@pytest.mark.filterwarnings("error")
def test_no_warnings_at_the_edges() -> None:
    """Infinite questions, the grid's end and open tails answer without a numpy warning."""
    for estimates in (LengthEstimates.unknown(1), of_curve(np.linspace(1, 0, len(GRID), dtype=np.float32)), _three()):
        for n in (0.0, 1.0, float(MAX_TOKENS), 1e9, math.inf):
            assert (estimates.exceeds(n) <= 1).all()
        assert (estimates.given(1e9).mean() >= 1e9).all()
