"""`trigger`: a run on Dagster's queue."""

from __future__ import annotations

from sync_pipelines.cli.output import show_json, show_line
from sync_pipelines.orchestration.triggers import trigger_sync


def trigger(name: str, *, location: str | None = None, as_json: bool) -> None:
    """Puts a run on the queue and shows its id."""
    dagster_run_id = trigger_sync(name, location=location)
    if as_json:
        show_json({"job": name, "dagster_run_id": dagster_run_id})
    else:
        show_line(dagster_run_id)
