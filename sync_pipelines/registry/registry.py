"""Which sync jobs there are: those of the files in the jobs packages, and those registered by hand."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from sync_pipelines.engine.declaration import AnyJob, SyncJob
from sync_pipelines.engine.display import first_of
from sync_pipelines.engine.intervals import Interval, as_interval
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.job_file_errors import JobFileError, declared_jobs, import_error
from sync_pipelines.settings.model import load_settings

_NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Says which module a job, or a schedule, comes from."""

    module: str
    file: str | None = None
    line: int | None = None

    @classmethod
    def of_caller(cls) -> Place:
        """Returns the line that calls into this module, and the module whose import has led there."""
        frames = [frame for frame in _frames() if frame.f_code.co_filename != __file__]
        importing = next((frame for frame in frames if frame.f_code.co_name == "<module>"), frames[0])
        return cls(str(importing.f_globals.get("__name__")), frames[0].f_code.co_filename, frames[0].f_lineno)

    def line_of(self, name: str) -> int | None:
        """Returns the line of the job of that name, as far as it is known."""
        declared = declared_jobs(self.file) if self.line is None and self.file is not None else ()
        return self.line or next((job.line for job in reversed(declared) if job.name == name), None)


def _frames() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


class Registry:
    """What was recorded in this process."""

    def __init__(self) -> None:
        self.jobs: dict[str, AnyJob] = {}
        self.intervals: dict[str, Interval] = {}
        self.job_places: dict[str, Place] = {}
        self.interval_places: dict[str, Place] = {}

    def places(self) -> frozenset[Place]:
        """Returns where all that is recorded comes from."""
        return frozenset([*self.job_places.values(), *self.interval_places.values()])

    def forget_failed(self, module: str, before: frozenset[Place]) -> None:
        """Forgets what a module that could not be imported to its end has recorded, and helpers that failed with it.

        Args:
            module: The module that was asked for.
            before: What had been recorded before it was: of a script, say, that is no module.
        """
        failed = {
            place
            for place in self.places()
            if place.module == module or (place not in before and place.module not in sys.modules)
        }
        _forget(failed, self.jobs, self.job_places)
        _forget(failed, self.intervals, self.interval_places)


def _forget(failed: set[Place], recorded: dict[str, Any], places: dict[str, Place]) -> None:
    for name in [name for name, place in places.items() if place in failed]:
        del places[name], recorded[name]


_recorded = Registry()


def register_sync_job(job: AnyJob) -> None:
    """Makes a job known by its name. A file in a jobs package need not call this.

    Counts in modules that Dagster's definitions load; registering the same job again changes nothing.

    Raises:
        ConfigurationError: Another job has that name.
    """
    if not isinstance(job, SyncJob):
        raise ConfigurationError(f"register_sync_job: {job!r} is no SyncJob")
    if _recorded.jobs.setdefault(job.name, job) is not job:
        raise ConfigurationError(
            f"register_sync_job: another sync job is named {job.name!r} already; names must be unique"
        )
    _recorded.job_places.setdefault(job.name, Place.of_caller())


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
    _recorded.interval_places.setdefault(name, Place.of_caller())


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Holds what the jobs packages gave.

    Args:
        jobs: All jobs by name that can be used, in the order of their names.
        problems: What keeps files, or jobs, from being loaded. It may name jobs that are among those above: they can
            be run, but Dagster can't load them.
        places: Where each of the jobs comes from.
    """

    jobs: Mapping[str, AnyJob]
    problems: Sequence[JobFileError]
    places: Mapping[str, Place]


def read_job_files(packages: Sequence[str] | None = None) -> JobFiles:
    """Imports the jobs packages. What is wrong with a file, or between two jobs, keeps no other from being loaded.

    Args:
        packages: Names of packages; by default those of the setting `SYNC_PIPELINES_JOBS`.
    """
    problems: list[JobFileError] = []
    found: list[tuple[AnyJob, Place]] = []
    for package in dict.fromkeys(load_settings().jobs if packages is None else packages):
        for module in _modules(package, problems):
            place = Place(module.__name__, getattr(module, "__file__", None))
            found += [(job, place) for job in _jobs_in(module)]
    found += [(job, _recorded.job_places.get(name, Place(""))) for name, job in _recorded.jobs.items()]
    jobs, places = _with_own_names(found, problems)
    for name, interval in _recorded.intervals.items():
        _schedule(jobs, name, interval, problems)
    _note_same_dagster_names(jobs, places, problems)
    return JobFiles(dict(sorted(jobs.items())), problems, places)


def find_jobs(packages: Sequence[str] | None = None, *, unread: list[Exception] | None = None) -> dict[str, AnyJob]:
    """Imports the jobs packages and gives all jobs by name, in the order of their names.

    Args:
        packages: Names of packages; by default those of the setting `SYNC_PIPELINES_JOBS`.
        unread: Gets what is wrong with a file or a job, in place of its being raised: the others are given.

    Raises:
        ConfigurationError: A package or a file can't be imported, two jobs have one name, or a schedule has no job.
    """
    files = read_job_files(packages)
    if unread is not None:
        unread += files.problems
    elif files.problems:
        raise files.problems[0]
    return dict(files.jobs)


def find_job(name: str) -> AnyJob:
    """Gives the job of that name, whatever is wrong with the files of others.

    Raises:
        ConfigurationError: There is none; the message names those there are, and what is wrong with files that may
            have it.
    """
    if isinstance(name, SyncJob):
        raise ConfigurationError(f"{name.name!r} is asked for by the SyncJob itself; give its name: {name.name!r}")
    files = read_job_files()
    if name in files.jobs:
        return files.jobs[name]
    about_it = [problem for problem in files.problems if problem.may_be_about(name)]
    if about_it:
        raise ConfigurationError(f"the sync job {name!r} can't be loaded: {about_it[0]}") from about_it[0]
    unread = "; ".join(map(str, files.problems))
    raise ConfigurationError(
        f"there is no sync job {name!r}; there are: {_some_of(list(files.jobs))}"
        + (f"; more may be in what can't be loaded: {unread}" if unread else "")
    )


def _some_of(names: Sequence[str]) -> str:
    """Joins the first names, and says where the others are."""
    others = ": sync-pipelines list" if len(names) > _NAMES_SHOWN else ""
    return (first_of(names, _NAMES_SHOWN) or "none") + others


def known_job(name: str) -> AnyJob | None:
    """Returns the job of that name; None of one that is gone, or can't be loaded, of which the ledger may know."""
    try:
        return find_job(name)
    except ConfigurationError:
        return None


