"""The stack: what others say, put together and corrected, and never worse for what it doesn't know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from lengthwise.errors import PredictorError
from lengthwise.estimates import LengthEstimates
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.correction import opened, scaled
from lengthwise.predictors.provenance import Provenance
from lengthwise.predictors.saved import load_predictor, needs_backbone
from lengthwise.predictors.stack.columns import Said
from lengthwise.predictors.stack.fit import Answers, ShrinkConfig, _left_over, fit_stack
from lengthwise.predictors.stack.predictor import StackPredictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.protocols import LengthPredictor
from lengthwise.testing import check_predictor
from lengthwise.types import Completion, Request

THINGS = [
    f"{adjective} {noun}" for adjective in ("red", "old", "big", "odd") for noun in ("lamp", "river", "coin", "map")
]
OPENINGS = {"Write a story about a {}.": 300, "What is a {}?": 12, "List five uses of a {}.": 80, "Explain a {}.": 150}
REQUESTS = [
    Request(f"{t}-{o}", opening.format(thing)) for t, thing in enumerate(THINGS) for o, opening in enumerate(OPENINGS)
]
NOISE = np.exp(np.random.default_rng(0).normal(0, 0.25, len(REQUESTS)))
LENGTHS = np.maximum(np.tile(list(OPENINGS.values()), len(THINGS)) * NOISE, 1).round()
PROVENANCE = Provenance("m", len(REQUESTS), 0, "answer", 0, (), "0", "0")


def folds(num: int, num_folds: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(num)
    return [(rows[rows % num_folds != fold], rows[rows % num_folds == fold]) for fold in range(num_folds)]


def stacked(
    bases: Sequence[LengthPredictor],
    requests: Sequence[Request] = REQUESTS,
    lengths: np.ndarray = LENGTHS,
    is_cut: np.ndarray | None = None,
    config: ShrinkConfig | None = None,
) -> StackPredictor:
    """A stack of bases that are taken not to have seen these requests."""
    cut = np.zeros(len(requests), bool) if is_cut is None else is_cut
    answers = Answers(lengths.astype(float), cut, np.arange(len(requests)))
    estimates = [base.predict(requests) for base in bases]
    weights = fit_stack(estimates, requests, answers, folds(len(requests)), config or ShrinkConfig())
    return StackPredictor(bases, weights, PROVENANCE)


class Foreign:
    """A base of another model: right by a factor, with noise, and silent about some."""

    model: str | None = "another"

    def __init__(self, factor: float = 1, noise: float = 0.0, silent: Sequence[str] = ()) -> None:
        self.factor, self.noise, self.silent = factor, noise, set(silent)

    def predict(self, requests: Sequence[Request]) -> LengthEstimates:
        rows = []
        for request in requests:
            known = [tokens for opening, tokens in OPENINGS.items() if request.text.startswith(opening[:6])]
            rng = np.random.default_rng(sum(request.text.encode()))
            median = self.factor * (known[0] if known else 60) * np.exp(rng.normal(0, self.noise))
            rows.append(ConstantPredictor.fit(median * np.exp(np.linspace(-0.5, 0.5, 21)) + 1).predict([request]))
        found = LengthEstimates.concatenate(rows)
        is_silent = np.array([request.id in self.silent for request in requests], bool)
        return LengthEstimates.from_survival(np.where(is_silent[:, None], 1, found.survival))

    def observe(self, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        pass


def error(predictor: LengthPredictor, requests: Sequence[Request], lengths: np.ndarray) -> float:
    return float(np.abs(predictor.predict(requests).median - lengths).mean())


@pytest.fixture(scope="module")
def text() -> TextPredictor:
    return TextPredictor.fit(REQUESTS, LENGTHS, model="m")


def test_a_stack_keeps_the_contract(text: TextPredictor) -> None:
    """Odd prompts, order and batches, saving and loading: of two bases, one of them a text predictor."""
    check_predictor(stacked([text, ConstantPredictor.fit(LENGTHS)]), REQUESTS[:12])


def test_a_factor_is_learned_and_the_order_kept() -> None:
    """A base whose lengths are thrice too short is moved: the error falls, and the order is as good."""
    base = Foreign(factor=1 / 3, noise=0.3)
    stack = stacked([base])
    assert error(stack, REQUESTS, LENGTHS) < 0.6 * error(base, REQUESTS, LENGTHS)
    before, after = (kendalltau(one.predict(REQUESTS).median, LENGTHS).statistic for one in (base, stack))
    assert after > before - 0.02


def test_two_bases_are_better_than_either() -> None:
    """Their noise averages out."""
    one, other = Foreign(noise=0.5), Foreign(factor=1.2, noise=0.5)
    other.predict = lambda requests, said=other.predict: said([Request(r.id, r.text + " ") for r in requests])  # type: ignore[method-assign]
    alone = min(error(stacked([base]), REQUESTS, LENGTHS) for base in (one, other))
    assert error(stacked([one, other]), REQUESTS, LENGTHS) < alone


def test_intervals_hold_what_they_say() -> None:
    """A base that is far too sure of itself becomes as unsure as it should be, on prompts that were not fitted on."""
    rng = np.random.default_rng(1)
    requests = [Request(str(i), f"What is {i}?") for i in range(600)]
    lengths = np.exp(rng.normal(np.log(60), 0.6, 600)).round().clip(1)
    sure = ConstantPredictor.fit(np.exp(rng.normal(np.log(60), 0.1, 200)))
    stack = stacked([sure], requests[:300], lengths[:300])
    estimates = stack.predict(requests[300:])
    inside = (lengths[300:] >= estimates.quantile(0.05)) & (lengths[300:] <= estimates.quantile(0.95))
    assert 0.84 <= inside.mean() <= 0.96
    narrow = sure.predict(requests[300:])
    assert ((lengths[300:] >= narrow.quantile(0.05)) & (lengths[300:] <= narrow.quantile(0.95))).mean() < 0.4


def test_cut_answers_count_as_at_least() -> None:
    """With half of the answers cut at 100 tokens, long ones are still expected beyond it; taken for lengths they would
    not be."""
    base = Foreign(factor=1 / 2)
    is_cut = LENGTHS >= 100
    cut = np.minimum(LENGTHS, 100)
    long = np.array([request.text.startswith("Write") for request in REQUESTS])
    honest = stacked([base], lengths=cut, is_cut=is_cut).predict(REQUESTS).median[long].mean()
    fooled = stacked([base], lengths=cut).predict(REQUESTS).median[long].mean()
    assert honest > 1.2 * fooled
    assert honest > 100


def test_what_a_cut_answer_stands_for_lies_beyond_its_cut() -> None:
    """By how far the answers that were not cut lie from what was said of them; those stay what they are."""
    rng = np.random.default_rng(2)
    lengths = np.exp(rng.normal(4, 0.5, 400))
    is_cut = lengths > 60
    said = Said.of([ConstantPredictor.fit(lengths).predict([Request(str(i), "p") for i in range(400)])])
    seen = np.minimum(lengths, 60)
    left = _left_over(said, Answers(seen, is_cut, np.arange(400)))
    as_it_stands = np.log(seen) - said.average
    assert left[~is_cut] == pytest.approx(as_it_stands[~is_cut])
    assert (left[is_cut] > as_it_stands[is_cut] + 0.05).all()


def test_a_base_that_is_mere_noise_is_given_less_to_say() -> None:
    """With many answers the correction leans to the base that knows; averaged alone, the other would do harm."""
    rng = np.random.default_rng(3)
    requests = [Request(f"{i}", f"{list(OPENINGS)[i % 4].format(i)}") for i in range(400)]
    lengths = np.tile(list(OPENINGS.values()), 100) * np.exp(rng.normal(0, 0.2, 400))
    bases = [Foreign(), Foreign(noise=1.5)]
    plain = ShrinkConfig(base_weight=0, structure_weight=0, term_weight=0)
    leaning = ShrinkConfig(structure_weight=0, term_weight=0)
    averaged, stack = (stacked(bases, requests, lengths, config=one) for one in (plain, leaning))
    assert error(stack, requests, lengths) < 0.8 * error(averaged, requests, lengths)


def test_what_one_base_does_not_know_the_other_says() -> None:
    """A silent base takes no part; where all are silent, all lengths that were learned from stand in."""
    silent = [request.id for request in REQUESTS[::3]]
    stack = stacked([Foreign(silent=silent), Foreign(factor=2, silent=[REQUESTS[0].id])])
    medians = stack.predict(REQUESTS).median
    assert np.isfinite(medians).all()
    assert kendalltau(medians[3::3], LENGTHS[3::3]).statistic > 0.6
    marginal = ConstantPredictor.fit(LENGTHS).predict(REQUESTS[:1]).median[0]
    assert medians[0] == pytest.approx(marginal, rel=0.01)


def test_lengths_known_exactly_have_no_part_in_it() -> None:
    """A limit is no curve: such a base counts as silent."""
    exact = LengthEstimates.certain([5.0])
    said = Said.of([exact, ConstantPredictor.fit(LENGTHS).predict(REQUESTS[:1])])
    assert np.isnan(said.log_medians[0, 0])
    assert said.estimates.median[0] == pytest.approx(np.exp(said.log_medians[0, 1]), rel=1e-5)


@pytest.mark.parametrize("base", [UnknownPredictor(), ConstantPredictor.of_length(7)])
def test_nothing_can_be_made_of_nothing(base: LengthPredictor) -> None:
    """Bases that know no distribution are refused, with the numbers."""
    with pytest.raises(PredictorError, match=r"20 prompts or more.*there are 0"):
        stacked([base])


def test_too_few_answers_are_refused() -> None:
    """Nineteen say nothing of the outer tenths."""
    with pytest.raises(PredictorError, match="there are 19"):
        stacked([Foreign()], REQUESTS[:19], LENGTHS[:19])


def test_a_weight_of_nothing_leaves_a_group_out() -> None:
    """Without weights only one factor, and chances, are learned: medians keep the base's order exactly."""
    base = Foreign(factor=1 / 3, noise=0.3)
    config = ShrinkConfig(base_weight=0, structure_weight=0, term_weight=0)
    stack = stacked([base], config=config)
    assert not stack.weights.vocabulary
    assert kendalltau(stack.predict(REQUESTS).median, base.predict(REQUESTS).median).statistic > 0.99


