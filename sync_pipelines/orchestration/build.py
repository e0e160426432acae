"""Puts Dagster's definitions together out of sync jobs."""

from collections.abc import Sequence
from typing import Any

from dagster import Definitions, ExecutorDefinition, in_process_executor

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration.assets import build_asset, build_source_specs
from sync_pipelines.orchestration.broken_files import (
    BrokenAsset,
    JobsConflictError,
    build_broken_checks,
    build_broken_files_sensor,
    build_broken_specs,
)
from sync_pipelines.orchestration.checks import build_checks
from sync_pipelines.orchestration.freshness import build_freshness_sensor
from sync_pipelines.orchestration.handover import handover_io_manager
from sync_pipelines.orchestration.jobs import build_drain_job, build_sync_job, drain_job_name
from sync_pipelines.orchestration.keys import asset_key, source_key
from sync_pipelines.orchestration.recovery import build_recovery_sensor
from sync_pipelines.orchestration.retries import build_retry_job, build_retry_sensor, retry_job_name
from sync_pipelines.orchestration.schedules import build_schedule
from sync_pipelines.orchestration.sensors import build_sensor


def build_definitions(
    sync_jobs: Sequence[SyncJob[Any, Any]],
    executor: ExecutorDefinition = in_process_executor,
    *,
    broken: Sequence[BrokenAsset] | None = None,
) -> Definitions:
    """Returns each sync its asset, checks, jobs, schedule and sensors.

    Args:
        executor: Runs the ops. Any works, because they hand over by reference; on Dagster's default one, with a process
            per op, a run takes five times as long as in one process.
        broken: What is shown in place of job files that can't be loaded; None if these jobs come from no files.

    Raises:
        ConfigurationError: Two jobs would have the same name or the same asset in Dagster, or jobs read each other.
    """
    require_distinct_names(sync_jobs)
    require_no_circle(sync_jobs)
    schedules = [build_schedule(job) for job in sync_jobs]
    retried = [job for job in sync_jobs if job.retry is not None]
    freshness = build_freshness_sensor(sync_jobs)
    return Definitions(
        assets=[
            *build_source_specs(sync_jobs, {each.key for each in broken or ()}),
            *(build_asset(job) for job in sync_jobs),
            *build_broken_specs(broken or ()),
        ],
        asset_checks=[*(build_checks(job) for job in sync_jobs), *build_broken_checks(broken or ())],
        jobs=[*map(build_sync_job, sync_jobs), *map(build_drain_job, sync_jobs), *map(build_retry_job, retried)],
        schedules=[schedule for schedule in schedules if schedule is not None],
        sensors=[
            *map(build_sensor, sync_jobs),
            *map(build_retry_sensor, retried),
            build_recovery_sensor(),
            *([freshness] if freshness else []),
            *([build_broken_files_sensor(broken)] if broken is not None else []),
        ],
        resources={"handover_io_manager": handover_io_manager},
        executor=executor,
    )


def sync_definitions(*jobs: SyncJob[Any, Any]) -> Definitions:
    """Returns the Dagster definitions of these syncs, to be merged into any project's own.

    Raises:
        ConfigurationError: Two jobs would have the same name or the same asset in Dagster, or jobs read each other.
    """
    return build_definitions(jobs)


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


def require_no_circle(sync_jobs: Sequence[SyncJob[Any, Any]]) -> None:
    """Makes sure that no sync reads, by way of others, what it writes itself; names those on the way if one does."""
    writers = {asset_key(job): job for job in sync_jobs}
    for job in sync_jobs:
        way = [job]
        while (before := writers.get(source_key(way[-1]))) is not None:
            if before is job:
                raise _circle(way)
            if before in way:
                break  # a circle that this job only leads to
            way.append(before)


def _circle(way: Sequence[SyncJob[Any, Any]]) -> JobsConflictError:
    first = way[0]
    if len(way) == 1:
        return JobsConflictError(
            f"sync job {first.name!r}: source_asset: it would read its own asset {asset_key(first).to_user_string()}; "
            "give another source_asset or asset_key",
            way,
        )
    reads = ", which reads ".join(f"{asset_key(job).to_user_string()} of {job.name!r}" for job in way[1:])
    return JobsConflictError(
        f"sync job {first.name!r}: source_asset: it reads {reads}, which reads {asset_key(first).to_user_string()} of "
        f"{first.name!r} itself: a circle that Dagster can't load; change the source_asset of one",
        way,
    )


def require_distinct_names(sync_jobs: Sequence[SyncJob[Any, Any]]) -> None:
    """Makes sure that every name in Dagster means one thing, and names the two jobs and the field if not."""
    owners: dict[str, SyncJob[Any, Any]] = {}
    for job in sync_jobs:
        taken = {
            f"Dagster job {job.dagster_name}": "name",
            f"Dagster job {drain_job_name(job)}": "name",
            f"Dagster job {retry_job_name(job)}": "name",
            f"asset {asset_key(job).to_user_string()}": "asset_key",
        }
        for name, field in taken.items():
            other = owners.setdefault(name, job)
            if other.name != job.name:
                raise JobsConflictError(
                    f"sync job {job.name!r}: {field}: {other.name!r} has the {name} already; change one", [other, job]
                )
