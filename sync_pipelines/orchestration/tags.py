"""The run tags that operators filter by."""

import json
from collections.abc import Mapping
from typing import Any

from dagster import DagsterInstance, DagsterRun

from sync_pipelines.database.tables import FULL
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

MIXED_TAG = "sync/mixed"
"""Says that a run does more than one sync."""


def run_tags(job: SyncJob[Any, Any], kind: str) -> dict[str, str]:
    """Returns the tags of every run of a sync.

    Its Dagster jobs have them as their tags: a run that is launched over GraphQL, as `trigger_sync` does, gets those of
    the job, and not what Dagster calls the job's `run_tags`.
    """
    return {**job.tags, **as_texts(job.run_tags), SYNC_TAG: job.name, KIND_TAG: kind}


def tag_with_sync(instance: DagsterInstance, run: DagsterRun, job: SyncJob[Any, Any], *, is_alone: bool) -> None:
    """Tags a run that is of no job of ours: as one of the sync's job if it does nothing else, else with its name.

    From a run with others in it the sync's other tags stay off: they would be orders to Dagster, such as to retry, for
    what the others do.

    Args:
        is_alone: True if the run does nothing but this sync.
    """
    known = instance.get_run_by_id(run.run_id)
    tags = dict(known.tags) if known is not None else {}
    names = [name for name in tags.get(SYNC_TAG, "").split(", ") if name]
    if job.name not in names:
        given = run_tags(job, FULL) if is_alone else {KIND_TAG: FULL, MIXED_TAG: "true"}
        added = {key: value for key, value in given.items() if key not in tags}
        instance.add_run_tags(run.run_id, {**added, SYNC_TAG: ", ".join([*names, job.name])})


def op_tags(job: SyncJob[Any, Any], kind: str) -> dict[str, str]:
    """Returns the tags of a step of a sync's runs.

    Args:
        kind: What the step does: Dagster shows it as a badge.
    """
    return {**as_texts(job.op_tags), "kind": kind}


def as_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Writes as JSON what is no text, as Dagster and its Kubernetes launcher read it."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in tags.items()}
