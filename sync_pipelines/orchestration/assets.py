"""A graph-backed asset per sync, the external asset it reads, and the check on its items."""

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetIn,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    ConfigMapping,
    Nothing,
    asset_check,
    graph_asset,
)

from sync_pipelines.database.tables import DRY_RUN
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.orchestration.keys import asset_key, source_key
from sync_pipelines.orchestration.metadata import check_metadata
from sync_pipelines.orchestration.ops import SelectionConfig, build_apply_op, build_diff_op, build_fetch_op
from sync_pipelines.runner.outcome import results_of_run
from sync_pipelines.runner.workspace import Workspace, open_workspace

AnyJob = SyncJob[Any, Any]

_ITEMS_FAILED = "items_failed"
_LOOK_BACK = 100


def build_asset(job: AnyJob) -> AssetsDefinition:
    """The asset with its ops fetch, diff and apply, and `limit` and `only` at the top of its config."""
    fetch, diff, apply = build_fetch_op(job), build_diff_op(job), build_apply_op(job)

    @graph_asset(
        key=asset_key(job),
        description=job.description or f"The local records that the sync `{job.name}` keeps in step with their source.",
        ins={"source": AssetIn(source_key(job), dagster_type=Nothing)},
        config=ConfigMapping(
            config_fn=_to_fetch, config_schema=SelectionConfig.to_config_schema().as_field().config_type
        ),
        group_name=job.group,
        owners=list(job.owners) or None,
        kinds=set(job.kinds) or None,
        tags=dict(job.tags) or None,
        metadata={"sync job": job.name},
    )
    def asset(source: Any) -> Any:
        return apply.alias("apply")(diff.alias("diff")(fetch.alias("fetch")(source)))

    return asset


def _to_fetch(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"fetch": {"config": dict(config)}}


def build_source_specs(jobs: Sequence[AnyJob]) -> list[AssetSpec]:
    """The external assets upstream, each once however many syncs read it."""
    written = {asset_key(job) for job in jobs}
    readers: dict[AssetKey, list[AnyJob]] = {}
    for job in jobs:
        if source_key(job) not in written:  # else this sync reads what another one writes
            readers.setdefault(source_key(job), []).append(job)
    return [
        AssetSpec(
            key,
            description=f"In the external system; read by the sync {', '.join(job.name for job in reading)}.",
            # in a group of its own: the lineage shows only the last part of a key, and both sides may be "products"
            group_name=key.path[0],
            kinds={"source"},
        )
        for key, reading in readers.items()
    ]


def build_items_failed_check(job: AnyJob) -> AssetChecksDefinition:
    """A warning on the asset when items of the last run failed. It never fails the run."""

    @asset_check(
        asset=asset_key(job),
        name=_ITEMS_FAILED,
        description="Warns when items of the last run failed. The others were applied.",
    )
    def items_failed(context: AssetCheckExecutionContext) -> AssetCheckResult:
        with open_workspace() as workspace:
            results = _results_of(workspace, job, context.run.run_id)
        if results is None:
            return AssetCheckResult(passed=True, description="The sync has not run yet.")
        return AssetCheckResult(
            passed=not results.error_count,
            severity=AssetCheckSeverity.WARN,
            description=_told(results),
            metadata=check_metadata(results),
        )

    return items_failed


def items_failed_evaluation(job: AnyJob, results: SyncResults) -> AssetCheckEvaluation:
    """The same check, for a drain to report together with what it applied."""
    return AssetCheckEvaluation(
        asset_key=asset_key(job),
        check_name=_ITEMS_FAILED,
        passed=not results.error_count,
        severity=AssetCheckSeverity.WARN,
        description=_told(results),
        metadata=check_metadata(results),
    )


def _told(results: SyncResults) -> str:
    return f"{results.error_count:,} of {results.fetched:,} items failed."


def _results_of(workspace: Workspace, job: AnyJob, dagster_run_id: str) -> SyncResults | None:
    """The results of the Dagster run; of a run that only checks, those of the sync's last run."""
    run = workspace.ledger.run_of_dagster(dagster_run_id, job.name)
    if run is None:
        runs = workspace.ledger.latest_runs(job.name, limit=_LOOK_BACK)
        run = next((each for each in runs if each.kind != DRY_RUN), None)  # which says nothing of the asset
    return results_of_run(workspace, run.id) if run is not None else None
