"""Compares the shapes of a fetch's items with those of the last good one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines.database.run_shapes import RunShapes
from sync_pipelines.engine.item_shapes import PREFIX, drift_between, shapes_from_json, shapes_to_json, with_marks
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.snapshots.snapshot import Snapshot


def drift_notes(job: str, run_id: str, workspace: Workspace) -> list[str]:
    """Returns a note if fields of the items have gone, been emptied or changed their type since the last good run.

    A run that took only some items, or none, is compared with nothing, and nothing with it.
    """
    summary = Snapshot(workspace.store.files_of(run_id).folder).summary()
    shapes = summary.get("shapes")
    if not summary["complete"] or not shapes:
        return []
    now = shapes_from_json(shapes)

    def kept(before: Mapping[str, Any]) -> Mapping[str, Any]:
        return shapes_to_json(with_marks(shapes_from_json(before), now))

    with workspace.ledger.together():
        earlier = RunQueries(workspace.ledger).last_good(job, workspace.plans.released(job))
        before = RunShapes(workspace.ledger).keep(job, run_id, kept, earlier)
    drift = drift_between(shapes_from_json(before), now)
    return [f"{PREFIX}{'; '.join(drift)}"] if drift else []
