"""The three ops of a sync: fetch, diff, apply. They hand over a reference, never the items."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from dagster import (
    AssetCheckEvaluation,
    Config,
    DataVersion,
    Failure,
    In,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    Output,
    op,
)
from pydantic import Field

from sync_pipelines.database.tables import FULL
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.redaction import described, message_of, redact, trace_of
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import AccountsError, ConfigurationError, RunError, SyncPipelinesError, TooManyFailedError
from sync_pipelines.orchestration.checks import RESULT_CHECKS, evaluation
from sync_pipelines.orchestration.data_versions import report_fetch, version_of, versioned_output
from sync_pipelines.orchestration.definition_metadata import declared_table_of, lineage_metadata
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines.orchestration.metadata import ENTRIES_SHOWN, more_about, plan_metadata, result_metadata
from sync_pipelines.orchestration.tags import (
    KIND_TAG,
    OUTCOME_TAG,
    OUTCOMES,
    PLAN_TAG,
    SYNC_TAG,
    op_tags,
    tag_with_sync,
)
from sync_pipelines.runner.calls.target_driver import describe_target
from sync_pipelines.runner.context.run_log import RunReport
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.plans.plan_view import open_plan
from sync_pipelines.runner.runs.apply_plan import PlanRun
from sync_pipelines.runner.runs.comparing_run import PlanRef, SnapshotRef
from sync_pipelines.runner.runs.dry_run import DryRun
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.runner.runs.session import Run

AnyRun = TypeVar("AnyRun", bound=Run)


def op_name(job: AnyJob, op_kind: str) -> str:
    """Names an op's definition, with three underscores, because no asset key and no job name can have them."""
    return f"{job.dagster_name}___{op_kind}"


class SelectionConfig(Config):
    """What the launchpad asks for."""

    # no `ge=1`: pydantic would stop the op before anything could say so clearly
    limit: int | None = Field(default=None, description="Take only the first so many items. No deletes then.")
    only: list[str] = Field(
        default_factory=list, description="Take only the items with these external ids. No deletes then."
    )
    dry_run: bool = Field(
        default=False, description="Fetch and compare, write nothing to the target, keep the plan to look at and apply."
    )
    apply_plan: str | None = Field(
        default=None, description="Fetch nothing: apply exactly this plan of a dry run, or of what guards withhold."
    )
    reason: str | None = Field(default=None, description="Why apply_plan is right; needed for what guards withhold.")


SELECTION = SelectionConfig.to_config_schema().as_field()
"""That as Dagster checks it: made once, for in a code location of many syncs it would be a tenth of the loading."""


def build_fetch_op(job: AnyJob) -> OpDefinition:
    """Builds the op that fetches all external items into a snapshot."""

    @op(
        name=op_name(job, "fetch"),
        description=f"Fetches all items of {job.name} into a durable snapshot. Writes nothing to the target.",
        ins={"source": In(Nothing), **{f"upstream_{number}": In(Nothing) for number, _ in enumerate(job.upstream)}},
        out=Out(SnapshotRef, io_manager_key="handover_io_manager"),
        config_schema=SELECTION,
        tags=op_tags(job, "fetch"),
    )
    def fetch(context: OpExecutionContext) -> SnapshotRef:
        config = SelectionConfig(**context.op_config)
        if config.apply_plan is not None:
            return _handed_on(context, config)
        if config.reason is not None:
            with failing_clearly(context):
                raise ConfigurationError("reason is for apply_plan; name the plan that it releases")
        with _sync_run(context, job, DryRun if config.dry_run else SyncRun) as (run, workspace):
            snapshot = replace(run.fetch(limit=config.limit, only=config.only), dry_run=config.dry_run)
            report_fetch(context, job, workspace, snapshot)
        context.add_output_metadata({"items": snapshot.items, "more about it": more_about(snapshot.run_id)})
        return snapshot

    return fetch


def build_diff_op(job: AnyJob) -> OpDefinition:
    """Builds the op that compares the snapshot with the local records."""

    @op(
        name=op_name(job, "diff"),
        description=f"Compares the snapshot of {job.name} with the local records and leaves a plan. Writes nothing.",
        ins={"snapshot": In(SnapshotRef)},
        out=Out(PlanRef, io_manager_key="handover_io_manager"),
        tags=op_tags(job, "diff"),
    )
    def diff(context: OpExecutionContext, snapshot: SnapshotRef) -> PlanRef:
        if snapshot.plan_id is not None:
            return PlanRef(snapshot.run_id, 0, plan_id=snapshot.plan_id, reason=snapshot.reason)
        with _sync_run(context, job, DryRun if snapshot.dry_run else SyncRun) as (run, _):
            plan = replace(run.diff(snapshot), dry_run=snapshot.dry_run)
        context.add_output_metadata({"planned writes": plan.writes, "more about it": more_about(plan.run_id)})
        if plan.dry_run:
            shown = open_plan(plan.run_id)
            context.add_output_metadata(dict(plan_metadata(shown, islice(shown.entries(), ENTRIES_SHOWN))))
        return plan

    return diff


