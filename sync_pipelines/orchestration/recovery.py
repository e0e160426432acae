"""A sensor that marks Dagster runs failed whose process has died.

After a power cut Dagster's own record of a run stays "started" for ever, and its tag would keep the next run of the
sync in the queue. Our lease decides: a run that works renews it.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
)

from sync_pipelines.database.leases import Lease
from sync_pipelines.database.ledger_faults import LedgerLockedError
from sync_pipelines.orchestration.start import sensor_status
from sync_pipelines.orchestration.tags import OUTCOME_TAG, SYNC_TAG
from sync_pipelines.runner.context.lease import is_dead
from sync_pipelines.runner.context.workspace import Workspace, open_workspace

LOOK_EVERY_S = 10
_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
_START_UP = timedelta(minutes=5)


def build_recovery_sensor() -> SensorDefinition:
    """Builds the sensor for all syncs, running from the start unless told otherwise."""
    return SensorDefinition(
        name="sync_recovery_sensor",
        evaluation_fn=_recover,
        minimum_interval_seconds=LOOK_EVERY_S,
        description="Marks runs failed whose process has died, so that the next run of their sync can start.",
        default_status=sensor_status(),
    )


def _recover(context: SensorEvaluationContext) -> SkipReason:
    with open_workspace() as workspace:
        recovered = [*_with_dead_lease(context.instance, workspace), *_without_lease(context.instance, workspace)]
    if not recovered:
        return SkipReason("every run that Dagster shows as started is alive")
    return SkipReason(f"marked as failed, because their process has died: {', '.join(recovered)}")


def _with_dead_lease(instance: DagsterInstance, workspace: Workspace) -> list[str]:
    """Runs whose lease has expired, or whose process is known to be dead."""
    expired = {lease.job for lease in workspace.leases.expired()}
    recovered: list[str] = []
    for lease in workspace.leases.held():
        if lease.job not in expired and not is_dead(lease.holder.process):
            continue
        with suppress(LedgerLockedError):  # a run that has stopped while it wrote has its row; it has expired anyway
            workspace.leases.release(lease)
        recovered += _fail(instance, lease)
    return recovered


def _fail(instance: DagsterInstance, lease: Lease) -> list[str]:
    run = instance.get_run_by_id(lease.holder.dagster_run_id) if lease.holder.dagster_run_id else None
    if run is None or run.status not in _UNFINISHED:
        return []
    _report_failed(
        instance,
        run,
        f"The process of this run ({lease.holder.described}) died or stalled: it no longer renews its lease. "
        "Nothing is lost: run the sync again, or re-execute this run from failure.",
    )
    return [run.run_id]


def _without_lease(instance: DagsterInstance, workspace: Workspace) -> list[str]:
    """Runs that died before they took a lease, or between two ops: nobody has waited that long for one."""
    alive = {lease.holder.dagster_run_id for lease in workspace.leases.held()}
    longest = timedelta(seconds=workspace.wait_s) + workspace.lease + _START_UP
    recovered: list[str] = []
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED)):
        run = record.dagster_run
        is_ours = SYNC_TAG in run.tags and run.run_id not in alive
        if is_ours and _last_sign_at(record.start_time, record.update_timestamp) < workspace.clock() - longest:
            _report_failed(instance, run, "This run shows no sign of life: its process died. Run the sync again.")
            recovered.append(run.run_id)
    return recovered


def _last_sign_at(start_time: float | None, updated_at: datetime) -> datetime:
    started_at = datetime.fromtimestamp(start_time, updated_at.tzinfo) if start_time else updated_at
    return max(started_at, updated_at)


def _report_failed(instance: DagsterInstance, run: DagsterRun, message: str) -> None:
    instance.add_run_tags(run.run_id, {OUTCOME_TAG: "failed"})
    instance.report_run_failed(run, message)
