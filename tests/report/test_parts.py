"""Numbers, scales, tables and timelines."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import UsageError
from lengthwise.report import traces
from lengthwise.report.charts.bars import Bar, BarChart
from lengthwise.report.charts.heat import STEPS, shade
from lengthwise.report.figure import MAX_SHOWN_ROWS, Table
from lengthwise.report.figures.places import places
from lengthwise.report.numbers import percent, short, spoken_s
from lengthwise.report.page import Page, Tile, check_place, save
from lengthwise.report.pays import Place, deviation_of, with_spread
from lengthwise.report.scales import Axis, Scale
from lengthwise.report.traces import Timeline, traced
from lengthwise.simulation.guesses import of_tau
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import policy
from lengthwise.simulation.simulator import simulate
from lengthwise.simulation.study import Ratio
from lengthwise.simulation.workload import Workload


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "said"),
        [(0, "0"), (0.1234, "0.123"), (12.34, "12.3"), (1768.4, "1,768"), (1e6, "1,000,000"), (float("nan"), "–")],
    )
    def test_three_digits(self, value: float, said: str):
        assert short(value) == said

    def test_words(self):
        assert [percent(0.5), percent(0.0246), percent(0.05)] == ["50 %", "2.5 %", "5 %"]
        assert [spoken_s(9.567), spoken_s(150), spoken_s(10_000), spoken_s(260_000)] == [
            "9.57 s",
            "2.5 min",
            "2.78 h",
            "3.01 d",
        ]


class TestScales:
    @given(
        low=st.floats(1e-3, 1e6),
        factor=st.floats(1.01, 1e6),
        is_log=st.booleans(),
        length=st.floats(60, 1000),
    )
    def test_ticks_are_few_in_order_and_inside(self, low: float, factor: float, is_log: bool, length: float):
        """Whatever the range, two ticks or more, as many as have room, all on the axis."""
        axis = Axis("", low, low * factor, is_log=is_log)
        values = [value for value, _ in Scale(axis, 0, length).ticks()]
        assert len(values) >= 2
        assert len(values) <= max(2, length / 62) * 2 + 1
        assert values == sorted(values)
        assert low * 0.999 <= values[0]
        assert values[-1] <= low * factor * 1.001

    @given(values=st.lists(st.floats(0, 1e9), max_size=5), is_log=st.booleans())
    def test_all_values_find_a_place(self, values: list[float], is_log: bool):
        """Also none, one, zeros and equal ones: never NaN, never outside."""
        scale = Scale(Axis.around("", values, is_log=is_log), 10, 110)
        places = scale.at([value for value in values if value > 0 or not is_log])
        assert ((places >= 10 - 1e-9) & (places <= 110 + 1e-9)).all()
        assert scale.ticks()

    def test_a_logarithm_is_even_in_factors(self):
        places = Scale(Axis("", 1, 1000, is_log=True), 0, 300).at([1, 10, 100, 1000])
        assert places == pytest.approx([0, 100, 200, 300])


class TestTable:
    def test_csv_has_all_in_full_and_no_formulas(self):
        """Names may come from anybody: a spreadsheet would run =..., +..., -..., @...; numbers stay numbers."""
        rows = (("=HYPERLINK(1)", -1.23456789), ('a "quoted", name', 2), ("@x", None), ("-y", 0.1))
        read = list(csv.reader(io.StringIO(Table(("id", "value"), rows).csv())))
        assert [row[0] for row in read] == ["id", "'=HYPERLINK(1)", 'a "quoted", name', "'@x", "'-y"]
        assert [row[1] for row in read[1:]] == ["-1.23456789", "2", "", "0.1"]

    def test_a_long_one_is_shown_in_part(self):
        table = Table(("n",), tuple((n,) for n in range(MAX_SHOWN_ROWS + 7)))
        assert (len(table.shown), table.num_hidden) == (MAX_SHOWN_ROWS, 7)
        assert table.csv().count("\n") == MAX_SHOWN_ROWS + 8


class TestCharts:
    def test_names_can_not_break_out(self):
        """What stands in a chart is text, also in titles that are shown on pointing."""
        bar = Bar("</text><script>alert(1)</script>", "ours", 1.0, '"<b>')
        svg = BarChart(Axis("<i>", 0, 2), (bar,)).draw(336, '"><script>')
        assert "<script" not in svg
        assert "<b>" not in svg
        assert "<i>" not in svg

    def test_bars_are_as_long_as_their_values(self):
        svg = BarChart(Axis("", 0, 2), (Bar("a", "base", 1.0, "1"), Bar("b", "ours", 0.5, "0.5"))).draw(720, "")
        widths = [float(part.split('width="')[1].split('"')[0]) for part in svg.split("<rect")[1:]]
        assert widths[1] == pytest.approx(widths[0] / 2, abs=0.1)

    @pytest.mark.parametrize(
        ("mean", "ends", "p99", "kind", "words"),
        [
            (0.79, (0.7, 0.9), 1.1, "gain2", "−21 %"),
            (0.79, (0.7, 0.9), 1.5, "dear", "−21 %"),
            (0.8, (0.6, 1.1), 1.1, "none", "0"),
            (0.98, (0.97, 0.99), 1.0, "none", "0"),
        ],
        ids=["gain", "the slowest pay", "chance", "too little"],
    )
    def test_where_it_does_not_pay_is_seen(
        self, mean: float, ends: tuple[float, float], p99: float, kind: str, words: str
    ):
        place = Place(1.0, 0.8, 4, 0.9, Ratio(mean, ends), Ratio(p99, None))
        figure = places([place], "promise")
        svg = figure.panels[0].chart.draw(336, "")
        assert f'class="cell {kind}"' in svg
        assert f">{words}</text>" in svg
        assert figure.table.rows[0][-1] == ("yes" if kind.startswith("gain") else "no")

    def test_shades_begin_where_they_say(self):
        assert [shade(step) for step in STEPS] == [0, 1, 2, 3]
        assert shade(STEPS[1] - 0.001) == 0


class TestTimeline:
    @given(
        steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 8)), min_size=1, max_size=60), num=st.integers(1, 20)
    )
    def test_no_slot_second_is_lost(self, steps: list[tuple[float, int]], num: int):
        """Means times stretches are the area under all steps, whatever is kept of them."""
        timeline, now_s, area, before = Timeline(), 100.0, 0.0, 0
        timeline.note(now_s, 0)
        for wait_s, running in steps:
            area += before * wait_s
            now_s, before = now_s + wait_s, running
            timeline.note(now_s, running)
        edges, means = timeline.means(num)
        assert float((means * np.diff(edges)).sum()) == pytest.approx(area, abs=1e-6)
        assert timeline.span_s == pytest.approx(now_s - 100.0)

    def test_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch):
        """Of 10,000 changes 100 are kept, and the means stay what they are."""
        monkeypatch.setattr(traces, "MAX_POINTS", 100)
        timeline = Timeline()
        for step in range(10_001):
            timeline.note(float(step), step % 5)
        assert len(timeline._times_s) <= 100
        assert timeline.idle_share(4) == pytest.approx(0.5)
        assert timeline.means(5)[1] == pytest.approx(np.full(5, 2.0), abs=0.01)

    def test_idle_by_hand(self):
        """Answers of 10 and 30 steps of 1 s on two slots: 20 of 60 slot-seconds are idle."""
        from lengthwise.costs import StepCost

        engine = EngineModel(2, cost=StepCost(step_fixed_s=1.0, step_row_s=0.0))
        workload = Workload.of(0.0, 5, np.array([10, 30]))
        trace = traced("arrival", workload, of_tau(workload.output_tokens, 0.0, np.random.default_rng(0)), engine)
        assert trace.timeline.idle_share(2) == pytest.approx(20 / 60)
        assert trace.timeline.means(3)[1] == pytest.approx([2, 1, 1])

    @pytest.mark.parametrize("name", ["arrival", "promise", "gittins", "refill", "static-paper"])
    def test_looking_on_changes_nothing(self, name: str):
        """A run that is traced is the run that a study makes, put-back rows and short memory included; and what ran is
        what the machine counted."""
        rng = np.random.default_rng(4)
        lengths = rng.integers(1, 200, 150)
        workload = Workload.of(np.cumsum(rng.exponential(0.5, 150)), 20, lengths, 256)
        chosen = policy(name)
        engine = EngineModel(4, 700, memory=chosen.memory)
        estimates = of_tau(lengths, 0.5, rng)
        plain = simulate(workload, estimates, chosen.make(engine), engine)
        trace = traced(name, workload, estimates, engine)
        assert (trace.outcome.end_s == plain.end_s).all()
        assert trace.timeline.span_s == pytest.approx(plain.makespan_s)
        assert 0 <= trace.timeline.idle_share(4) < 1


class TestSpread:
    @given(spread=st.sampled_from([0.5, 1.5]), seed=st.integers(0, 50))
    def test_lengths_spread_and_their_mean_stays(self, spread: float, seed: int):
        lengths = np.random.default_rng(seed).lognormal(4.5, 0.8, 2000).astype(int) + 1
        log = Workload.of(0.0, 10, lengths)
        moved = with_spread(log, spread, float("inf"))
        assert moved.answer_tokens.mean() == pytest.approx(lengths.mean(), rel=0.02)
        assert deviation_of(moved.answer_tokens) == pytest.approx(spread * deviation_of(lengths), rel=0.12)
        assert (np.diff(moved.answer_tokens[np.argsort(lengths)]) >= 0).all()

    def test_nothing_outgrows_the_cache(self):
        log = Workload.of(0.0, 100, np.array([1, 5, 400]))
        assert (with_spread(log, 1.5, 500).answer_tokens + 100 <= 500).all()


class TestPlaces:
    def test_a_place_that_can_not_be_written_is_told_before(self, tmp_path):
        with pytest.raises(UsageError, match="is a folder"):
            check_place(tmp_path)
        with pytest.raises(UsageError, match="is no folder"):
            check_place(tmp_path / "nowhere" / "out.html")

    def test_a_page_is_whole_or_not_there(self, tmp_path):
        """A name that can't be encoded is no reason to fail, and nothing is left beside the page."""
        page = Page("a \udc80 name", "Answer.", "Because.", None, (Tile("<b>", "1"),), ())
        save(page, tmp_path / "out.html")
        assert "a ? name" in (tmp_path / "out.html").read_text()
        assert "<b>" not in (tmp_path / "out.html").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["out.html"]
