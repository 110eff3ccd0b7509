"""An estimate for people, and for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lengthwise import __version__
from lengthwise.cli.progress import duration
from lengthwise.protocols import LengthPredictor

if TYPE_CHECKING:
    from lengthwise.learning.estimating.jobs import JobOutlook, Largest
    from lengthwise.learning.estimating.prices import Price
    from lengthwise.learning.estimating.timing import Seconds
    from lengthwise.learning.estimating.totals import Interval

SHARE = 0.9  # of the intervals
_INDENT = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an estimate has found. `tokens` is of the answers of which something is known, `seconds_told` where the time
    comes from, or why there is none."""

    name: str
    num_invalid: int
    outlook: JobOutlook
    tokens: Interval
    level_error: float
    is_tokenizer_known: bool
    model: str | None
    predictor: LengthPredictor
    price: Price | None
    seconds: Seconds | None
    seconds_told: str

    @property
    def expected(self) -> float | None:
        """Tokens of all answers; None where nothing is known of some."""
        return None if self.outlook.num_unknown else self.outlook.totals.tokens

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; answers of which nothing is known may have from one token to their limit."""
        outlook = self.outlook
        low = self.tokens.low if outlook.totals.num_answers else 0.0
        high = self.tokens.high if outlook.totals.num_answers else 0.0
        return low + outlook.num_unknown, high + outlook.max_unknown_tokens

    @property
    def cut_share(self) -> float | None:
        """Of the answers of which something is known, those that will reach their limit."""
        totals = self.outlook.totals
        return totals.expected_cut / totals.num_answers if totals.num_answers else None

    @property
    def learned_target(self) -> str:
        """What the predictor learned, if that is not the length of one answer."""
        learned_from = getattr(getattr(self.predictor, "inner", self.predictor), "learned_from", None)
        target = getattr(learned_from, "target", "answer")
        return "" if target == "answer" else str(target)


# -- for programs ----------------------------------------------------------------------------------------------


def to_json(found: Outcome) -> dict[str, Any]:
    """One object; what is not known is null."""
    outlook, (low, high) = found.outlook, found.bounds
    return {
        "prompts": outlook.num_prompts,
        "invalid": found.num_invalid,
        "refused": outlook.num_refused,
        "answers": outlook.num_answers,
        "prompt_tokens": outlook.prompt_tokens,
        "prompt_tokens_by": "tokenizer" if found.is_tokenizer_known else "characters",
        "answer_tokens": {
            "expected": _whole(found.expected),
            "low": _whole(low),
            "high": _whole(high),
            "interval": SHARE if found.expected is not None else 1.0,
            "limit": _whole(outlook.totals.max_tokens + outlook.max_unknown_tokens),
        },
        "level_error": round(found.level_error, 4) if outlook.totals.num_answers else None,
        "unknown": outlook.num_unknown,
        "cut_share": None if found.cut_share is None else round(found.cut_share, 5),
        "price": _price_json(found),
        "time_s": _seconds_json(found.seconds),
        "time_by": found.seconds_told,
        "largest": [_largest_json(one) for one in outlook.largest],
        "model": found.model,
        "predictor": type(found.predictor).__name__,
        "version": __version__,
    }


def _price_json(found: Outcome) -> dict[str, Any] | None:
    if found.price is None:
        return None
    price, prompt_tokens = found.price, found.outlook.prompt_tokens
    low, high = found.bounds
    return {
        "expected": None if found.expected is None else price.of(prompt_tokens, found.expected),
        "low": price.of(prompt_tokens, low),
        "high": price.of(prompt_tokens, high),
        "currency": price.currency or None,
        "batch_discount": price.batch_discount,
    }


def _seconds_json(seconds: Seconds | None) -> dict[str, float] | None:
    if seconds is None:
        return None
    named = {"expected": seconds.expected, "low": seconds.interval.low, "high": seconds.interval.high}
    return {name: round(value, 3) for name, value in named.items()}


def _largest_json(one: Largest) -> dict[str, Any]:
    return {
        "id": one.id,
        "p50": _whole(one.p50),
        "p99": _whole(one.p99),
        "max_tokens": one.max_tokens,
        "prompt_tokens": one.prompt_tokens,
    }


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value)


# -- for people ------------------------------------------------------------------------------------------------


def page(found: Outcome) -> str:
    """Some lines of text."""
    lines = [_head(found), *_prompts(found), *_answers(found)]
    if found.price is not None:
        lines.append(_named("price", _price(found, found.price)))
    lines.append(_named("time", _time(found)))
    if found.outlook.totals.num_answers:
        lines += ["", *_largest(found.outlook.largest)]
    return "\n".join(lines)


def _head(found: Outcome) -> str:
    more = f", {found.num_invalid:,} rows are no requests" if found.num_invalid else ""
    more += f", {found.outlook.num_refused:,} can't be answered by this model" if found.outlook.num_refused else ""
    return f"{found.name}: {found.outlook.num_prompts:,} prompts{more}"


def _prompts(found: Outcome) -> list[str]:
    by = f"by the tokenizer of {found.model}" if found.is_tokenizer_known else "by their characters, at 4.1 a token"
    return [_named("prompt tokens", f"{found.outlook.prompt_tokens:,} {by}")]


def _answers(found: Outcome) -> list[str]:
    outlook, (low, high) = found.outlook, found.bounds
    num = outlook.num_unknown
    if found.expected is None:
        of = "the answers" if num == outlook.num_answers else f"{num:,} of the {outlook.num_answers:,} answers"
        lines = [_named("answer tokens", f"nothing is known of {of}: {low:,.0f} to {high:,.0f} in all")]
        lines += [_named("", "train a predictor, or give one with --predictor, to know more")]
    else:
        chance = f"{SHARE:.0%}"
        lines = [
            _named("answer tokens", f"{found.expected:,.0f}; with a chance of {chance} from {low:,.0f} to {high:,.0f}")
        ]
        lines += [_named("", f"(all lengths together may be off by {found.level_error:.0%}, as a standard deviation)")]
    if found.learned_target:
        lines.append(_named("", f"too high: the predictor learned {found.learned_target}, not one answer's length"))
    if found.cut_share is not None:
        at_limit = f"{found.cut_share:.1%} of the answers (about {outlook.totals.expected_cut:,.0f})"
        lines.append(_named("at their limit", at_limit))
    return lines


def _price(found: Outcome, price: Price) -> str:
    low, high = (price.of(found.outlook.prompt_tokens, tokens) for tokens in found.bounds)
    unit = f"{price.currency} " if price.currency else ""
    if found.expected is None:
        return f"{unit}{_money(low)} to {_money(high)}"
    expected = price.of(found.outlook.prompt_tokens, found.expected)
    told = f"{unit}{_money(expected)}; from {_money(low)} to {_money(high)}"
    if price.batch_discount is not None:
        told += f"; as a batch {unit}{_money(expected * (1 - price.batch_discount))}"
    return told


def _money(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.2g}"


def _time(found: Outcome) -> str:
    if found.seconds is None:
        return f"not known: {found.seconds_told}"
    low, high = found.seconds.interval.low, found.seconds.interval.high
    return f"{duration(found.seconds.expected)}; from {duration(low)} to {duration(high)} ({found.seconds_told})"


def _largest(rows: list[Largest]) -> list[str]:
    """The rows whose answers may become longest."""
    width = min(40, max(len("largest"), *(len(row.id) for row in rows)))
    header = f"{'largest':<{width}}  {'median':>8}  {'99 in 100':>10}  {'limit':>8}"
    return [
        header,
        *(
            f"{row.id:.40}".ljust(width) + f"  {row.p50:>8,.0f}  {row.p99:>10,.0f}  {row.max_tokens:>8,}"
            for row in rows
        ),
    ]


def _named(name: str, value: str) -> str:
    return f"  {name:<{_INDENT}}{value}"