def test_observing_reaches_the_bases() -> None:
    """A base that learns while a job runs goes on learning inside a stack."""
    base = Foreign()
    seen: list[int] = []
    base.observe = lambda requests, completions: seen.append(len(requests))  # type: ignore[method-assign]
    stacked([base]).observe(REQUESTS[:3], [Completion(r.id, "", "stop") for r in REQUESTS[:3]])
    assert seen == [3]


@pytest.fixture
def saved(text: TextPredictor, tmp_path: Path) -> Path:
    stacked([text]).save(tmp_path / "stack")
    return tmp_path / "stack"


def test_a_saved_stack_loads_by_its_folder(saved: Path) -> None:
    """With all that is inside, and without a language model where no base needs one."""
    assert isinstance(load_predictor(saved), StackPredictor)
    assert not needs_backbone(saved)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("arrays.safetensors", b"\x80\x04junk"),
        ("base-0/predictor.json", b"{}"),
        ("vocabulary.txt", b"one more term"),
    ],
)
def test_a_damaged_folder_is_an_error(saved: Path, name: str, content: bytes) -> None:
    """Each part that is not what was saved."""
    (saved / name).write_bytes(content)
    with pytest.raises(PredictorError):
        load_predictor(saved)


def test_a_term_that_stands_twice_is_an_error(saved: Path) -> None:
    """Also where there are as many as there should be."""
    first, second, *others = (saved / "vocabulary.txt").read_text().split("\n")
    assert first != second
    (saved / "vocabulary.txt").write_text("\n".join([first, first, *others]))
    with pytest.raises(PredictorError, match="twice"):
        load_predictor(saved)


@pytest.mark.parametrize("num", [0, -1, 2, 10**9, "1", None])
def test_a_wrong_number_of_bases_is_an_error(saved: Path, num: object) -> None:
    """Also one that would make it look for folders without end."""
    header = json.loads((saved / "predictor.json").read_text())
    (saved / "predictor.json").write_text(json.dumps({**header, "num_bases": num}))
    with pytest.raises(PredictorError):
        load_predictor(saved)


def test_a_base_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(PredictorError, match="can't be saved"):
        stacked([Foreign()]).save(tmp_path / "stack")
    assert not (tmp_path / "stack").exists()


def test_rows_are_moved_each_by_its_own() -> None:
    """One octave doubles a row's median, and none leaves it."""
    curves = ConstantPredictor.fit(LENGTHS).predict(REQUESTS[:3])
    moved = scaled(curves, [0, 1, -1]).median / curves.median
    assert moved == pytest.approx([1, 2, 0.5], rel=0.02)
    assert (opened(curves).exceeds(5_000) > 0).all()
