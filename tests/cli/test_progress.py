"""What the progress display says."""

from __future__ import annotations

import io
import logging
import time
from typing import Any

import pytest
from rich.console import Console

from lengthwise.cli import progress
from lengthwise.cli.console import listen
from lengthwise.cli.progress import Meter, Watch, duration, reading
from lengthwise.loop import Counts


def test_rate_and_time_left_come_from_the_last_half_minute() -> None:
    """Tokens a second follow a change; time left is what is still expected at this rate."""
    meter = Meter()
    assert meter.read(Counts(), 0.0) == (0.0, None), "nothing can be said at first"
    assert meter.read(Counts(completion_tokens=500, written_tokens=500, expected_tokens=2500), 10.0) == (100.0, 20.0)
    for second in range(11, 60):
        rate, left_s = meter.read(Counts(completion_tokens=1000 + 10 * (second - 10), expected_tokens=100), second)
    assert rate == pytest.approx(10)
    assert left_s == pytest.approx(10)


def test_what_is_not_yet_in_the_window_counts_by_the_average() -> None:
    """Time left speaks of the whole file, not of the requests that are scheduled by now."""
    meter = Meter()
    meter.read(Counts(), 0.0)
    counts = Counts(num_finished=10, completion_tokens=1000, expected_tokens=500)
    assert meter.read(counts, 10.0, num_unread=20) == (100.0, (500 + 20 * 100) / 100)


def test_tokens_that_are_thrown_away_are_no_negative_rate() -> None:
    """When a cut answer is restarted, written tokens fall: the rate is never negative."""
    meter = Meter()
    meter.read(Counts(written_tokens=100), 0.0)
    assert meter.read(Counts(written_tokens=0), 1.0) == (0.0, None)


def test_the_line() -> None:
    """Requests, tokens a second and, where it can be said, the time left."""
    assert reading(1200, 5000, 2310.4, 130.0) == "1,200 of 5,000 requests, 2,310 tokens/s, about 2 min left"
    assert reading(0, 5, 0.0, None) == "0 of 5 requests, 0 tokens/s"
    assert reading(7, None, 5.0, 130.0) == "7 requests, 5 tokens/s", "how many there are is not known of a pipe"
    assert [duration(seconds) for seconds in (0.2, 45, 100, 5400)] == ["1 s", "45 s", "2 min", "1.5 h"]


def watch(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, **options: Any) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=100)
    monkeypatch.setattr(progress, "err", console)
    monkeypatch.setattr("lengthwise.cli.console.err", console)
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.05)
    with Watch(lambda: Counts(completion_tokens=7), lambda: 3, 9, **options):
        time.sleep(0.3)
    return file.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that is drawn anew in its place."""
    monkeypatch.setenv("TERM", "xterm")
    drawn = watch(monkeypatch, True, is_quiet=False)
    assert "3 of 9 requests" in drawn
    assert "━" in drawn


def test_what_the_package_logs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """News and warnings are lines on stderr, with the reason where there is an error; quiet leaves errors only."""
    log = logging.getLogger("lengthwise")
    for is_quiet in (False, True):
        listen(is_quiet)
        log.info("Loading.")
        try:
            raise ValueError("odd prompt")
        except ValueError:
            log.warning("The predictor failed.", exc_info=True)
        log.error("Broken.")
    told = "lengthwise: Loading.\nlengthwise: The predictor failed. (ValueError('odd prompt'))\nlengthwise: Broken.\n"
    assert capsys.readouterr().err == told + "lengthwise: Broken.\n"


def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb, as editors and cron set it."""
    monkeypatch.setenv("TERM", "dumb")
    drawn = watch(monkeypatch, True, is_quiet=False)
    assert "lengthwise: 3 of 9 requests" in drawn
    assert "━" not in drawn


def test_elsewhere_plain_lines_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines without control characters; with quiet, nothing."""
    drawn = watch(monkeypatch, False, is_quiet=False)
    assert drawn.startswith("lengthwise: 3 of 9 requests")
    assert "\x1b" not in drawn
    assert watch(monkeypatch, False, is_quiet=True) == ""
    assert watch(monkeypatch, True, is_quiet=True) == ""
