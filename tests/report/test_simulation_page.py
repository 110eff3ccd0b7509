"""The report of a simulated log: what it says, and that it is what the command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lengthwise.cli import main
from lengthwise.report.simulation_page import sentences
from tests.report.conftest import small_grid, write_log
from tests.report.reading import answer, because, tables, tags

OUTSIDE = {"src", "srcset", "xlink:href", "action", "poster", "onerror", "onload", "onclick"}


@pytest.mark.parametrize("name", ["simulated", "ran"])
def test_it_stands_alone(name: str, request: pytest.FixtureRequest):
    """No script, nothing from elsewhere, and nothing that a name in a user's file could have put there."""
    page = request.getfixturevalue(name)
    for tag, attributes in tags(page):
        assert tag not in ("script", "img", "iframe", "object", "embed"), tag
        assert not OUTSIDE & set(attributes), attributes
        assert str(attributes.get("href", "data:")).startswith("data:")
    assert "default-src 'none'" in page.read_text()
    assert "url(" not in page.read_text()


@pytest.mark.parametrize("name", ["simulated", "ran"])
def test_every_figure_is_a_chart_a_table_and_a_csv(name: str, request: pytest.FixtureRequest):
    page = request.getfixturevalue(name)
    found = tags(page)
    sections = [str(attributes["id"]) for tag, attributes in found if tag == "section" and attributes["id"] != "words"]
    names = {"simulated": ["policies", "slots", "latency", "waits", "from-where-on", "where"]}
    assert sections == names.get(name, ["slots", "times", "predicted"])
    assert list(tables(page)) == sections
    assert sum(tag == "table" for tag, _ in found) == len(sections)
    for rows in tables(page).values():
        assert len(rows) > 2
        assert {len(row) for row in rows} == {len(rows[0])}
    told = [attributes["aria-label"] for tag, attributes in found if tag == "svg" and attributes.get("role") == "img"]
    assert all(told)
    assert len(told) >= 2 * len(sections)  # for wide and for narrow pages


def test_it_says_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Ratios in the table are those of --json, the sentence is its verdict, and --json stays one line."""
    small_grid(monkeypatch)
    log = write_log(tmp_path / "log.jsonl", 300)
    options = ["--slots", "4", "--load", "1.0", "--seeds", "2", "--policy", "promise:1", "--json"]
    assert main(["simulate", str(log), *options, "--report", str(tmp_path / "out.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    said = tables(tmp_path / "out.html")
    ratios = {row[0]: float(row[1]) for row in said["policies"][1:]}
    assert ratios["promise:1"] == pytest.approx(found["policies"]["promise:1"]["mean_ratio"]["mean"])
    assert ratios[f"{found['asked']}, true lengths"] == pytest.approx(found["oracle_ratio"]["mean"])
    assert answer(tmp_path / "out.html").startswith("Yes:" if found["verdict"] == "gain" else "No gain expected")
    levels = {(row[0], float(row[1])) for row in said["from-where-on"][1:]}
    assert levels == {("load", float(load)) for load in found["by_load"]} | {
        ("predictor", float(tau)) for tau in found["by_tau"]
    }
    grid = [dict(zip(said["where"][0], row, strict=True)) for row in said["where"][1:]]
    assert {(one["slots"], one["load"]) for one in grid} == {
        (s, load) for s in ("1", "4", "16") for load in ("0.5", "1.1")
    }
    assert all(float(one["to"]) < 1 for one in grid if one["pays"] == "yes")


def found_with(**changed: Any) -> dict[str, Any]:
    """What the command finds where a request waits half of its time and a policy saves a quarter."""

    def one(mean: float, p99: float, wait_s: float = 5.0) -> dict[str, Any]:
        return {
            "mean_latency_s": 10 * mean,
            "mean_wait_s": wait_s,
            "mean_ratio": {"mean": mean, "ci95": (mean - 0.02, mean + 0.02)},
            "p99_ratio": {"mean": p99, "ci95": None},
        }

    found = {
        "policies": {"arrival": one(1, 1, changed.pop("wait_s", 5.0)), "promise": one(0.75, 1.1)},
        "verdict": "gain",
        "policy": "promise",
        "ratio": 0.75,
        "ratio_ci95": (0.73, 0.77),
        "p99_ratio": 1.1,
        "rule": {"min_gain": 0.03, "max_p99_ratio": 1.3},
        "pays_from_load": 0.7,
        "load": 0.9,
    }
    if "dear" in changed:
        found["policies"]["shortest"] = one(*changed.pop("dear"))
    return found | changed


@pytest.mark.parametrize(
    ("changed", "expected", "reason"),
    [
        ({}, "Yes: with answer lengths predicted, answers would come 25 % sooner", "takes 1.10 times as long"),
        ({"p99_ratio": 0.9}, "Yes:", "takes no longer than before"),
        ({"verdict": "no_gain", "wait_s": 0.1}, "No gain expected: knowing", "The rest is writing"),
        (
            {"verdict": "no_gain", "ratio": 0.98, "ratio_ci95": (0.95, 1.01), "pays_from_load": 1.1},
            "No gain expected: knowing",
            "would save 2 % of the time (95 %: 5 % less to 1 % more): too little to count. It would start to pay at a "
            "load of 1.1; this log has 0.90.",
        ),
        ({"verdict": "no_gain", "ratio": 0.9, "ratio_ci95": (0.7, 1.2)}, "No gain expected: knowing", "may be chance"),
        (
            {"verdict": "no_gain", "ratio": 1.01, "ratio_ci95": None},
            "No gain expected: knowing",
            "No policy that spares",
        ),
        (
            {"verdict": "no_gain", "policy": None, "dear": (0.6, 2.5)},
            "No gain expected without a price",
            "With “shortest” it would be 40 % less, at 2.5 times the time of the slowest hundredth",
        ),
    ],
)
def test_the_answer_and_its_reason(changed: dict[str, Any], expected: str, reason: str):
    """A newcomer is told yes or no, and why; numbers are those that were found."""
    said, why = sentences(found_with(**changed))
    assert said.startswith(expected)
    assert reason in why
    assert "10 s on average, " in why


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt_tokens": 9, "output_tokens": 50}],
        [{"prompt_tokens": 9, "output_tokens": 50}] * 30,
        [{"prompt_tokens": 9, "output_tokens": 5 + n} for n in range(30)],
        [{"arrival_s": 2 * n, "prompt_tokens": 9, "output_tokens": 1} for n in range(30)],
    ],
    ids=["one row", "all alike, at once", "at once", "one token each"],
)
def test_poor_logs_have_a_report_too(rows: list[dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What can't be shown is left out; nothing fails and no NaN is drawn."""
    small_grid(monkeypatch)
    log, page = tmp_path / "log.jsonl", tmp_path / "out.html"
    log.write_text("\n".join(map(json.dumps, rows)))
    options = ["--slots", "2", "--seeds", "1", "--policy", "promise"]
    assert main(["simulate", str(log), *options, "--report", str(page)]) == 0
    assert answer(page)
    assert because(page)
    assert ("where" in tables(page)) == (len(rows) > 1)
    assert "nan" not in page.read_text().lower().replace("finance", "")


def test_a_place_for_nothing_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = write_log(tmp_path / "log.jsonl", 20)
    before = log.read_text()
    assert main(["simulate", str(log), "--report", str(log)]) == 2
    assert "another place for --report" in capsys.readouterr().err
    assert log.read_text() == before
