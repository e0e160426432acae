"""What must hold of a run's accounts before it may count as done."""

from __future__ import annotations

from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import AccountsError, TooManyFailedError
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.runs.results import results_of_run


def require_good_accounts(job: SyncJob[Any, Any], workspace: Workspace, run_id: str) -> None:
    """Makes sure that every fetched item has one outcome, and that no more failed than the job allows.

    Raises:
        AccountsError: The outcomes do not add up.
        TooManyFailedError: More items failed than `fail_above` allows.
    """
    results = require_balance(job, workspace, run_id)
    if results.exceeds(job.fail_above):
        raise TooManyFailedError(
            f"{job.name}: {results.error_count:,} of {results.fetched:,} items failed, and fail_above is "
            f"{job.fail_above}; all others were applied. `sync-pipelines show {run_id[:8]}` lists the errors."
        )


def require_balance(job: SyncJob[Any, Any], workspace: Workspace, run_id: str) -> SyncResults:
    """Makes sure that every fetched item has one outcome; gives what is known of the run.

    Raises:
        AccountsError: The outcomes do not add up.
    """
    results = results_of_run(workspace, run_id)
    if not results.accounts_balance:
        raise AccountsError(
            f"{job.name}: the accounts of run {run_id} do not balance: {results.counts()}. This is a defect of the "
            "engine or of a target that reports what it did not do; keep the run's files and report it."
        )
    return results
