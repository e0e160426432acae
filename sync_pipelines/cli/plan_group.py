"""The commands below `plan`, with their arguments. `plan NAME` is `plan make NAME`."""

# ruff: noqa: PLC0415 - what they do is imported when one is called, so that `--help` comes at once

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sync_pipelines.cli.options import Debug, JobName, Json, Limit, Only, Wait
from sync_pipelines.cli.program import Command

PlanId = Annotated[str, typer.Argument(metavar="ID", help="The id of a plan, or its beginning.")]
_DEFAULT = "make"


class PlanGroup(TyperGroup):
    """Takes what is no command for the name of a sync job."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the word that may be left out where it belongs."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


plan_app = typer.Typer(
    name="plan",
    cls=PlanGroup,
    help="Dry run: fetch and compare, write nothing, keep the plan. `plan NAME` makes one, `plan show ID` shows it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

command = partial(plan_app.command, cls=Command)


@command(_DEFAULT)
def _make(
    name: JobName,
    *,
    limit: Limit = None,
    only: Only = None,
    wait: Wait = 0,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Fetch and compare, and keep the plan; nothing is written to the target. The word `make` may be left out."""
    from sync_pipelines.cli.plans import make_plan
    from sync_pipelines.cli.run import RunOptions

    raise typer.Exit(make_plan(name, RunOptions(limit, only or [], wait), as_json=as_json))


@command("show")
def _show(  # noqa: PLR0913 - the options of the command
    plan: PlanId,
    *,
    action: Annotated[str | None, typer.Option(help="Only the entries that create, update or delete.")] = None,
    field: Annotated[str | None, typer.Option(help="Only the entries that change this field.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than so many entries.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout: a row per field.")] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show a plan whole, with the fields' old and new values."""
    from sync_pipelines.cli.plans import Filters, show_plan

    show_plan(plan, Filters(action, field, limit), as_json=as_json, as_csv=as_csv)
