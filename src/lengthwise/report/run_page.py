"""What a run came to."""

from __future__ import annotations

from lengthwise.report.again import BASE, OWN, REFILLED, TRUE, Again, RunEngine, run_again
from lengthwise.report.figure import Figure
from lengthwise.report.figures.predicted import predicted
from lengthwise.report.figures.slots import slots
from lengthwise.report.figures.times import times
from lengthwise.report.numbers import percent, short, spoken_s
from lengthwise.report.page import Page, Tile
from lengthwise.report.run_record import RunRecord
from lengthwise.simulation.study import MIN_GAIN, Ratio

WORDS = (
    ("Slot", "A place in the engine. It writes as many answers at once as it has slots; the other requests wait."),
    ("Static batches", "A batch of requests is started together, and the next when the last answer of it is complete."),
    ("Refilled", "Whenever an answer is complete, the next request takes its slot."),
    ("Arrival order", "First come, first served: what one does without knowing lengths."),
    ("True lengths", "What a perfect predictor would give: no predictor does better."),
)


def run_page(record: RunRecord, engine: RunEngine, name: str, wall_s: float) -> Page:
    """`name` is what was run, `wall_s` how long all of it took: engine, predictor, reading and writing."""
    title = f"lengthwise run {name}"
    if not record.answers:
        failed = "Every request failed." if record.num_failed else "There was nothing to answer."
        return Page(title, "No answer was written, so there is nothing to show.", failed, None, (), ())
    again = run_again(record, engine)
    is_whole = len(record.answers) == record.num_answered
    answer, because, is_gain = sentences(record, again, wall_s)
    return Page(
        title,
        answer,
        because,
        is_gain,
        _tiles(record, again, wall_s),
        tuple(_figures(record, again, is_whole=is_whole)),
        WORDS,
        _notes(record, again, is_whole=is_whole),
    )


def sentences(record: RunRecord, again: Again, wall_s: float) -> tuple[str, str, bool]:
    """What happened, why, and whether lengths were worth knowing."""
    took = f"{record.num_answered:,} answers in {spoken_s(wall_s)}"
    knowing, saved = again.knowing, 1 - again.ratios[OWN].mean
    refilling = ""
    if REFILLED in again.ratios:
        by_refilling = percent(1 - again.ratios[REFILLED].mean)
        refilling = f"Filling free slots at once, instead of batch by batch, saves {by_refilling} of the time. "
    if knowing.is_gain:
        answer = f"{took}: {percent(saved)} less time than batch by batch in arrival order."
        return answer, f"{refilling}Ordering by predicted length saves another {percent(1 - knowing.mean)}.", True
    if not any(one.predicted for one in record.answers):
        because = "Nothing was known of lengths beforehand."
    else:
        because = _no_gain(knowing)
    room = 1 - again.ratios[TRUE].mean / again.ratios[OWN].mean
    more = f" True lengths would save {percent(room)} more." if room >= MIN_GAIN else ""
    return f"{took}: ordering by length was no gain here.", f"{refilling}{because}{more}", False


def _no_gain(knowing: Ratio) -> str:
    if knowing.mean >= 1:
        return f"Ordering by predicted length makes that {percent(knowing.mean - 1)} longer."
    reason = "too little to count" if knowing.mean > 1 - MIN_GAIN else "which may be chance"
    return f"Ordering by predicted length saves another {percent(1 - knowing.mean)}, {reason}."


def _figures(record: RunRecord, again: Again, *, is_whole: bool) -> list[Figure]:
    sample = "" if is_whole else f", a sample of {len(record.answers):,}"
    before = f"{BASE} (simulated{sample})"
    timelines = {
        before: (again.kinds[BASE], again.traces[BASE].timeline),
        "this run (as it was)": (again.kinds[OWN], record.timeline),
    }
    drawn = [
        slots(timelines, again.engine.slots),
        times(again),
        predicted(record.answers),
    ]
    return [figure for figure in drawn if figure is not None]


def _tiles(record: RunRecord, again: Again, wall_s: float) -> tuple[Tile, ...]:
    failed = f"{record.num_failed:,} requests failed" if record.num_failed else ""
    tokens = sum(one.completion_tokens for one in record.answers) / len(record.answers)
    num_slots = again.engine.slots
    return (
        Tile("Answers", f"{record.num_answered:,}", failed),
        Tile("Time", spoken_s(wall_s)),
        Tile("Answers a second", short(record.num_answered / wall_s) if wall_s > 0 else "–"),
        Tile("Tokens an answer", short(tokens), "on average"),
        Tile("Slots", f"{num_slots:,}"),
        Tile("Idle slots", percent(record.timeline.idle_share(num_slots)), "of all, while it ran"),
    )


def _notes(record: RunRecord, again: Again, *, is_whole: bool) -> tuple[str, ...]:
    cost = again.engine.cost
    steps = f"{short(1e3 * cost.step_fixed_s)} ms and {short(1e3 * cost.step_row_s)} ms an answer"
    measured = "with which the run comes out as long as it was"
    if again.slowdown is not None:
        measured += f" ({again.slowdown:.2f} times what was measured beforehand)"
    said = [
        "Measured are this run's time, slots and lengths. Other orders are simulated with the lengths "
        f"that came, all requests at once, in random orders; a step takes {steps}, {measured}.",
        "What was predicted is taken as log-normal, from its median and its 90 % bound.",
    ]
    if not is_whole:
        said.append(f"Simulated and drawn is a random sample of {len(record.answers):,} answers.")
    return tuple(said)
