"""What the benches that run a model begin with: prompts, an engine, and the prompts that fit it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli.console import say
from lengthwise.engines.transformers import RunOptions
from lengthwise.errors import UsageError
from lengthwise.types import Prepared, Request, SamplingParams

if TYPE_CHECKING:
    from lengthwise.engines.transformers.model import LoadedModel
    from lengthwise.engines.transformers.open import OpenedRowEngine

PromptsFile = Annotated[Path, typer.Argument(metavar="[PROMPTS]", help="Prompts; without them, the bundled ones.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many prompts.", min=1)]


def read_requests(prompts: Path, limit: int | None) -> list[Request]:
    """The file's prompts, greedy and up to the common limit whatever their rows ask for, so that all contenders do the
    same; rows in error are left out and counted aloud."""
    from lengthwise.jobs.ids import named_rows
    from lengthwise.jobs.sources import open_source

    rows = list(named_rows(open_source(prompts), SamplingParams()))
    contents = [(row.id, row.content) for row in rows if isinstance(row.content, Request)]
    good = [Request(name, content.prompt, is_raw=content.is_raw) for name, content in contents]
    if len(good) < len(rows):
        say(f"{len(rows) - len(good)} rows of {prompts} are no requests and are left out.")
    if not good:
        raise UsageError(f"{prompts} holds no request that could be answered.")
    return good[:limit]


def open_rows(loaded: LoadedModel, max_tokens: int, batch_size: int | None) -> OpenedRowEngine:
    """The engine for rows of their own length. Raises UsageError for a model that can't be run that way."""
    from lengthwise.engines.transformers.open import OpenedRowEngine, engine_for

    engine = engine_for(loaded, RunOptions(max_tokens=max_tokens, batch_size=batch_size))
    if not isinstance(engine, OpenedRowEngine):
        raise UsageError(f"This model runs by `generate` only; there is nothing to compare. {engine.description}")
    return engine


def that_fit(
    engine: OpenedRowEngine, requests: Sequence[Request], max_tokens: int
) -> tuple[list[Request], list[Prepared]]:
    """Those with room for an answer up to the limit, and what the engine says of them; the others, which contenders
    might treat differently, are counted aloud. Raises UsageError where none is left."""
    prepared = zip(requests, engine.prepare(requests), strict=True)
    fit = [(request, one) for request, one in prepared if isinstance(one, Prepared) and one.max_tokens == max_tokens]
    if len(fit) < len(requests):
        say(f"{len(requests) - len(fit)} prompts leave no room for {max_tokens} tokens and are left out.")
    if not fit:
        raise UsageError(f"No prompt leaves room for an answer of {max_tokens} tokens; lower --max-tokens.")
    return [request for request, _ in fit], [one for _, one in fit]
