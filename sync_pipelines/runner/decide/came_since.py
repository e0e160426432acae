"""Finds items that have come since a plan was made, or have been fetched since a change of theirs was received."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.database.plans import APPLIED, PlanRow
from sync_pipelines.database.run_queries import got_all_items, took_all_items
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action
from sync_pipelines.errors import SyncPipelinesError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.duplicates import DuplicateIndex
from sync_pipelines.runner.plans.plan_file import files_of_plan
from sync_pipelines.snapshots.parquet_pages import read_pages
from sync_pipelines.snapshots.snapshot import Snapshot, SnapshotPage


@dataclass(frozen=True, slots=True)
class CameSince:
    """Knows the items that have come since a plan was made.

    Args:
        external_ids: Canonical ids of those that the plan would delete, and some others.
        unknown_run: A later run that fetched everything, and of which nobody knows any more what it had.
    """

    external_ids: set[str] = field(default_factory=set)
    unknown_run: str | None = None

    def why_not_delete(self, external_id: str) -> str | None:
        """Returns why the record of that id may not be missing; None if nothing says so."""
        if external_id in self.external_ids:
            return "an item of it has come since, so it is not missing any more"
        if self.unknown_run is not None:
            return f"the newer run {self.unknown_run} has looked at everything, and has left this record"
        return None


def came_since(job: SyncJob[Any, Any], workspace: Workspace, plan: PlanRow, driver: TargetDriver) -> CameSince:
    """Looks for items that have come since a plan was made, if it deletes something."""
    if not plan.counts.get(Action.DELETE.value):
        return CameSince()
    since = AppliedSince(workspace.ledger, job.name, asks_source=job.fetch_one is not None)
    found, later = since.item_ids(plan.created_at), since.fetches(plan.created_at)
    if not later:
        return CameSince(found)
    files = files_of_plan(workspace, plan.id, plan.kind)
    with files.working_file("deletes.sqlite") as path, DuplicateIndex(path) as deletes:
        for rows in read_pages(files.plan, ["action", "external_id"]):
            deletes.add((row[1], 0) for row in rows if row[0] == Action.DELETE.value)
        for run in later:
            try:
                for given in _ids_of_run(workspace, run):
                    found.update(deletes.positions(_canonical(driver, given)))
            except (SyncPipelinesError, OSError):
                if took_all_items(run.options):
                    return CameSince(found, run.id)
    return CameSince(found)


def _ids_of_run(workspace: Workspace, run: RunRow) -> Iterator[Collection[str | None]]:
    """Yields the external ids that a run had, as the source gives them; of a partial run those it was asked for."""
    only = run.options.get("only")
    if only:
        yield only
        return
    for page in Snapshot(workspace.store.files_of(run.id).folder).pages(fields=False):
        yield page.external_ids()


def _canonical(driver: TargetDriver, given: Collection[str | None]) -> list[str]:
    known = [each for each in given if each is not None]
    driver.expect(known)
    return [each for each in (driver.canonical_or_error(one) for one in known) if isinstance(each, str)]


@dataclass(frozen=True, slots=True)
class Received:
    """Describes a change without a version that was received some time ago.

    Args:
        external_id: Canonical id.
        is_delete: True if it says that the item is gone.
    """

    external_id: str
    received_at: datetime
    is_delete: bool


class FetchedSince:
    """Knows which items have been fetched and applied since a change of theirs was received.

    What a fetch had is indexed on disk when somebody first asks for it, and until the end of the block.
    """

    def __init__(self, job: SyncJob[Any, Any], workspace: Workspace, driver: TargetDriver) -> None:
        self._job = job
        self._workspace = workspace
        self._driver = driver
        self._stack = ExitStack()
        self._indexes: dict[str, DuplicateIndex | None] = {}

    def __enter__(self) -> Self:
        """Begins without any index."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes the indexes."""
        self._stack.close()

    @cached_property
    def _fetches(self) -> list[RunRow]:
        return AppliedSince(self._workspace.ledger, self._job.name).applied_fetches()

    def why_superseded(self, received: Sequence[Received]) -> dict[str, str]:
        """Returns by canonical id why a change must not be applied any more, of those whose records are newer."""
        found: dict[str, str] = {}
        for run in self._fetches:
            asked = [each for each in received if each.received_at < run.started_at and each.external_id not in found]
            if asked:
                index = self._index_of(run)
                places = index.positions([each.external_id for each in asked]) if index is not None else None
                for each in asked:
                    why = self._why(run, each, None if places is None else places.get(each.external_id, _ABSENT))
                    found |= {each.external_id: why} if why is not None else {}
        return found

    def _why(self, run: RunRow, received: Received, place: int | None) -> str | None:
        is_whole = got_all_items(run.options, run.completeness)
        if place is None:
            return f"the run {run.id} fetched all items after it came" if is_whole else None
        if place >= 0:
            return f"the run {run.id} fetched the item after it came"
        is_gone = place == _ABSENT and is_whole and not received.is_delete and self._job.deletes != "off"
        return f"the run {run.id} did not find the item after it came" if is_gone else None

    def _index_of(self, run: RunRow) -> DuplicateIndex | None:
        """Returns the index of what a run has fetched; None if its files are gone."""
        if run.id not in self._indexes:
            files = self._workspace.store.files_of(run.id)
            path = self._stack.enter_context(files.working_file("fetched.sqlite"))
            index = self._stack.enter_context(DuplicateIndex(path))
            try:
                for page in Snapshot(files.folder).pages(fields=False):
                    index.add((each, 0) for each in _canonical(self._driver, _readable_ids(page)))
                index.add((each, _NOT_BROUGHT) for each in self._withheld(run))
                self._indexes[run.id] = index
            except (SyncPipelinesError, OSError):
                self._indexes[run.id] = None
        return self._indexes[run.id]

    def _withheld(self, run: RunRow) -> Iterable[str]:
        """Yields the ids of the items of a run that limits have withheld, and that nobody has released."""
        plan = self._workspace.plans.withheld_of(run.id)
        if plan is None or plan.state == APPLIED:
            return
        files = files_of_plan(self._workspace, plan.id, plan.kind)
        for rows in read_pages(files.plan, ["action", "external_id"]):
            yield from (row[1] for row in rows if row[0] != Action.DELETE.value)


_ABSENT, _NOT_BROUGHT = -1, -2


def _readable_ids(page: SnapshotPage) -> list[str | None]:
    """Returns the ids of the items of a page, without those that came as errors."""
    errors = page.table.column("message").to_pylist()
    return [each for each, error in zip(page.external_ids(), errors, strict=True) if error is None]