def build_apply_op(job: AnyJob) -> OpDefinition:
    """Yields the op that writes what the plan says, and reports."""

    @op(
        name=op_name(job, "apply"),
        description=f"Creates and updates the local records of {job.name} as planned; a failed item stops no other.",
        ins={"plan": In(PlanRef)},
        out=Out(Nothing, is_required=False),  # after a dry run there is none: the asset is what it was
        tags=op_tags(job, "apply"),
    )
    def apply(context: OpExecutionContext, plan: PlanRef) -> Iterator[Output[None] | AssetCheckEvaluation]:
        unseen: list[AssetCheckEvaluation] = []
        try:
            results, version = _carried_out(context, job, plan, unseen)
        except Failure:
            yield from unseen
            raise
        tag_outcome(context, results.outcome)
        if results.plan_id is not None:
            context.instance.add_run_tags(context.run_id, {PLAN_TAG: results.plan_id})
        if not results.dry_run:
            lineage = lineage_metadata(job, declared_table_of(job))
            yield versioned_output({**result_metadata(results, describe_target(job)), **lineage}, version)

    return apply


def _handed_on(context: OpExecutionContext, config: SelectionConfig) -> SnapshotRef:
    """Returns what fetch leaves for a plan that is to be applied."""
    with failing_clearly(context):
        if config.limit is not None or config.only or config.dry_run:
            raise ConfigurationError("apply_plan applies a plan as it is; leave out limit, only and dry_run")
    context.log.info("fetch: nothing is fetched; the plan %s is applied", config.apply_plan)
    return SnapshotRef("", 0, plan_id=config.apply_plan, reason=config.reason)


def _carried_out(
    context: OpExecutionContext, job: AnyJob, plan: PlanRef, unseen: list[AssetCheckEvaluation]
) -> tuple[SyncResults, DataVersion | None]:
    """Returns what became of a plan, which is applied or kept for later, and the data version of the asset then.

    Args:
        unseen: Gets the checks that no step of the run comes to, because this one fails.
    """
    if plan.plan_id is not None:
        with _sync_run(context, job, PlanRun) as (run, workspace), _checking(job, unseen):
            results = run.apply_kept(plan.plan_id, plan.reason, f"Dagster run {context.run_id}")
            return results, version_of(workspace.data_versions, job)
    if plan.dry_run:
        with _sync_run(context, job, DryRun) as (run, _):
            return run.finish(plan), None
    with _sync_run(context, job, SyncRun) as (run, workspace), _checking(job, unseen):
        return run.apply(plan), version_of(workspace.data_versions, job)


@contextmanager
def _checking(job: AnyJob, unseen: list[AssetCheckEvaluation]) -> Iterator[None]:
    try:
        yield
    except (AccountsError, TooManyFailedError) as error:
        if isinstance(error.results, SyncResults):
            unseen += [evaluation(check, job, error.results) for check in RESULT_CHECKS]
        raise


def tag_outcome(context: OpExecutionContext, outcome: str) -> None:
    """Tags the Dagster run with what became of the sync; of several syncs in one run the worst counts."""
    run = context.instance.get_run_by_id(context.run_id)
    known = run.tags.get(OUTCOME_TAG, outcome) if run else outcome
    worst = max(known, outcome, key=OUTCOMES.index)
    context.instance.add_run_tags(context.run_id, {OUTCOME_TAG: worst})


@contextmanager
def _sync_run(context: OpExecutionContext, job: AnyJob, kind: type[AnyRun]) -> Iterator[tuple[AnyRun, Workspace]]:
    with failing_clearly(context), open_workspace() as workspace:
        if (
            SYNC_TAG not in context.run.tags
        ):  # of no job of ours: Materialize, an automation, a job of the project's own
            is_alone = context.run.asset_selection == {asset_key(job)}
            tag_with_sync(context.instance, context.run, job, is_alone=is_alone)
        if kind.kind.name != FULL:  # a job's own tag says what it does unless it is asked for something else
            context.instance.add_run_tags(context.run_id, {KIND_TAG: kind.kind.name})
        yield kind(job, workspace, RunReport(context.log), context.run_id, workspace.wait_s), workspace


@contextmanager
def failing_clearly(context: OpExecutionContext) -> Iterator[None]:
    """Turns an error into a failure that an operator can read, and tags the run; the trace goes to the debug log."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - an op's edge: whatever it is, it becomes a clear failure of the run
        tag_outcome(context, "failed")
        context.log.debug(trace_of(error))
        results = error.results if isinstance(error, RunError) else None
        metadata = result_metadata(results) if results is not None else {}
        # without the cause: Dagster would store its text, which may hold secrets, as it is
        raise Failure(_failure_text(error), metadata=dict(metadata), allow_retries=False) from None


def _failure_text(error: Exception) -> str:
    message = message_of(error) if isinstance(error, SyncPipelinesError) else described(error)
    return redact("\n".join([message, *getattr(error, "__notes__", ())]))
