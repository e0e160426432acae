"""The commands below `webhooks`, with their arguments."""

# ruff: noqa: PLC0415 - what they do is imported when one is called, so that `--help` comes at once

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from sync_pipelines.cli.options import Debug, HowMany, Json
from sync_pipelines.cli.program import Command
from sync_pipelines.errors import ConfigurationError

webhooks_app = typer.Typer(
    name="webhooks",
    help="Receive webhooks, and look after the deliveries that came.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

command = partial(webhooks_app.command, cls=Command)


@command("serve")
def _serve(
    *,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen at; 0 takes a free one.")] = 8008,
    _debug: Debug = False,
) -> None:
    """Receive webhooks until Ctrl-C or TERM. What was accepted is finished first."""
    try:
        from sync_pipelines.cli.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the receiver needs {error.name}; install it: pip install 'sync-pipelines[webhooks]'"
        ) from error
    serve(host, port)


@command("list")
def _list(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A sync job.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Those of all sync jobs.")] = False,
    state: Annotated[str | None, typer.Option(help="Only those that are waiting, applied or failed.")] = None,
    limit: HowMany = 20,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """List deliveries, the newest first."""
    from sync_pipelines.cli.webhooks import list_deliveries

    list_deliveries(name, every=every, state=state, limit=limit, as_json=as_json)


@command("show")
def _show(
    delivery: Annotated[int, typer.Argument(metavar="ID", help="The number of a delivery.")],
    *,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show a delivery: what was sent, what became of it, why it failed."""
    from sync_pipelines.cli.webhooks import show_delivery

    show_delivery(delivery, as_json=as_json)


@command("replay")
def _replay(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Numbers of deliveries.")] = None,
    *,
    failed: Annotated[
        str | None, typer.Option("--failed", metavar="NAME", help="All of this sync job that have failed.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="As if they had just come, although newer ones or a fetch came since.")
    ] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Have deliveries wait to be applied again, unless something newer has come for their items since."""
    from sync_pipelines.cli.webhooks import replay

    replay(ids or [], failed=failed, force=force, as_json=as_json)


@command("drop")
def _drop(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="Numbers of deliveries, as `list` shows them.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Remove deliveries. What waits is then never applied."""
    from sync_pipelines.cli.webhooks import drop

    drop(ids, sure=yes, as_json=as_json)
