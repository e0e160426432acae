"""`run_sync`: the three phases now, in this process, with no Dagster running."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.progress import OnProgress
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings


def run_sync(  # noqa: PLR0913 - one job and its options, by keyword
    job: SyncJob[Any, Any],
    *,
    limit: int | None = None,
    only: Collection[str] | None = None,
    on_progress: OnProgress | None = None,
    settings: Settings | None = None,
    log: logging.Logger | None = None,
    wait_s: float = 0.0,
    dry_run: bool = False,
) -> SyncResults:
    """Runs a sync now and gives its results. Items that fail are in the results; the others go on.

    Also works inside a running event loop (a notebook, a web handler), which it blocks until it is done.

    Args:
        job: The sync job; it need not be registered.
        limit: Take only the first so many items. No deletes then.
        only: Take only the items with these external ids, in any spelling; by default all. No deletes then.
        on_progress: Called with a `Progress` after every page and batch.
        settings: By default those of the environment.
        log: Where the run log goes; by default the logger `sync_pipelines`.
        wait_s: Seconds to wait at most while another run of this sync is under way, wherever it runs.
        dry_run: Write nothing to the target: fetch, compare, and keep the plan. The results say what would be written
            (`planned`) and name the plan (`plan_id`), which `open_plan` shows and `apply_plan` applies. `on_start` is
            called, `on_complete` is not, because nothing is applied.

    Raises:
        SyncBusyError: Another run of this sync is still under way; nothing was done.
        ConfigurationError: A declaration, a setting or a table is wrong; nothing was written.
        FetchError: The source broke off; nothing was applied. Carries `items_fetched`.
        TargetError: The target broke off; what was applied is accounted for in `results`.
        TooManyFailedError: More items failed than `fail_above` allows; all others were applied.
        HookError: `on_start` failed (nothing was fetched) or `on_complete` (everything was applied).
    """
    if not isinstance(job, SyncJob):
        raise ConfigurationError(
            f"run_sync: {job!r} is no SyncJob; give the declaration itself, such as the JOB of a file"
        )
    if only is not None and not only:
        raise ConfigurationError(f"{job.name}: only is empty: give external ids, or leave it out for all items")
    with open_workspace(settings) as workspace:
        if dry_run:
            return _plan(DryRun(job, workspace, RunReport(log, on_progress), wait_s=wait_s), limit, only or ())
        run = SyncRun(job, workspace, RunReport(log, on_progress), wait_s=wait_s)
        results = run.apply(run.diff(run.fetch(limit=limit, only=only or ())))
        if results.plan_id is None:  # what is withheld needs them
            workspace.store.files_of(results.run_id).remove()
    return results


def _plan(run: DryRun, limit: int | None, only: Collection[str]) -> SyncResults:
    return run.finish(run.diff(run.fetch(limit=limit, only=only)))
