"""Which sync jobs there are: those of the files in the jobs packages, and those registered by hand."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import NoReturn

from sync_pipelines.engine.declaration import AnyJob, SyncJob
from sync_pipelines.engine.intervals import Interval, as_interval
from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.engine.redaction import described
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.model import load_settings


class Registry:
    """What was recorded in this process."""

    def __init__(self) -> None:
        self.jobs: dict[str, AnyJob] = {}
        self.intervals: dict[str, Interval] = {}


_recorded = Registry()


def register_sync_job(job: AnyJob) -> None:
    """Makes a job known by its name. A file in a jobs package need not call this.

    Counts in modules that Dagster's definitions load; registering the same job again changes nothing.

    Raises:
        ConfigurationError: Another job has that name.
    """
    if not isinstance(job, SyncJob):
        raise ConfigurationError(f"register_sync_job: {job!r} is no SyncJob")
    _add(_recorded.jobs, job, "register_sync_job")


def schedule_sync_job(name: str, interval: Interval | str) -> None:
    """Attaches a schedule to a job known by its name, as `SyncJob(schedule=...)` does.

    Args:
        name: The job's name; the job may be registered later.
        interval: E.g. `sync_intervals.hours(1)`, or a cron line in UTC.

    Raises:
        ConfigurationError: The interval can't be read, or the job was given another one before.
    """
    found = as_interval(interval)
    if _recorded.intervals.setdefault(name, found) != found:
        raise ConfigurationError(
            f"sync job {name!r} is scheduled twice: {_recorded.intervals[name].title} and {found.title}"
        )


def find_jobs(packages: Sequence[str] | None = None, *, unread: list[Exception] | None = None) -> dict[str, AnyJob]:
    """Imports the jobs packages and gives all jobs by name, in the order of their names.

    Args:
        packages: Names of packages; by default those of the setting `SYNC_PIPELINES_JOBS`.
        unread: Gets what is wrong with a file or a job, in place of its being raised: the others are given.

    Raises:
        ConfigurationError: A package or a file can't be imported, two jobs have one name, or a schedule has no job.
    """
    jobs: dict[str, AnyJob] = {}
    keep = _raise if unread is None else unread.append
    for package in load_settings().jobs if packages is None else packages:
        for module in _modules(package, keep):
            for job in _jobs_in(module):
                with OneItem(keep):
                    _add(jobs, job, module.__name__)
    for job in _recorded.jobs.values():
        with OneItem(keep):
            _add(jobs, job, "register_sync_job")
    for name, interval in _recorded.intervals.items():
        with OneItem(keep):
            jobs[name] = _scheduled(jobs, name, interval)
    with OneItem(keep):
        _require_distinct_dagster_names(jobs)
    return dict(sorted(jobs.items()))


def _raise(error: Exception) -> NoReturn:
    raise error


def find_job(name: str) -> AnyJob:
    """Gives the job of that name.

    Raises:
        ConfigurationError: There is none; the message names those there are.
    """
    jobs = find_jobs()
    if name not in jobs:
        raise ConfigurationError(f"there is no sync job {name!r}; there are: {', '.join(jobs) or 'none'}")
    return jobs[name]


def known_job(name: str) -> AnyJob | None:
    """Returns the job of that name; None of one that is gone, or can't be loaded, of which the ledger may know."""
    try:
        return find_job(name)
    except ConfigurationError:
        return None


def _modules(package: str, keep: Callable[[Exception], object]) -> Iterator[ModuleType]:
    try:
        found = _import(package)
    except ConfigurationError as error:
        keep(error)
        return
    yield found
    for info in pkgutil.iter_modules(getattr(found, "__path__", ()), f"{package}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            yield from _modules(info.name, keep)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"the jobs module {name} can't be imported: {described(error)}") from error


def _jobs_in(module: ModuleType) -> Iterator[AnyJob]:
    """The jobs that a file names, alone or in a list."""
    found: dict[int, AnyJob] = {}
    for value in vars(module).values():
        candidates = value if isinstance(value, (list, tuple)) else (value,)
        found |= {id(each): each for each in candidates if isinstance(each, SyncJob)}
    yield from found.values()


def _add(jobs: dict[str, AnyJob], job: AnyJob, place: str) -> None:
    if jobs.setdefault(job.name, job) is not job:
        raise ConfigurationError(f"{place}: another sync job is named {job.name!r} already; names must be unique")


def _scheduled(jobs: dict[str, AnyJob], name: str, interval: Interval) -> AnyJob:
    job = jobs.get(name)
    if job is None:
        raise ConfigurationError(f"schedule_sync_job: there is no sync job {name!r}; there are: {', '.join(jobs)}")
    if job.interval is not None and job.interval != interval:
        raise ConfigurationError(
            f"sync job {name!r} is scheduled twice: {job.interval.title} in its file, and {interval.title}"
        )
    return job.scheduled(interval)


def _require_distinct_dagster_names(jobs: dict[str, AnyJob]) -> None:
    names: dict[str, str] = {}
    for job in jobs.values():
        other = names.setdefault(job.dagster_name, job.name)
        if other != job.name:
            raise ConfigurationError(f"the sync jobs {other!r} and {job.name!r} have the same name in Dagster")
