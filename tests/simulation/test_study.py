"""Guesses of any quality, the study that compares policies, and the command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lengthwise.cli import main
from lengthwise.cli.simulate_cost import CostBasis, cost_basis
from lengthwise.costs import StepCost
from lengthwise.errors import InputError, UsageError
from lengthwise.simulation.guesses import ClassErrors, exact, kendall_tau, of_tau
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import BASE
from lengthwise.simulation.study import (
    Ratio,
    Study,
    StudyConfig,
    guess_exactly,
    guess_nothing,
    guess_of_tau,
    interval,
    starts_to_pay,
    verdict,
)
from lengthwise.simulation.workload import Workload

LENGTHS = np.clip(np.random.default_rng(0).lognormal(4.6, 0.8, 3000), 1, 512).astype(np.int64)


class TestGuesses:
    @pytest.mark.parametrize("tau", [0.0, 0.2, 0.6, 0.9, 1.0])
    def test_tau_is_what_was_asked_for(self, tau: float):
        guess = of_tau(LENGTHS, tau, np.random.default_rng(1))
        assert kendall_tau(guess, LENGTHS) == pytest.approx(tau, abs=0.01)

    @pytest.mark.parametrize("tau", [0.0, 0.3, 0.7])
    def test_it_is_as_wide_as_it_is_unsure(self, tau: float):
        """Eight of ten lengths lie in the middle eight tenths, whatever the quality."""
        guess = of_tau(LENGTHS, tau, np.random.default_rng(1))
        inside = (guess.quantile(0.1) < LENGTHS) & (guess.quantile(0.9) >= LENGTHS)
        assert inside.mean() == pytest.approx(0.8, abs=0.03)

    def test_out_of_reach_is_told(self):
        with pytest.raises(UsageError, match="out of reach"):
            of_tau(LENGTHS, 1.2, np.random.default_rng(0))

    def test_equal_lengths_have_no_order(self):
        guess = of_tau(np.full(50, 7), 0.5, np.random.default_rng(0))
        assert kendall_tau(guess, np.full(50, 7)) == 0
        assert guess.median == pytest.approx(7, rel=0.2)

    def test_recorded_classes(self, tmp_path: Path):
        """A recorded predictor asked of another log: its order is as good there, and each class says what its requests
        there have."""
        rng = np.random.default_rng(3)
        recorded = rng.integers(1, 1000, 4000)
        classes = np.clip((recorded + rng.normal(0, 200, 4000)) // 200, 0, 4).astype(int)
        rows = "".join(f"{length},{one}\n" for length, one in zip(recorded, classes, strict=True))
        (tmp_path / "classes.csv").write_text("output_tokens,pred_multiclass\n" + rows)
        errors = ClassErrors.read(tmp_path / "classes.csv")
        guess = errors.draw(LENGTHS, rng)
        from scipy.stats import kendalltau

        assert kendall_tau(guess, LENGTHS) == pytest.approx(kendalltau(classes, recorded).statistic, abs=0.03)
        assert len(np.unique(guess.mean())) == 5
        inside = (guess.quantile(0.1) < LENGTHS) & (guess.quantile(0.9) >= LENGTHS)
        assert inside.mean() == pytest.approx(0.8, abs=0.04)

    def test_a_wrong_class_is_told_with_its_line(self, tmp_path: Path):
        path = tmp_path / "classes.csv"
        path.write_text("output_tokens,pred_multiclass\n5,1\n5,short\n")
        with pytest.raises(InputError, match="line 3"):
            ClassErrors.read(path)


def log(num: int = 1500) -> Workload:
    gaps = np.random.default_rng(2).exponential(1.0, num)
    return Workload.of(gaps.cumsum(), 20, LENGTHS[:num])


def study(load: float | None, guess=guess_exactly, names: tuple[str, ...] = (BASE, "promise:1", "ratio")) -> Study:
    model = EngineModel(4, cost=StepCost(0.02, 0.001))
    return Study(log(), guess, StudyConfig(model, names, num_seeds=3, max_requests=500, load=load))


class TestStudy:
    def test_a_full_engine_gains(self):
        """Beyond its load somebody always waits: who, is worth a third of the mean latency and more."""
        busy = study(1.1)
        said = verdict(busy.compare(busy.config.policies))
        assert said.is_gain
        assert said.ratio.mean < 0.8
        assert said.ratio.ci95[1] < 1

    def test_an_empty_engine_does_not(self):
        """Where nobody waits, no order helps; and nothing is made up."""
        idle = study(0.1)
        said = verdict(idle.compare(idle.config.policies))
        assert not said.is_gain
        assert said.ratio.mean == pytest.approx(1, abs=0.01)

    def test_knowing_nothing_gains_nothing(self):
        busy = study(1.1, guess_nothing)
        found = busy.compare(busy.config.policies)
        assert (found["promise:1"].columns["mean_latency_s"] == found[BASE].columns["mean_latency_s"]).all()
        assert not verdict(found).is_gain

    def test_a_gain_that_others_pay_for_is_none(self):
        """Plain shortest first has the best mean and a tail far beyond arrival order's: it is not advised."""
        busy = study(1.1, names=(BASE, "shortest"))
        found = busy.compare(busy.config.policies)
        assert Ratio.of(found["shortest"], found[BASE], "mean_latency_s").is_gain
        assert verdict(found).name is None

    def test_it_pays_from_a_load_on(self):
        """The gain grows with the load; from where, is said."""
        ratios = study(None).by_load("promise:1", (0.3, 0.9, 1.2))
        assert ratios[0.3].mean > ratios[0.9].mean > ratios[1.2].mean
        assert starts_to_pay(ratios) in (0.9, 1.2)

    def test_a_better_predictor_gains_more(self):
        ratios = study(1.1).by_tau("promise:1", (0.1, 0.5, 0.9))
        assert ratios[0.1].mean > ratios[0.5].mean > ratios[0.9].mean
        assert starts_to_pay({0.1: ratios[0.1]}) in (None, 0.1)

    def test_where_it_never_pays(self):
        """A gain that grows less again is no start, nor is one that may be an accident, or that is tiny."""
        paying = Ratio(0.9, (0.8, 0.95))
        assert starts_to_pay({0.5: paying, 0.9: paying}) == 0.5
        assert starts_to_pay({0.5: paying, 0.9: Ratio(0.9, (0.8, 1.01))}) is None
        assert starts_to_pay({0.5: paying, 0.9: Ratio(0.99, (0.98, 0.995))}) is None

    def test_draws_differ_and_repeat(self):
        """The first is the log itself; the same seed is the same draw."""
        one = study(0.9)
        assert (one.draw(1).output_tokens != one.draw(2).output_tokens).any()
        assert (one.draw(1).arrival_s == one.draw(1).arrival_s).all()
        whole = Study(log(), guess_of_tau(0.5), StudyConfig(max_requests=5000))
        assert (whole.draw(0).output_tokens == log().output_tokens).all()

    def test_one_draw_has_no_interval(self):
        assert interval(np.array([1.0])) is None
        low, high = interval(np.random.default_rng(0).normal(5, 1, 100))
        assert 4.6 < low < 5 < high < 5.4


