"""Puts Dagster's definitions together out of sync jobs."""

from collections.abc import Sequence
from typing import Any

from dagster import Definitions, ExecutorDefinition, JobDefinition, in_process_executor
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration.assets import build_asset, build_source_specs
from sync_pipelines.orchestration.automation import build_automation_sensor
from sync_pipelines.orchestration.broken_files import (
    BrokenAsset,
    JobsConflictError,
    build_broken_checks,
    build_broken_specs,
)
from sync_pipelines.orchestration.checks import build_checks
from sync_pipelines.orchestration.circles import require_no_circle
from sync_pipelines.orchestration.freshness import build_freshness_sensor
from sync_pipelines.orchestration.handover import handover_io_manager
from sync_pipelines.orchestration.jobs import (
    Resources,
    build_at_need,
    build_drain_job,
    build_sync_job,
    drain_job_name,
)
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines.orchestration.location import CODE_LOCATION
from sync_pipelines.orchestration.recovery import build_recovery_sensor
from sync_pipelines.orchestration.retries import build_retry_job, build_retry_sensor, names_of_jobs, retry_job_name
from sync_pipelines.orchestration.schedules import build_schedule
from sync_pipelines.orchestration.sensors import build_inbox_sensor
from sync_pipelines.orchestration.start import schedule_status
from sync_pipelines.settings.dagster import job_of_this_run

_INBOX, _RETRY, _RECOVERY, _FRESHNESS = (
    build_inbox_sensor(), build_retry_sensor(), build_recovery_sensor(), build_freshness_sensor(),
)  # fmt: skip
"""The sensors of all syncs: the same objects in whatever definitions are merged."""


def sync_definitions(*jobs: SyncJob[Any, Any], automation_sensor: bool = True) -> Definitions:
    """Returns the Dagster definitions of these syncs, to be merged into any project's own.

    They may come beside any others and be merged any number of times, each sync once: `Definitions.merge(theirs,
    sync_definitions(PRODUCTS), sync_definitions(STOCK))`. They bring no executor: the jobs of the syncs run in one
    process, and Materialize uses the project's own. The project may define the assets that `source_asset` names; what
    nobody defines, Dagster shows as an external asset.

    In the process of a run whose launcher sets `DAGSTER_RUN_JOB_NAME` (those of Kubernetes, Docker and ECS do), only
    the sync whose job it is gets all of its definitions; of the others there are the jobs, which are built at need.

    Args:
        jobs: The declarations.
        automation_sensor: False if a sensor of the project's own looks at the conditions of all assets, those of the
            syncs with an `automation` among them: Dagster takes one such sensor for each asset.

    Raises:
        ConfigurationError: What is given is no sync job, two would have the same name or the same asset in Dagster, or
            they read each other.
    """
    for number, job in enumerate(jobs, start=1):
        if not isinstance(job, SyncJob):
            raise ConfigurationError(
                f"sync_definitions: argument {number} is a {type(job).__name__}, no SyncJob; give the "
                "declarations themselves: sync_definitions(PRODUCTS, STOCK)"
            )
    return _definitions(jobs, in_process_executor, is_whole_location=False, automation_sensor=automation_sensor)


def build_definitions(
    sync_jobs: Sequence[SyncJob[Any, Any]],
    executor: ExecutorDefinition = in_process_executor,
    *,
    broken: Sequence[BrokenAsset] = (),
) -> Definitions:
    """Returns the definitions of a code location that has nothing but these syncs.

    Args:
        broken: What is shown in place of job files that can't be loaded.
        executor: Runs the ops, also those of Materialize. Any works, because they hand over by reference; on Dagster's
            default one, with a process per op, a run takes five times as long as in one process.

    Raises:
        ConfigurationError: Two jobs would have the same name or the same asset in Dagster, or jobs read each other.
    """
    return _definitions(sync_jobs, executor, broken, is_whole_location=True)


