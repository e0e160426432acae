"""The three ops of a sync: fetch, diff, apply. They hand over a reference, never the items."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster import AssetMaterialization, Config, Failure, In, Nothing, OpDefinition, OpExecutionContext, Out, op
from pydantic import Field

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.redaction import exception_type, message_of, redact, trace_of
from sync_pipelines.errors import RunError, SyncPipelinesError
from sync_pipelines.orchestration.keys import source_key
from sync_pipelines.orchestration.metadata import failure_metadata, more_about, result_metadata
from sync_pipelines.orchestration.tags import OUTCOME_TAG, OUTCOMES
from sync_pipelines.runner.reporting import RunReport
from sync_pipelines.runner.sync_run import PlanRef, SnapshotRef, SyncRun
from sync_pipelines.runner.target_driver import describe_target
from sync_pipelines.runner.workspace import open_workspace

AnyJob = SyncJob[Any, Any]


def op_name(job: AnyJob, op_kind: str) -> str:
    """The name of an op's definition; three underscores, because no asset key and no job name can have them."""
    return f"{job.dagster_name}___{op_kind}"


class SelectionConfig(Config):
    """What the launchpad asks for."""

    limit: int | None = Field(default=None, ge=1, description="Take only the first so many items. No deletes then.")
    only: list[str] = Field(
        default_factory=list, description="Take only the items with these external ids. No deletes then."
    )


def build_fetch_op(job: AnyJob) -> OpDefinition:
    """The op that fetches all external items into a snapshot."""

    @op(
        name=op_name(job, "fetch"),
        description=f"Fetches all items of {job.name} into a durable snapshot. Writes nothing to the target.",
        ins={"source": In(Nothing)},
        out=Out(SnapshotRef, io_manager_key="handover_io_manager"),
        tags={"kind": "fetch"},
    )
    def fetch(context: OpExecutionContext, config: SelectionConfig) -> SnapshotRef:
        with _sync_run(context, job) as run:
            snapshot = run.fetch(limit=config.limit, only=config.only)
        context.add_output_metadata({"items": snapshot.items, "more about it": more_about(snapshot.run_id)})
        context.log_event(
            AssetMaterialization(source_key(job), description="Fetched.", metadata={"items": snapshot.items})
        )
        return snapshot

    return fetch


def build_diff_op(job: AnyJob) -> OpDefinition:
    """The op that compares the snapshot with the local records."""

    @op(
        name=op_name(job, "diff"),
        description=f"Compares the snapshot of {job.name} with the local records and leaves a plan. Writes nothing.",
        ins={"snapshot": In(SnapshotRef)},
        out=Out(PlanRef, io_manager_key="handover_io_manager"),
        tags={"kind": "diff"},
    )
    def diff(context: OpExecutionContext, snapshot: SnapshotRef) -> PlanRef:
        with _sync_run(context, job) as run:
            plan = run.diff(snapshot)
        context.add_output_metadata({"planned writes": plan.writes, "more about it": more_about(plan.run_id)})
        return plan

    return diff


def build_apply_op(job: AnyJob) -> OpDefinition:
    """The op that writes what the plan says, and reports."""

    @op(
        name=op_name(job, "apply"),
        description=f"Creates and updates the local records of {job.name} as planned; a failed item stops no other.",
        ins={"plan": In(PlanRef)},
        out=Out(Nothing),
        tags={"kind": "apply"},
    )
    def apply(context: OpExecutionContext, plan: PlanRef) -> None:
        with _sync_run(context, job) as run:
            results = run.apply(plan)
        tag_outcome(context, results.outcome)
        context.add_output_metadata(dict(result_metadata(results, describe_target(job))))

    return apply


def tag_outcome(context: OpExecutionContext, outcome: str) -> None:
    """Tags the Dagster run with what became of the sync; of several syncs in one run the worst counts."""
    run = context.instance.get_run_by_id(context.run_id)
    known = run.tags.get(OUTCOME_TAG, outcome) if run else outcome
    worst = max(known, outcome, key=OUTCOMES.index)
    context.instance.add_run_tags(context.run_id, {OUTCOME_TAG: worst})


@contextmanager
def _sync_run(context: OpExecutionContext, job: AnyJob) -> Iterator[SyncRun]:
    with failing_clearly(context), open_workspace() as workspace:
        yield SyncRun(job, workspace, RunReport(context.log), context.run_id, workspace.wait_s)


@contextmanager
def failing_clearly(context: OpExecutionContext) -> Iterator[None]:
    """Turns an error into a failure that an operator can read, and tags the run; the trace goes to the debug log."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - an op's edge: whatever it is, it becomes a clear failure of the run
        tag_outcome(context, "failed")
        context.log.debug(trace_of(error))
        results = error.results if isinstance(error, RunError) else None
        # without the cause: Dagster would store its text, which may hold secrets, as it is
        raise Failure(_told(error), metadata=dict(failure_metadata(results)), allow_retries=False) from None


def _told(error: Exception) -> str:
    told = (
        message_of(error) if isinstance(error, SyncPipelinesError) else f"{exception_type(error)}: {message_of(error)}"
    )
    return redact("\n".join([told, *getattr(error, "__notes__", ())]))
