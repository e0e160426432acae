"""How values are written: for people on a line, for machines in a document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sync_pipelines.engine.declaration import SyncJob

UNFINISHED = "unfinished"
"""Shown of a run that has no outcome: it is at work, or its process died."""

_MINUTE_S = 60
_HOUR_S = 3600
_ID_CHARS = 8


def local_time(moment: datetime) -> str:
    """Writes a time in the machine's time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(milliseconds: int | None) -> str:
    """Writes a duration in a fitting unit; empty if it is unknown."""
    if milliseconds is None:
        return ""
    seconds = milliseconds / 1000
    if round(seconds, 1) < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), _MINUTE_S)
    if minutes < _HOUR_S // _MINUTE_S:
        return f"{minutes} min {rest_s} s"
    hours, rest_minutes = divmod(minutes, _HOUR_S // _MINUTE_S)
    return f"{hours} h {rest_minutes} min"


def counts_text(counts: Mapping[str, int]) -> str:
    """Writes the counts that are not zero: "498 fetched: 6 created, 492 unchanged"."""
    if not counts:
        return ""
    parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if name != "fetched" and count]
    return f"{counts.get('fetched', 0):,} fetched" + (f": {', '.join(parts)}" if parts else "")


def short_id(run_id: str | None) -> str:
    """Cuts an id to its beginning, which `show` takes as well."""
    return (run_id or "")[:_ID_CHARS]


def source_text(job: SyncJob[Any, Any]) -> str:
    """Names where the items come from: the declared asset, else the function that fetches them."""
    if job.source_asset is not None:
        return job.source_asset
    function = getattr(job.fetch_external, "__qualname__", type(job.fetch_external).__name__)
    if "<" in function:  # a lambda, or a function made by another one
        return f"{job.dagster_name}_source"
    module = getattr(job.fetch_external, "__module__", None) or ""
    return function if "." in function else f"{module.rpartition('.')[2]}.{function}".removeprefix(".")


def target_text(job: SyncJob[Any, Any]) -> str:
    """Names where the local records live: a table's name, a target's class, or functions."""
    if job.target is None:
        return "functions of the job"
    table = getattr(job.target, "table", None)
    return f"table {getattr(table, 'fullname', table)}" if table is not None else type(job.target).__name__


def automation_text(job: SyncJob[Any, Any]) -> str | None:
    """Says what starts a job that has no schedule: "eager, after warehouse/products"; None if nothing does."""
    if job.automation is None:
        return None
    if not isinstance(job.automation, str):
        return "a condition of Dagster"
    return f"{job.automation}, after {', '.join(job.upstream or [job.source_asset or ''])}"
