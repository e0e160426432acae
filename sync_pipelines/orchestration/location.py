"""What the sensors that all syncs of a code location share look after: its syncs, its runs, the open ledger."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from dagster import (
    DagsterInstance,
    DagsterRun,
    DefaultSensorStatus,
    RepositoryDefinition,
    RunsFilter,
    SensorEvaluationContext,
)
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext

from sync_pipelines.database.connections import file_of
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.broken_files import BrokenAsset
from sync_pipelines.orchestration.start import sensor_status
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.settings.model import Settings, load_settings


class CodeLocation:
    """Knows every sync that this process has made Dagster definitions of.

    A project may merge the definitions of any number of calls of `sync_definitions`; the sensors are the same objects
    in all of them and learn here what there is.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, AnyJob] = {}
        self.broken: tuple[BrokenAsset, ...] = ()
        self._name: str | None = None

    def add(self, sync_jobs: Iterable[AnyJob], broken: Iterable[BrokenAsset] | None = None) -> None:
        """Has these syncs among those that are looked after; one of the same name as before takes its place.

        Args:
            broken: What stands in place of syncs that can't be loaded; None if these say nothing of it.
        """
        self.broken = self.broken if broken is None else tuple(broken)
        self._jobs |= {job.name: job for job in sync_jobs}
        self._name = DefinitionsLoadContext.get().code_location_name or self._name

    def syncs(self, repository: RepositoryDefinition | None = None) -> list[AnyJob]:
        """Returns the syncs in the order of their names.

        Args:
            repository: Only those that it has.
        """
        jobs = [self._jobs[name] for name in sorted(self._jobs)]
        if repository is None:
            return jobs
        names = set(repository.job_names)  # asked for one by one, Dagster goes through all of them for each
        return [job for job in jobs if job.dagster_name in names]

    def in_sight_of(self, context: SensorEvaluationContext) -> list[AnyJob]:
        """Returns the syncs of the code location for which a sensor is evaluated."""
        if context.code_location_origin is not None:
            self._name = context.code_location_origin.location_name
        return self.syncs(context.repository_def)

    def has_launched(self, run: DagsterRun) -> bool:
        """Returns True unless a run is known to be of another code location, which may have jobs of the same names."""
        origin = run.remote_job_origin
        return origin is None or self._name is None or origin.location_name == self._name

    def runs(self, instance: DagsterInstance, which: RunsFilter, limit: int | None = None) -> list[DagsterRun]:
        """Returns those of this code location among the first runs that a filter finds, newest first."""
        return [run for run in instance.get_runs(which, limit=limit) if self.has_launched(run)]


class SharedSensor:
    """What a sensor is that all syncs of a code location share: one object, in whatever state the settings say."""

    @property
    def default_status(self) -> DefaultSensorStatus:
        """Returns what `SYNC_PIPELINES_START` says when the definitions are loaded, not when this is imported."""
        return sensor_status()

    def with_attributes(self, **_attributes: Any) -> Self:
        """Returns itself: components want a copy with their own metadata, but all of them share this one."""
        return self


class HeldWorkspace:
    """Keeps the workspace open from one tick of a sensor to the next: opening the ledger looks for migrations."""

    def __init__(self, open_one: Callable[[Settings], object] = open_workspace) -> None:
        self._open_one = open_one
        self._opening = threading.Lock()
        self._held: tuple[object, Workspace] | None = None
        self._stack = ExitStack()

    @contextmanager
    def opened(self) -> Iterator[Workspace]:
        """Gives the workspace of the settings; after an error the next tick opens it anew."""
        with self._opening:
            workspace = self._current()
        try:
            yield workspace
        except BaseException:
            with self._opening:
                if self._held is not None and self._held[1] is workspace:
                    self.close()
            raise

    def _current(self) -> Workspace:
        settings = load_settings()
        if self._held is not None and self._held[0] == (settings, _identity(self._held[1])):
            return self._held[1]
        self.close()
        workspace: Workspace = self._stack.enter_context(self._open_one(settings))  # type: ignore[arg-type]
        self._held = ((settings, _identity(workspace)), workspace)
        return workspace

    def close(self) -> None:
        """Closes it, until somebody opens it again."""
        self._held = None
        self._stack.close()


def _identity(workspace: Workspace) -> tuple[int, int] | None:
    """Tells the file of an embedded ledger from another that was put in its place."""
    file = file_of(workspace.ledger.database.url)
    try:
        found = file.stat() if file is not None else None
    except FileNotFoundError:
        found = None
    return (found.st_dev, found.st_ino) if found is not None else None


CODE_LOCATION = CodeLocation()
HELD_WORKSPACE = HeldWorkspace()