def _definitions(
    sync_jobs: Sequence[SyncJob[Any, Any]],
    executor: ExecutorDefinition,
    broken: Sequence[BrokenAsset] = (),
    *,
    is_whole_location: bool,
    automation_sensor: bool = True,
) -> Definitions:
    require_distinct_names(sync_jobs)
    require_no_circle(sync_jobs)
    CODE_LOCATION.add(sync_jobs, broken if is_whole_location else None)
    built = _of_this_run(sync_jobs)
    status = schedule_status()
    schedules = [build_schedule(job, status) for job in built]
    retried = [job for job in built if job.retry is not None]
    automation = build_automation_sensor(built) if automation_sensor else None
    others = [] if built is sync_jobs else [job for job in sync_jobs if job not in built]
    return Definitions(
        assets=[
            *build_source_specs(built, {each.key for each in broken}, only_own=not is_whole_location),
            *map(build_asset, built),
            *build_broken_specs(broken),
        ],
        asset_checks=[*map(build_checks, built), *build_broken_checks(broken)],
        jobs=[
            *(build_sync_job(job, executor) for job in built), *map(build_drain_job, built),
            *map(build_retry_job, retried),
            *(at_need for job in others for at_need in _at_need(job, executor)),
        ],
        schedules=[schedule for schedule in schedules if schedule is not None],
        sensors=[
            _INBOX,
            _RECOVERY,
            *([_RETRY] if retried else []),
            *([_FRESHNESS] if any(job.fresh_after is not None for job in sync_jobs) else []),
            *([automation] if automation is not None else []),
        ],
        resources={"handover_io_manager": handover_io_manager},
        executor=executor if is_whole_location else None,
    )  # fmt: skip


def _of_this_run(sync_jobs: Sequence[SyncJob[Any, Any]]) -> Sequence[SyncJob[Any, Any]]:
    """Returns the sync that this process is to run, if its launcher tells; else all of them."""
    name = job_of_this_run()
    return [job for job in sync_jobs if name in names_of_jobs(job)] or sync_jobs


def _at_need(job: SyncJob[Any, Any], executor: ExecutorDefinition) -> list[UnresolvedAssetJobDefinition]:
    """Returns the jobs of a sync that this process is not there for: others may name them all the same."""

    def whole(resources: Resources) -> JobDefinition:
        graph = AssetGraph.from_assets([build_asset(job), build_checks(job)])
        return build_sync_job(job, executor).resolve(graph, None, resources)

    jobs = [
        build_at_need(job, job.dagster_name, whole),
        build_at_need(job, drain_job_name(job), lambda _: build_drain_job(job)),
    ]
    if job.retry is not None:
        jobs.append(build_at_need(job, retry_job_name(job), lambda _: build_retry_job(job)))
    return jobs


def require_loadable(sync_jobs: Sequence[SyncJob[Any, Any]]) -> None:
    """Builds and resolves what Dagster would load of these jobs.

    Raises:
        ConfigurationError: Dagster can't load it; the message names the job, if it is one alone that it can't load.
    """
    try:
        Definitions.validate_loadable(build_definitions(sync_jobs))
    except ConfigurationError:
        raise
    except Exception as error:
        refused = [job.name for job in sync_jobs if not _is_loadable(job)] or [job.name for job in sync_jobs]
        jobs = f"sync job {refused[0]!r}" if len(refused) == 1 else f"sync jobs {', '.join(refused)}"
        raise ConfigurationError(f"{jobs}: Dagster can't load the definitions: {described(error)}") from error


def _is_loadable(job: SyncJob[Any, Any]) -> bool:
    try:
        Definitions.validate_loadable(build_definitions([job]))
    except Exception:  # noqa: BLE001 - whatever Dagster raises; of all jobs together it is told
        return False
    return True


def require_distinct_names(sync_jobs: Sequence[SyncJob[Any, Any]]) -> None:
    """Makes sure that every name in Dagster means one thing, and names the two jobs and the field if not."""
    owners: dict[str, SyncJob[Any, Any]] = {}
    for job in sync_jobs:
        taken = {f"Dagster job {name}": "name" for name in names_of_jobs(job)}
        taken[f"asset {asset_key(job).to_user_string()}"] = "asset_key"
        for name, field in taken.items():
            other = owners.setdefault(name, job)
            if other.name != job.name:
                raise JobsConflictError(
                    f"sync job {job.name!r}: {field}: {other.name!r} has the {name} already; change one", [other, job]
                )
