"""The run tags that operators filter by."""

from typing import Any

from sync_pipelines.engine.declaration import SyncJob

SYNC_TAG = "sync"
"""Holds the sync's name; the run queue lets one run per value go at a time (`dagster.yaml`)."""
OUTCOME_TAG = "sync/outcome"
"""Holds `clean`, `planned` (a dry run), `partial`, `guarded` or `failed`."""
PLAN_TAG = "sync/plan"
"""Holds the id of the plan that a dry run left, that guards withhold, or that the run applied."""
OUTCOMES = ("clean", "planned", "partial", "guarded", "failed")
"""From best to worst."""
DUE_TAG = "sync/due_at"
"""Holds the occasion that a scheduled run is for, in ISO 8601."""
KIND_TAG = "sync/kind"
"""Holds `full`, `dry run`, `apply` (of a plan), `drain` or `retry`."""


def run_tags(job: SyncJob[Any, Any], kind: str) -> dict[str, str]:
    """Returns the tags of every run of a sync."""
    return {**job.tags, SYNC_TAG: job.name, KIND_TAG: kind}
