"""Finds items that have come since a plan was made: their records are not missing, whatever it says."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.ledger import RunRow
from sync_pipelines.database.plans import PlanRow
from sync_pipelines.database.run_queries import took_all_items
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action
from sync_pipelines.errors import SyncPipelinesError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.duplicates import DuplicateIndex
from sync_pipelines.runner.plans.plan_file import files_of_plan
from sync_pipelines.snapshots.parquet_pages import read_pages
from sync_pipelines.snapshots.snapshot import Snapshot


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
