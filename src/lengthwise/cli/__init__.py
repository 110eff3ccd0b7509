"""The command `lengthwise`. One file a subcommand; `app.py` registers them, a line each.

Exit codes: 0 done, 1 some requests failed or the engine broke, 2 wrong usage, 130 and 143 interrupted (by SIGINT, by
SIGTERM), 141 nobody reads the answers any more.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (None: those of the process) and return its exit code. Never raises for what
    a user did wrong: that is one sentence on stderr."""
    try:
        from lengthwise.cli.app import run_app

        return run_app(arguments)
    except KeyboardInterrupt:  # before there was anything to stop cleanly
        return 130
