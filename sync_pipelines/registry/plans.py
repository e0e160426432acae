"""`apply_plan`: a plan that waits, applied to what it was made for."""

from __future__ import annotations

import logging
from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.progress import OnProgress
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.registry.registry import find_job
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.plans.plan_view import find_plan
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.settings.model import Settings


def apply_plan(  # noqa: PLR0913 - one plan and its options, by keyword
    plan_id: str,
    *,
    reason: str | None = None,
    released_by: str | None = None,
    job: SyncJob[Any, Any] | None = None,
    settings: Settings | None = None,
    on_progress: OnProgress | None = None,
    log: logging.Logger | None = None,
    wait_s: float = 0.0,
) -> SyncResults:
    """Applies exactly the plan that a dry run has left, or what guards have withheld of a run, once.

    Nothing is fetched or compared anew.

    Before an entry is written its local record is looked up. One that is no longer what it was when the plan was made
    is left as it is; the entry has failed then, with a `StalePlanError` that says what differs. One that is already as
    the plan wants it counts as unchanged. What the dry run had settled (unchanged, skipped, failed, duplicates) is in
    the counts as well. A plan is applied once; of an attempt that broke off, calling again goes on with the rest.

    Args:
        plan_id: The plan's id (`results.plan_id` of the dry run), or the beginning of it.
        reason: Why it is right. Needed for what guards withhold; kept with the plan and in the notes of the run.
        released_by: Who says so; by default the user who runs this process.
        job: The sync job, if it is not in the registry.
        settings: By default those of the environment.
        on_progress: Called with a `Progress` after every batch.
        log: Where the run log goes; by default the logger `sync_pipelines`.
        wait_s: Seconds to wait at most while another run of this sync is under way.

    Raises:
        ConfigurationError: There is no such plan or job, or a declaration, a setting or a table is wrong.
        PlanError: The plan is applied already, has expired, was made for something else, or guards withhold it and
            there is no reason; nothing was written.
        SyncBusyError: Another run of this sync is still under way; nothing was done.
        TargetError: The target broke off; what was applied is accounted for. Apply the plan again to go on.
        HookError: `on_start` failed (nothing was written) or `on_complete` (everything was).
    """
    with open_workspace(settings) as workspace:
        known = job or find_job(find_plan(workspace, plan_id).job)
        return PlanRun(known, workspace, RunReport(log, on_progress), wait_s=wait_s).apply_kept(
            plan_id, reason, released_by
        )
