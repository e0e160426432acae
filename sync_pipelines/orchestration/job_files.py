"""Dagster's definitions of all job files: those that can be loaded, and in place of the others what is wrong."""

from collections.abc import Sequence

from dagster import Definitions

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration.broken_files import JobsConflictError, broken_assets, broken_modules
from sync_pipelines.orchestration.build import build_definitions, require_distinct_names
from sync_pipelines.orchestration.circles import require_no_circle
from sync_pipelines.registry.job_file_errors import JobFileError
from sync_pipelines.registry.registry import JobFiles, read_job_files


def load_job_files(packages: Sequence[str] | None = None) -> Definitions:
    """Returns the definitions of all syncs in the jobs packages; what is wrong with one keeps no other from loading.

    Args:
        packages: Names of packages; by default those of the setting `SYNC_PIPELINES_JOBS`.

    Raises:
        ConfigurationError: A setting has a value that is not allowed.
    """
    files = read_job_files(packages)
    jobs, conflicts = loadable_together(files)
    problems = [*files.problems, *conflicts]
    try:
        return _built(jobs, problems)
    except Exception:
        refused = {job.name: problem for job in jobs if (problem := _why_refused(job, files)) is not None}
        if not refused:
            raise
        jobs = [job for job in jobs if job.name not in refused]
        return _built(jobs, [*problems, *refused.values()])


def _built(jobs: Sequence[AnyJob], problems: Sequence[JobFileError]) -> Definitions:
    """Builds the definitions; if Dagster refuses them it may be for what stands in place of a file."""
    broken = broken_assets(problems, jobs)
    try:
        return build_definitions(jobs, broken=broken)
    except Exception:
        if not broken:
            raise
        return build_definitions(jobs, broken=broken_modules(problems))


def loadable_together(files: JobFiles) -> tuple[list[AnyJob], list[JobFileError]]:
    """Returns the jobs that Dagster can load together, and why it can't load the others.

    Of jobs that are in each other's way none is loaded: nobody knows which is meant.
    """
    noted = {job.name for problem in files.problems for job in problem.jobs}
    left = [job for job in files.jobs.values() if job.name not in noted]
    broken: set[str] = set()
    problems: list[JobFileError] = []
    tried = left
    while (conflict := _conflict_of(tried)) is not None:
        broken |= {job.name for job in conflict.jobs}
        problems.append(_problem(str(conflict), conflict.jobs, files))
        tried = [job for job in tried if job is not conflict.jobs[-1]]
    return [job for job in left if job.name not in broken], problems


def _conflict_of(jobs: Sequence[AnyJob]) -> JobsConflictError | None:
    try:
        require_distinct_names(jobs)
        require_no_circle(jobs)
    except JobsConflictError as conflict:
        return conflict
    return None


def _why_refused(job: AnyJob, files: JobFiles) -> JobFileError | None:
    try:
        build_definitions([job])
    except Exception as error:  # noqa: BLE001 - whatever Dagster raises of what one job declares
        text = str(error) if isinstance(error, ConfigurationError) else described(error)
        message = f"sync job {job.name!r}: Dagster can't load the definitions: {text}"
        return _problem(message, [job], files)
    return None


def _problem(message: str, jobs: Sequence[AnyJob], files: JobFiles) -> JobFileError:
    """Returns what is wrong with jobs, at the place of the last one."""
    place = files.places[jobs[-1].name]
    return JobFileError(message, module=place.module, file=place.file, line=place.line_of(jobs[-1].name), jobs=jobs)