class TestCommand:
    @pytest.fixture
    def trace(self, tmp_path: Path) -> Path:
        path = tmp_path / "trace.csv"
        rows = zip(log(400).arrival_s, LENGTHS, strict=False)
        path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{at},20,{n}\n" for at, n in rows))
        return path

    def said(self, capsys, *arguments: str) -> dict:
        assert main(["simulate", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    def test_busy_and_idle(self, trace: Path, capsys):
        """One line of JSON: figures and intervals by policy, and the verdict with its ratio."""
        quick = ("--slots", "2", "--seeds", "3", "--requests", "200", "--policy", "promise:1", "--predictor", "oracle")
        busy = self.said(capsys, str(trace), "--load", "1.3", *quick)
        assert busy["verdict"] == "gain"
        assert busy["ratio"] < 0.9
        assert busy["ratio_ci95"][0] <= busy["ratio"] <= busy["ratio_ci95"][1]
        assert set(busy["policies"]) == {"arrival", "promise:1"}
        for one in busy["policies"].values():
            for figure in ("mean_latency_s", "p99_latency_s", "mean_wait_s", "makespan_s"):
                low, high = one["ci95"][figure]
                assert low <= one[figure] <= high
        idle = self.said(capsys, str(trace), "--load", "0.05", *quick)
        assert idle["verdict"] == "no_gain"

    def test_the_page(self, trace: Path, capsys):
        """The answer first, in words; then what it rests on."""
        arguments = ["--slots", "2", "--seeds", "2", "--requests", "100", "--load", "0.05", "--policy", "ratio"]
        assert main(["simulate", str(trace), *arguments]) == 0
        page = capsys.readouterr().out
        assert page.startswith("**No gain expected.** Requests hardly wait here")
        assert "400 requests" in page
        assert "`ratio` by load" in page
        assert "Kendall's tau of the predictor" in page

    def test_memory_cost_and_bursts(self, trace: Path, tmp_path: Path, capsys):
        """A short cache, a given cost, prompts in chunks, and arrivals of another kind."""
        cost = tmp_path / "cost.json"
        cost.write_text(json.dumps({"step_fixed_s": 0.01, "read_token_s": 1e-4}))
        given = ("--cost", str(cost), "--kv-tokens", "700", "--chunk-tokens", "64", "--arrivals", "bursty:2")
        quick = ("--slots", "3", "--seeds", "1", "--requests", "100", "--policy", "ratio", "--load", "1.0")
        found = self.said(capsys, str(trace), *given, *quick)
        assert found["policies"]["ratio"]["ci95"]["mean_latency_s"] is None
        assert found["load"] == pytest.approx(1.0)

    def test_a_cost_that_is_measured_here(self, trace: Path, capsys):
        """The bundled model's own steps, for real: a cost of its own, its reading too, and how far it is off."""
        quick = ("--slots", "3", "--seeds", "1", "--requests", "60", "--policy", "ratio")
        found = self.said(capsys, str(trace), "--probe", "bundled", *quick)
        assert found["cost_source"].startswith("bundled, measured on this machine")
        assert found["cost"] != StepCost().to_json()
        assert 0 < found["cost"]["step_fixed_s"] + found["cost"]["step_row_s"] < 1
        assert found["cost"]["relative_error"] > 0

    def test_a_rough_measurement_is_warned_of(self, tmp_path: Path):
        """Its error is said beside it, and when it is large, what to do; the default has none."""
        rough, fine = StepCost(relative_error=0.5), StepCost(relative_error=0.1)
        assert "when nothing else runs" in CostBasis(rough, "here").notes[0]
        assert CostBasis(fine, "here").notes == cost_basis(None, None).notes == ()
        (tmp_path / "cost.json").write_text(json.dumps(fine.to_json()))
        assert cost_basis(tmp_path / "cost.json", None) == CostBasis(fine, str(tmp_path / "cost.json"))

    def test_the_page_says_where_the_cost_is_from(self, trace: Path, tmp_path: Path, capsys):
        (tmp_path / "cost.json").write_text(json.dumps(StepCost(relative_error=0.12).to_json()))
        arguments = ["--seeds", "1", "--requests", "50", "--policy", "ratio", "--cost", str(tmp_path / "cost.json")]
        assert main(["simulate", str(trace), *arguments]) == 0
        assert "cost.json; single passes lie 12% from that)." in capsys.readouterr().out

    def test_all_at_once(self, trace: Path, capsys):
        quick = ("--slots", "3", "--seeds", "2", "--requests", "100", "--policy", "longest", "--arrivals", "once")
        found = self.said(capsys, str(trace), *quick)
        assert found["load"] is None
        assert found["by_load"] == {}

    def test_a_real_predictor_needs_prompts(self, tmp_path: Path, capsys):
        """The bundled predictor on prompts in the log."""
        path = tmp_path / "log.jsonl"
        rows = [{"arrival_s": i, "prompt": f"Write {i} words.", "output_tokens": 1 + i % 50} for i in range(60)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        quick = ("--slots", "2", "--seeds", "1", "--policy", "ratio", "--predictor", "constant:50")
        found = self.said(capsys, str(path), *quick)
        assert found["predictor"] == "constant:50"
        assert any("characters" in note for note in found["notes"])

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["none.csv"], "can't be read"),
            (["LOG", "--policy", "best"], "no policy 'best'"),
            (["LOG", "--slots", "0"], "slots is 0"),
            (["LOG", "--load", "-1"], "load is -1"),
            (["LOG", "--predictor", "tau:2"], "out of reach"),
            (["LOG", "--predictor", "tau:x"], "'x' is no number"),
            (["LOG", "--predictor", "classes:none"], "is no file"),
            (["LOG", "--arrivals", "poisson"], "needs --load"),
            (["LOG", "--arrivals", "often"], "arrivals is 'often'"),
            (["LOG", "--kv-tokens", "100"], "never holds it"),
            (["LOG", "--seeds", "0"], "0 seeds"),
            (["LOG", "--probe", "bundled", "--cost", "c.json"], "--cost c.json and --probe bundled both say"),
        ],
    )
    def test_wrong_use_is_told(self, trace: Path, arguments: list[str], told: str, capsys):
        """Exit code 2 and one sentence."""
        given = [str(trace) if one == "LOG" else one for one in arguments]
        assert main(["simulate", *given]) == 2
        assert told in capsys.readouterr().err

    def test_a_published_trace(self, capsys):
        mirror = Path(os.environ.get("LENGTHWISE_DATA_MIRROR", "../shared/data"))
        if not (mirror / "traces").is_dir():
            pytest.skip(f"{mirror} has no traces")
        quick = ("--seeds", "2", "--requests", "200", "--policy", "promise", "--mirror", str(mirror))
        found = self.said(capsys, "traces/azure-2023-code", *quick)
        assert found["verdict"] == "no_gain"
        assert found["load"] < 0.3


def test_the_oracle_is_exact():
    assert kendall_tau(exact(LENGTHS), LENGTHS) == pytest.approx(1)
