"""Which engine answers: a model that is loaded here, or servers behind HTTP."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from lengthwise import __version__
from lengthwise.bundled import NAME, is_bundled
from lengthwise.cli.console import quiet_transformers
from lengthwise.engines.openai import ServerOptions
from lengthwise.engines.openai.options import MaxTokensField, Priority
from lengthwise.engines.transformers import ModelOptions, RunOptions
from lengthwise.errors import ModelError, UsageError
from lengthwise.protocols import Engine

EngineKind = Literal["transformers", "openai"]

_SERVER = "Server (--engine openai)"
_DEFAULTS = ServerOptions(("http://localhost",))

EngineOption = Annotated[
    EngineKind,
    typer.Option("--engine", help="transformers: a model loaded here; openai: any server with OpenAI's API."),
]
BaseUrl = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL [URL ...]",
        help="Where the API begins, mostly with /v1 at the end; several for several servers of one model.",
        rich_help_panel=_SERVER,
    ),
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The environment variable that holds the key; without it OPENAI_API_KEY, where it is set.",
        rich_help_panel=_SERVER,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(help="Requests at once; without it, found by throughput.", rich_help_panel=_SERVER),
]
PriorityOption = Annotated[
    Priority,
    typer.Option(
        "--priority",
        help="Send our order as the field `priority`, as the servers read it: lower is sooner (vLLM), or higher.",
        rich_help_panel=_SERVER,
    ),
]
Timeout = Annotated[float, typer.Option(help="Seconds that one answer may take.", rich_help_panel=_SERVER)]
MaxTokensFieldOption = Annotated[
    MaxTokensField,
    typer.Option(
        "--max-tokens-field",
        help="What the limit is called; OpenAI's reasoning models want max_completion_tokens.",
        rich_help_panel=_SERVER,
    ),
]


def spread_base_urls(arguments: Sequence[str]) -> list[str]:
    """`--base-url A B` as `--base-url A --base-url B`: an option takes one value, and prompts never lie at an URL."""
    spread: list[str] = []
    is_after_url = False
    for argument in arguments:
        is_url = argument.startswith(("http://", "https://"))
        if is_url and is_after_url and spread[-1] != "--base-url":
            spread.append("--base-url")
        is_after_url = argument.split("=")[0] == "--base-url" or (is_url and is_after_url)
        spread.append(argument)
    return spread


@dataclass(frozen=True, slots=True)
class AskedOfServers:
    """What the command line says of servers, as it was given."""

    base_url: list[str] | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    priority: Priority = _DEFAULTS.priority
    timeout: float = _DEFAULTS.timeout_s
    max_tokens_field: MaxTokensField = _DEFAULTS.max_tokens_field

    def options(self, model: str | None, max_tokens: int) -> ServerOptions:
        """Raises UsageError on a value out of range."""
        return ServerOptions(
            tuple(self.base_url or ()),
            model,
            self.api_key_env,
            self.concurrency,
            max_tokens,
            self.max_tokens_field,
            self.priority,
            self.timeout,
        )


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What answers: `server` where it is there, else `model`, run as `run` says."""

    model: ModelOptions
    run: RunOptions
    server: ServerOptions | None = None


def choose_engine(kind: EngineKind, model: ModelOptions, run: RunOptions, asked: AskedOfServers) -> EngineChoice:
    """The engine that a command line asks for. Raises UsageError on options that contradict each other: none is passed
    over in silence."""
    if kind == "transformers":
        _refuse(asked, AskedOfServers(), "of servers; add --engine openai, or leave it out")
        return EngineChoice(model, run)
    if not asked.base_url:
        raise UsageError("--engine openai needs to know where: give --base-url, like http://localhost:8000/v1.")
    loaded_here = "for a model that is loaded here, and --engine openai loads none"
    _refuse(model, ModelOptions(model=model.model), f"{loaded_here}; leave it out")
    _refuse(run, RunOptions(max_tokens=run.max_tokens), f"{loaded_here}; leave it out, or see --concurrency")
    return EngineChoice(model, run, asked.options(model.model, run.max_tokens))


def _refuse(given: AskedOfServers | ModelOptions | RunOptions, expected: object, why: str) -> None:
    for field in fields(given):
        if getattr(given, field.name) != getattr(expected, field.name):
            raise UsageError(f"--{field.name.replace('_', '-')} is an option {why}.")


def open_engine(choice: EngineChoice) -> Engine:
    """Open it: load the model, or see whether the servers are what they should be. Raises ModelError or UsageError."""
    if choice.server is not None:
        from lengthwise.engines.openai import open_openai

        return open_openai(choice.server)
    quiet_transformers()
    from lengthwise.engines import transformers

    return transformers.open_engine(choice.model, choice.run)


def asked_for(choice: EngineChoice) -> str:
    """The model as it was asked for: equal texts are the same model, as far as names can say it. The bundled one is
    that of this version; of a server's it is the name alone, since servers move."""
    if choice.server is not None:
        return json.dumps(["served", choice.server.model])
    model = choice.model
    place = [NAME, __version__] if model.model is None or is_bundled(model.model) else _place(model.model)
    adapter = None if model.adapter is None else _place(model.adapter)
    return json.dumps([place, model.revision, adapter, model.quantization, template_digest(model.chat_template)])


def _place(name: str) -> str:
    return os.path.realpath(os.path.expanduser(name)) if is_folder(name) else name


def is_folder(name: str | None) -> bool:
    return name is not None and os.path.isdir(os.path.expanduser(name))


def template_digest(chosen: str) -> str | None:
    """A chat template by its name, a file by its content; None for the model's own. Raises ModelError."""
    if chosen in ("auto", "none", "vicuna"):
        return None if chosen == "auto" else chosen
    try:
        return f"sha256:{hashlib.sha256(Path(chosen).read_bytes()).hexdigest()}"
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The chat template {chosen!r} can't be read ({error}); it may be auto, none, vicuna or a Jinja file."
        ) from error
