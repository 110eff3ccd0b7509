"""Subcommands, and how their errors are said."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lengthwise import __version__
from lengthwise.cli import (
    bench,
    calibrate,
    collect,
    data,
    demo,
    estimate,
    import_,
    predict,
    run,
    score,
    simulate,
    train,
)
from lengthwise.cli.console import say
from lengthwise.cli.engines import spread_base_urls
from lengthwise.errors import LengthwiseError, UsageError

app = typer.Typer(
    name="lengthwise",
    help="Know how long a language model's answer will be before it is written, and schedule for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run")(run.run)
app.command("predict")(predict.predict)
app.command("estimate")(estimate.estimate)
app.command("collect")(collect.collect)
app.command("train")(train.train)
app.command("calibrate")(calibrate.calibrate)
app.command("score")(score.score)
app.command("simulate")(simulate.simulate)
app.command("demo")(demo.demo)
app.command("import")(import_.import_)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")

EXIT_FAILED, EXIT_USAGE = 1, 2


def run_app(arguments: Sequence[str] | None) -> int:
    """The exit code of one run of the command; errors of this package and of usage are said on stderr."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(args=spread_base_urls(given), prog_name="lengthwise", standalone_mode=False)
    except LengthwiseError as error:
        say(str(error))
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except typer.TyperException as error:
        if said := _one_line(error):
            say(said)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _one_line(error: typer.TyperException) -> str:
    """What is wrong with the command line, and where to look. Without arguments that is the help itself."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None or "\n" in message or not message.strip():
        return message.strip()
    return f"{message.rstrip('.?')}. See `{context.command_path} --help`."


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"lengthwise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Know how long a language model's answer will be before it is written, and schedule for it."""
