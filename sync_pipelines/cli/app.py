"""The commands with their arguments. What they do is imported when one is called, so that `--help` comes at once."""

# ruff: noqa: PLC0415 - for that reason

from __future__ import annotations

import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from sync_pipelines.cli.options import Debug, HowMany, JobName, Json, Limit, Only, OptionalJobName, Wait
from sync_pipelines.cli.plan_group import PlanId, plan_app
from sync_pipelines.cli.program import Command, Program, end
from sync_pipelines.cli.webhooks_group import webhooks_app

app = typer.Typer(
    name="sync-pipelines",
    cls=Program,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 clean; 1 partial or failed; 2 usage or configuration; 3 guarded; 130 or 143 stopped.",
)

command = partial(app.command, cls=Command)
app.add_typer(plan_app)
app.add_typer(webhooks_app)


def main() -> None:
    """Runs the command `sync-pipelines`."""
    # an installed command does not see the current folder, where a company's jobs package is; `python -m` does
    sys.path.insert(0, str(Path.cwd()))
    end(lambda: app(prog_name="sync-pipelines"))


def _show_version(value: bool) -> None:  # noqa: FBT001 - as typer calls it
    if not value:
        return
    try:
        typer.echo(f"sync-pipelines {metadata.version('sync-pipelines')}")
    except metadata.PackageNotFoundError:
        typer.echo("sync-pipelines (run from its source folder, not installed)")
    raise typer.Exit


@app.callback()
def _program(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Keeps local tables in step with external systems: runs syncs, and shows what they did."""


@command("list")
def _list(*, as_json: Json = False, _debug: Debug = False) -> None:
    """List the sync jobs: schedule, source, target, last run; and what is wrong with job files."""
    from sync_pipelines.cli.list_jobs import list_jobs

    raise typer.Exit(list_jobs(as_json=as_json))


@command("check")
def _check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Sync jobs; without a name, all.")
    ] = None,
    *,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Check settings, ledger, snapshot store, job files and tables. Asks no source, writes no local record."""
    from sync_pipelines.cli.check import check

    raise typer.Exit(check(names or [], as_json=as_json))


@command("run")
def _run(
    name: JobName,
    *,
    limit: Limit = None,
    only: Only = None,
    wait: Wait = 0,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Run a sync now, in this process. Ctrl-C stops it cleanly; the next run goes on."""
    from sync_pipelines.cli.run import RunOptions, run

    raise typer.Exit(run(name, RunOptions(limit, only or [], wait), as_json=as_json))


@command("plans")
def _plans(
    name: OptionalJobName = None,
    *,
    limit: HowMany = 20,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """List the plans of dry runs and of what guards withheld, the newest first, and what became of them."""
    from sync_pipelines.cli.plans import show_plans

    show_plans(name, limit=limit, as_json=as_json)


@command("apply")
def _apply(
    plan: PlanId,
    *,
    reason: Annotated[str | None, typer.Option(help="Why it is right; needed for what guards withhold.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so; by default the user of this terminal.")] = None,
    wait: Wait = 0,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Apply exactly what a plan says, once. What has changed since is refused; after Ctrl-C, again goes on."""
    from sync_pipelines.cli.plans import apply

    raise typer.Exit(apply(plan, reason=reason, released_by=by, wait_s=wait, as_json=as_json))


@command("failures")
def _failures(  # noqa: PLR0913 - the options of the command
    name: OptionalJobName = None,
    *,
    one_by_one: Annotated[bool, typer.Option("--list", help="A line per item, not per cause.")] = False,
    external_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="All about the item with this external id.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="Only those that are open, given-up or resolved; by default open and given-up.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many causes or items.")] = 20,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show the items that failed and have not succeeded since: of a sync by cause or one by one, of all counted."""
    from sync_pipelines.cli.failures import FailureFilter, show_counts, show_failure, show_failures
    from sync_pipelines.errors import ConfigurationError

    if name is None:
        if external_id is not None or state is not None or one_by_one:
            raise ConfigurationError(
                "--list, --id and --state are about one sync; name it: sync-pipelines failures NAME"
            )
        show_counts(as_json=as_json)
    elif external_id is not None:
        show_failure(name, external_id, as_json=as_json)
    else:
        show_failures(name, FailureFilter(state, limit, one_by_one), as_json=as_json)


@command("retry")
def _retry(
    name: JobName,
    *,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Try the item with this external id, due or not; may be repeated."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Try all that are open or given up, whenever they are due.")
    ] = False,
    wait: Wait = 0,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Try failed items again. Without --id or --all, those that are due."""
    from sync_pipelines.cli.failures import RetryChoice, retry

    raise typer.Exit(retry(name, RetryChoice(ids or [], everything, wait), as_json=as_json))


@command("item")
def _item(
    name: JobName,
    item: Annotated[str, typer.Argument(metavar="JSON", help="The item as a JSON object; - reads it from stdin.")],
    *,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Bring one local record up to an item, at once."""
    from sync_pipelines.cli.item import apply_one

    apply_one(name, item, as_json=as_json)


@command("trigger")
def _trigger(
    name: JobName,
    *,
    location: Annotated[
        str | None,
        typer.Option(
            help="The code location whose sync is meant, where several have one of that name; by default that of "
            "SYNC_PIPELINES_DAGSTER_LOCATION."
        ),
    ] = None,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Put a run on Dagster's queue. Prints the id of the Dagster run."""
    from sync_pipelines.cli.trigger import trigger

    trigger(name, location=location, as_json=as_json)


@command("new")
def _new(  # noqa: PLR0913 - the options of the command
    name: JobName,
    *,
    table: Annotated[str | None, typer.Option(help="Take columns and key from this table.")] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", exists=True, dir_okay=False, help="Take the fields from this item or these items."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Where to write; else the first jobs package."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Write a commented job file to fill in."""
    from sync_pipelines.cli.new import NewJobFile, write_job_file

    write_job_file(NewJobFile(name, table, sample, folder, force), as_json=as_json)


@command("runs")
def _runs(
    name: OptionalJobName = None,
    *,
    limit: HowMany = 20,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """List the runs that the ledger remembers, the newest first."""
    from sync_pipelines.cli.runs import list_runs

    list_runs(name, limit=limit, as_json=as_json)


@command("history")
def _history(
    name: JobName,
    external_id: Annotated[
        str, typer.Argument(metavar="EXTERNAL_ID", help="The record's id, as the source or as the target has it.")
    ],
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many events, the newest first.")] = 50,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show what happened to one record: what was written, with old and new values, failures, webhooks."""
    from sync_pipelines.cli.history import show_history

    raise typer.Exit(show_history(name, external_id, limit=limit, as_json=as_json))


@command("show")
def _show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The id of a run or its beginning, or the id of its Dagster run.")
    ],
    *,
    errors: Annotated[int, typer.Option(min=0, help="How many of the failed items.")] = 20,
    as_json: Json = False,
    _debug: Debug = False,
) -> None:
    """Show what the ledger has of a run. That is options, counts, times, notes, failure and failed items."""
    from sync_pipelines.cli.runs import show_run

    show_run(run, errors=errors, as_json=as_json)
