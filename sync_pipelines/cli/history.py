"""`history`: what happened to one record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sync_pipelines.cli.columns import Column, document, show_rows
from sync_pipelines.cli.formats import short_id
from sync_pipelines.cli.output import remark, show_json
from sync_pipelines.cli.program import CLEAN, FAILED
from sync_pipelines.engine.display import shown_text, shown_value
from sync_pipelines.engine.history import HistoryEvent
from sync_pipelines.engine.redaction import redact
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.history import record_history
from sync_pipelines.registry.registry import find_job

_HOW = {"full": "full sync", "drain": "drain", "apply": "plan", "single": "at once"}


def show_history(name: str, external_id: str, *, limit: int, as_json: bool) -> int:
    """Shows what the ledger knows of a record, and gives the exit code: 1 if that is nothing."""
    events = record_history(name, external_id, limit=limit)
    if as_json:
        show_json({"job": name, "external_id": external_id, "events": [document(_COLUMNS, event) for event in events]})
    elif events:
        show_rows(_COLUMNS, events)
        if len(events) == limit:
            remark(f"the newest {limit:,} events are shown; --limit shows more")
    if not events:
        remark(_why_nothing(name, external_id))
    return CLEAN if events else FAILED


def _why_nothing(name: str, external_id: str) -> str:
    what = f"the ledger knows nothing of {external_id!r} in {name}"
    try:
        days = find_job(name).keep_history_days
    except ConfigurationError:
        return what
    if not days:
        return f"{what}: the job keeps no history (keep_history_days=0), nothing failed, and no webhook came"
    return (
        f"{what}: no run has written it in the last {days} days (keep_history_days), or the id is written otherwise; "
        "what was there before the first sync, and has not changed since, has no history"
    )


def _how(event: HistoryEvent) -> str:
    if event.delivery is not None:
        return f"delivery {event.delivery}"
    return _HOW.get(event.via or "", event.via or "")


def _changes_text(event: HistoryEvent) -> str:
    if event.kind == "webhook":
        became = f"{event.state}: {event.action}" if event.action else event.state or ""
        return f"{became}: {event.message}" if event.message else became
    if event.kind == "failed":
        return event.message or ""
    if event.changes is None:
        return "fields not kept"
    return ", ".join(_change(event, name) for name in event.changes)


def _change(event: HistoryEvent, name: str) -> str:
    change = (event.changes or {})[name]
    old, new = shown_text(name, change.old), shown_text(name, change.new)
    if event.kind == "updated" or (event.kind == "deleted" and change.new is not None):  # marked, not removed
        return f"{name} {old} -> {new}"
    return f"{name} {new if event.kind == 'created' else old}"


def _changes_document(event: HistoryEvent) -> dict[str, Any] | None:
    if event.changes is None:
        return None
    return {
        name: {"old": shown_value(name, change.old), "new": shown_value(name, change.new)}
        for name, change in event.changes.items()
    }


_COLUMNS: Sequence[Column[HistoryEvent]] = (
    Column("at", "time"),
    Column("kind", "what"),
    Column(None, "changes", _changes_text),
    Column(None, "how", _how),
    Column("run_id", "run", cell=short_id),
    Column("external_id"),
    Column("via"),
    Column("changes", value=_changes_document),
    Column("message", value=lambda event: redact(event.message) if event.message else None),
    Column("delivery"),
    Column("delivery_id"),
    Column("state"),
    Column("action"),
)
