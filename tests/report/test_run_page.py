"""The report of a run, by the command, on an engine that replays recorded lengths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lengthwise.cli import main, run
from lengthwise.costs import StepCost
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.oracle import OraclePredictor
from lengthwise.predictors.unknown import UnknownPredictor
from lengthwise.report import run_record
from lengthwise.report.again import BASE, OWN, REFILLED, TRUE, RunEngine, run_again
from lengthwise.report.run_page import run_page
from lengthwise.report.run_record import RunRecord, as_predicted
from lengthwise.types import Capabilities, Completion, Request
from tests.report.conftest import LENGTHS, NAMES, replaying, write_prompts
from tests.report.reading import answer, because, tables

FOUR = Capabilities(max_running=4)


def noted(predictor=None, capabilities=FOUR, schedule="default"):
    """A run of all recorded lengths, looked on; and its answers without anybody looking."""
    found = []
    for record in (RunRecord(), None):
        engine = ReplayEngine(LENGTHS, ReplayConfig(capabilities))
        chosen = predictor or OraclePredictor(LENGTHS)
        pipeline = Pipeline(engine=engine, predictor=chosen, scheduler=schedule, clock=engine.clock)
        pipeline.watcher = record
        found.append((record, list(pipeline.stream([Request(name, "x") for name in LENGTHS])), engine))
    (record, watched, engine), (_, plain, _) = found
    assert record is not None
    return record, watched, plain, engine


def test_looking_on_changes_no_answer_and_no_order():
    record, watched, plain, _ = noted()
    assert watched == plain
    assert record.num_answered == len(LENGTHS)
    assert {one.id: one.completion_tokens for one in record.answers} == LENGTHS


def test_the_timeline_is_what_the_engine_did():
    """Slot-seconds by the record are row-steps by the engine's own count, step by step of its cost."""
    record, _, _, engine = noted(UnknownPredictor(), Capabilities(max_running=1))
    step_s = ReplayConfig().step_fixed_s + ReplayConfig().step_per_row_s
    busy_s = (1 - record.timeline.idle_share(1)) * record.timeline.span_s
    assert busy_s == pytest.approx(engine.num_row_steps * step_s, rel=1e-6)


def test_what_was_predicted_comes_back():
    """The log-normal distribution has the median and the 90 % bound that were told; of what was unknown nothing."""
    tokens = Completion("a", "", "stop", 3, 70, predicted=run_record.PredictedTokens(50.0, 120.0))
    record = RunRecord()
    list(record.noted(iter([tokens, Completion("b", "", "stop", 3, 9)])))
    estimates = as_predicted(record.answers)
    assert estimates.quantile(0.5)[0] == pytest.approx(50, rel=0.05)
    assert estimates.quantile(0.9)[0] == pytest.approx(120, rel=0.05)
    assert not np.isfinite(estimates.median[1])


def test_memory_is_bounded_and_the_sample_fair(monkeypatch: pytest.MonkeyPatch):
    """Of 3,000 answers 200 are kept, from all over the run."""
    monkeypatch.setattr(run_record, "MAX_ANSWERS", 200)
    record = RunRecord()
    list(record.noted(Completion(str(n), "", "stop", 1, 1 + n) for n in range(3000)))
    assert (len(record.answers), record.num_answered) == (200, 3000)
    assert np.mean([one.completion_tokens for one in record.answers]) == pytest.approx(1500, abs=250)


