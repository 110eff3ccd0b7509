"""`--report FILE`: what was done, as a page to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli.console import say
from lengthwise.errors import LengthwiseError, UsageError

if TYPE_CHECKING:
    from lengthwise.pipeline import Pipeline
    from lengthwise.report.run_record import RunRecord

Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also show it in pictures there: one HTML file, to be opened in a browser."),
]


def check_report(report: Path | None, *others: Path) -> None:
    """Before any work. Raises UsageError where no report can be written, or one would replace another file's content:
    `others` are read or written, too."""
    if report is None:
        return
    from lengthwise.report.page import check_place

    check_place(report)
    if report.resolve() in [other.resolve() for other in others]:
        raise UsageError(f"{report} is read or written as something else, too; give another place for --report.")


def look_on(pipeline: Pipeline, report: Path | None) -> RunRecord | None:
    """Have a run noted, where it is to be shown."""
    if report is None:
        return None
    from lengthwise.report.run_record import RunRecord

    record = RunRecord()
    pipeline.watcher = record
    return record


def save_report(
    record: RunRecord, pipeline: Pipeline, schedule: str, name: str, wall_s: float, report: Path, *, is_quiet: bool
) -> None:
    """Of a run that is done: its answers are safe, so whatever goes wrong here is said, and no error."""
    from lengthwise.protocols import Timed
    from lengthwise.report.again import RunEngine
    from lengthwise.report.page import save
    from lengthwise.report.run_page import run_page

    cost = pipeline.engine.step_cost if isinstance(pipeline.engine, Timed) else None
    engine = RunEngine(pipeline.engine.capabilities, cost, schedule)
    try:
        save(run_page(record, engine, name, wall_s), report)
    except LengthwiseError as error:
        say(f"There is no report: {error}")
    else:
        if not is_quiet:
            say(f"{report} shows it in pictures.")
