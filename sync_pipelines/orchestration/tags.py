"""The run tags that operators filter by."""

import json
from collections.abc import Mapping
from typing import Any

from dagster import DagsterInstance

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


def run_tags(job: SyncJob[Any, Any], kind: str) -> dict[str, str]:
    """Returns the tags of every run of a sync.

    Its Dagster jobs have them as their tags: a run that is launched over GraphQL, as `trigger_sync` does, gets those of
    the job, and not what Dagster calls the job's `run_tags`.
    """
    return {**job.tags, **as_texts(job.run_tags), SYNC_TAG: job.name, KIND_TAG: kind}


def tag_like_a_job(instance: DagsterInstance, run_id: str, job: SyncJob[Any, Any]) -> None:
    """Gives a run what the runs of the sync's own job have from the start; of several syncs it names all."""
    run = instance.get_run_by_id(run_id)
    known = dict(run.tags) if run is not None else {}
    names = [name for name in known.get(SYNC_TAG, "").split(", ") if name]
    if job.name in names:
        return
    added = {key: value for key, value in run_tags(job, FULL).items() if key not in known}
    instance.add_run_tags(run_id, {**added, SYNC_TAG: ", ".join([*names, job.name])})


def op_tags(job: SyncJob[Any, Any], kind: str) -> dict[str, str]:
    """Returns the tags of a step of a sync's runs.

    Args:
        kind: What the step does: Dagster shows it as a badge.
    """
    return {**as_texts(job.op_tags), "kind": kind}


def as_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Writes as JSON what is no text, as Dagster and its Kubernetes launcher read it."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in tags.items()}