class TestAgain:
    @pytest.mark.parametrize("cost", [None, StepCost(0.1, 0.002)], ids=["not measured", "measured"])
    def test_the_simulated_run_is_as_long_as_the_real_one(self, cost: StepCost | None):
        """However wrong the cost is that was measured; and its factor is told where there was one."""
        record, _, _, engine = noted()
        again = run_again(record, RunEngine(engine.capabilities, cost, "default"))
        assert again.traces[OWN].outcome.makespan_s == pytest.approx(record.timeline.span_s, rel=1e-6)
        assert (again.slowdown is None) == (cost is None)
        if again.slowdown is not None:
            assert again.slowdown < 0.1

    def test_knowing_more_takes_no_longer(self):
        """Static batches ≥ refilled in arrival order ≥ true lengths; true estimates are as good as the oracle."""
        record, _, _, engine = noted()
        again = run_again(record, RunEngine(engine.capabilities, StepCost(0.002, 0.0001), "default"))
        assert again.ratios[BASE].mean == 1
        assert again.ratios[TRUE].mean <= again.ratios[REFILLED].mean < 0.9
        assert again.ratios[OWN].mean == pytest.approx(again.ratios[TRUE].mean, abs=0.01)
        drawn = again.figures[BASE].columns["makespan_s"]
        assert drawn[0] == pytest.approx(drawn[1:].mean(), rel=0.1)  # no order in which answers ended: that is sorted

    def test_an_engine_that_can_not_refill_is_not_said_to(self):
        record, _, _, engine = noted(capabilities=Capabilities(max_running=4, can_refill=False))
        again = run_again(record, RunEngine(engine.capabilities, None, "default"))
        assert list(again.kinds) == [BASE, OWN, TRUE]
        assert again.ratios[OWN].mean < 1

    @pytest.mark.parametrize("schedule", ["arrival", "grouped", "paper"])
    def test_any_schedule_has_a_page(self, schedule: str):
        record, _, _, engine = noted(schedule=schedule, capabilities=Capabilities(max_running=4, kv_tokens=2000))
        page = run_page(record, RunEngine(engine.capabilities, None, schedule), "x.jsonl", 3.0)
        assert [figure.name for figure in page.figures] == ["slots", "times", "predicted"]
        assert "Simulated" in " ".join(figure.says for figure in page.figures)


class TestCommand:
    def test_the_page_of_a_run(self, ran: Path):
        """Numbers are those of the run: all that were answered, none that failed; ids as they are, but for formulas."""
        said = tables(ran)
        assert answer(ran).startswith("120 answers in ")
        assert "2 requests failed" in ran.read_text()
        rows = {row[0].removeprefix("'"): row for row in said["predicted"][1:]}
        assert {name: int(row[1]) for name, row in rows.items()} == LENGTHS
        assert all(float(row[2]) == max(1, LENGTHS[name] // 2) for name, row in rows.items())
        assert all(row[0].startswith(("'=", "<script>")) for row in said["predicted"][1:])
        near = np.mean([length <= 2 * max(1, length // 2) for length in LENGTHS.values()])
        assert f"{100 * near:.0f} % came within a factor of two" in ran.read_text()
        short = np.mean([length == 1 for length in LENGTHS.values()])  # others are longer than half of their length
        assert short > 0
        assert f"{round(100 * short, 1):g} % were no longer than their median said" in ran.read_text()
        assert [row[0] for row in said["times"][1:]] == [BASE, REFILLED, OWN, TRUE]

    def test_nothing_known_and_nothing_answered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        """Without any estimate there is no figure of them, and it is said; where all fails there is a page, too. Asked
        to be quiet, the command doesn't tell of it."""
        monkeypatch.setattr(run, "open_pipeline", replaying(UnknownPredictor))
        for names, expected in ((NAMES, "ordering by length was no gain"), (["nobody"], "No answer was written")):
            prompts, page = write_prompts(tmp_path / "p.jsonl", names), tmp_path / "out.html"
            options = ["-o", tmp_path / "a.jsonl", "--overwrite", "--quiet", "--report", page]
            main([str(argument) for argument in ["run", prompts, *options]])
            assert expected in answer(page)
            assert "predicted" not in tables(page)
        assert "Every request failed" in because(page)
        assert "pictures" not in capsys.readouterr().err

    def test_a_job_that_was_done_before_has_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setattr(run, "open_pipeline", replaying(UnknownPredictor))
        prompts, page = write_prompts(tmp_path / "p.jsonl", NAMES[:5]), tmp_path / "out.html"
        arguments = ["run", str(prompts), "-o", str(tmp_path / "a.jsonl"), "--report", str(page)]
        assert main(arguments) == 0
        page.unlink()
        assert main(arguments) == 0
        assert not page.exists()
        assert "5 rows" in capsys.readouterr().err

    def test_it_never_replaces_answers_or_prompts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        prompts = write_prompts(tmp_path / "p.jsonl", NAMES[:2])
        before = prompts.read_text()
        for place in (prompts, tmp_path / "a.jsonl"):
            assert main(["run", str(prompts), "-o", str(tmp_path / "a.jsonl"), "--report", str(place)]) == 2
        assert "another place for --report" in capsys.readouterr().err
        assert prompts.read_text() == before
        assert json.loads(before.splitlines()[0])["id"] == NAMES[0]