def _modules(package: str, problems: list[JobFileError]) -> Iterator[ModuleType]:
    before = _recorded.places()
    try:
        found = importlib.import_module(package)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file of the user raises; Ctrl-C is none of it
        _recorded.forget_failed(package, before)
        problems.append(import_error(package, error))
        return
    yield found
    for info in pkgutil.iter_modules(getattr(found, "__path__", ()), f"{package}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            yield from _modules(info.name, problems)


def _jobs_in(module: ModuleType) -> Iterator[AnyJob]:
    """The jobs that a file names, alone or in a list."""
    found: dict[int, AnyJob] = {}
    for value in vars(module).values():
        candidates = value if isinstance(value, (list, tuple)) else (value,)
        found |= {id(each): each for each in candidates if isinstance(each, SyncJob)}
    yield from found.values()


def _with_own_names(
    found: Iterable[tuple[AnyJob, Place]], problems: list[JobFileError]
) -> tuple[dict[str, AnyJob], dict[str, Place]]:
    """Returns the jobs whose name no other has: of two with one name nobody knows which is meant, so neither is."""
    named: dict[str, dict[int, tuple[AnyJob, Place]]] = {}
    for job, place in found:
        named.setdefault(job.name, {}).setdefault(id(job), (job, place))
    jobs: dict[str, AnyJob] = {}
    places: dict[str, Place] = {}
    for name, ones in named.items():
        (job, place), *others = ones.values()
        if others:
            problems.append(_two_of_one_name(job, place, others))
        else:
            jobs[name], places[name] = job, place
    return jobs, places


def _two_of_one_name(job: AnyJob, place: Place, others: Sequence[tuple[AnyJob, Place]]) -> JobFileError:
    where = others[-1][1]
    said_of = "register_sync_job" if where.line is not None else where.module
    return JobFileError(
        f"{said_of}: another sync job is named {job.name!r} already, in {place.module}; names must be unique",
        module=where.module,
        file=where.file,
        line=where.line_of(job.name),
        jobs=[job, *(other for other, _ in others)],
    )


def _schedule(jobs: dict[str, AnyJob], name: str, interval: Interval, problems: list[JobFileError]) -> None:
    job, place = jobs.get(name), _recorded.interval_places.get(name, Place(""))
    if job is None and any(problem.may_be_about(name) for problem in problems):
        return  # it is there, and can't be loaded
    if job is None:
        message = f"schedule_sync_job: there is no sync job {name!r}; there are: {_some_of(list(jobs))}"
    elif job.interval is not None and job.interval != interval:
        message = f"sync job {name!r} is scheduled twice: {job.interval.title} in its file, and {interval.title}"
    else:
        jobs[name] = job.scheduled(interval)
        return
    problems.append(
        JobFileError(message, module=name, file=place.file, line=place.line, jobs=[job] if job is not None else [])
    )


def _note_same_dagster_names(
    jobs: Mapping[str, AnyJob], places: Mapping[str, Place], problems: list[JobFileError]
) -> None:
    named: dict[str, AnyJob] = {}
    for job in jobs.values():
        other = named.setdefault(job.dagster_name, job)
        if other is not job:
            place = places[job.name]
            message = f"the sync jobs {other.name!r} and {job.name!r} have the same name in Dagster; change one"
            line = place.line_of(job.name)
            problems.append(JobFileError(message, module=place.module, file=place.file, line=line, jobs=[other, job]))
