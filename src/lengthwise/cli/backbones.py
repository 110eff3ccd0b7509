"""Which language model a predictor asks or looks into: one that is loaded here, or one behind servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli.console import quiet_transformers
from lengthwise.engines.openai import ServerOptions
from lengthwise.engines.transformers import ModelOptions
from lengthwise.errors import UsageError
from lengthwise.protocols import Backbone

_PANEL = "Language model (of predictors that ask one, or look into one)"

Model = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|DIR_OR_HUB_ID",
        help="The model; without it, the bundled one. With --base-url its name there.",
        rich_help_panel=_PANEL,
    ),
]
ChatTemplate = Annotated[
    str,
    typer.Option(
        metavar="auto|none|vicuna|FILE", help="How messages become text; auto: the model's own.", rich_help_panel=_PANEL
    ),
]
BaseUrl = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL [URL ...]",
        help="Ask servers with OpenAI's API; they can't be looked into.",
        rich_help_panel=_PANEL,
    ),
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The environment variable that holds their key.", rich_help_panel=_PANEL),
]


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """What the command line says of the model, as it was given."""

    model: str | None = None
    chat_template: str = "auto"
    base_url: list[str] | None = None
    api_key_env: str | None = None

    def open(self) -> Backbone:
        """Load the model, or see whether the servers are what they should be. Raises ModelError or UsageError."""
        if self.base_url:
            self._refuse("chat_template", "for a model that is loaded here; servers have their own")
            from lengthwise.engines.openai import open_openai

            return open_openai(ServerOptions(tuple(self.base_url), self.model, self.api_key_env)).backbone()
        self._refuse("api_key_env", "of servers; add --base-url, or leave it out")
        quiet_transformers()
        from lengthwise.engines.transformers.backbone import open_backbone

        return open_backbone(ModelOptions(self.model, chat_template=self.chat_template))

    def open_for(self, predictor: str | Path) -> Backbone | None:
        """`open` for one that needs a model. None for another, for which nothing may be said of one: UsageError."""
        from lengthwise.predictors.saved import needs_backbone

        if needs_backbone(predictor):
            return self.open()
        self.refuse_all(f"{predictor} asks no language model")
        return None

    def refuse_all(self, why: str) -> None:
        """Raise UsageError where anything was given: no option is passed over in silence."""
        for name in self.__dataclass_fields__:
            self._refuse(name, f"for predictors that ask a language model, and {why}; leave it out")

    def _refuse(self, name: str, why: str) -> None:
        if getattr(self, name) != getattr(BackboneChoice(), name):
            raise UsageError(f"--{name.replace('_', '-')} is an option {why}.")


DEFAULTS = BackboneChoice()
