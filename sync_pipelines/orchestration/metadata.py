"""Results as Dagster metadata: a pure mapping, so that the asset page plots numbers and lists errors."""

from collections.abc import Iterable, Sequence

from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from sync_pipelines.database.inbox import Depth
from sync_pipelines.engine.display import shown_text
from sync_pipelines.engine.plan import PlanEntry
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.targets import TargetDescription, qualified
from sync_pipelines.runner.changes.drain import Applied
from sync_pipelines.runner.plans.plan_view import FieldRow, Plan, field_rows

Metadata = dict[str, MetadataValue]

ERRORS_SHOWN = 50
CAUSES_SHOWN = 50
APPLIED_SHOWN = 100
ENTRIES_SHOWN = 50
ROWS_SHOWN = 300
_NUMBERS = frozenset({"items", "position"})


def result_metadata(results: SyncResults, target: TargetDescription | None = None) -> Metadata:
    """Builds what an operator sees of a run on the asset's page: outcome, counts, times, errors, table."""
    metadata: Metadata = {"outcome": MetadataValue.text(results.outcome)}
    metadata |= {name: MetadataValue.int(count) for name, count in results.counts().items()}
    metadata["duration (s)"] = MetadataValue.float(round(results.duration_ms / 1000, 3))
    metadata |= {
        f"{phase} (s)": MetadataValue.float(round(ms / 1000, 3)) for phase, ms in sorted(results.phase_ms.items())
    }
    metadata["items per second"] = MetadataValue.float(round(results.items_per_s, 1))
    metadata |= _remarks(results)
    metadata["more about it"] = more_about(results.run_id)
    return metadata | target_metadata(target)


def drain_metadata(
    results: SyncResults,
    applied: Sequence[Applied],
    target: TargetDescription | None = None,
    depth: Depth | None = None,
) -> Metadata:
    """Builds what an operator sees of a drain, under names of its own: they would spoil the plots of full runs."""
    metadata: Metadata = {"outcome": MetadataValue.text(results.outcome)}
    metadata |= {f"single items {name}": MetadataValue.int(count) for name, count in results.counts().items() if count}
    rows = [(item.external_id or "", item.action, item.message or "") for item in applied[:APPLIED_SHOWN]]
    title = "deliveries" if len(applied) <= APPLIED_SHOWN else f"deliveries (first {APPLIED_SHOWN} of {len(applied)})"
    metadata[title] = _table(("external id", "action", "message"), rows)
    if results.causes:
        metadata["errors by cause"] = causes_table(results)
    if depth is not None:
        metadata |= _inbox_metadata(depth)
    metadata["more about it"] = more_about(results.run_id)
    return metadata | target_metadata(target)


def retry_metadata(results: SyncResults, target: TargetDescription | None = None) -> Metadata:
    """Builds what an operator sees of a retry, under names of its own, as of a drain."""
    metadata: Metadata = {"outcome": MetadataValue.text(results.outcome)}
    metadata |= {f"retried items {name}": MetadataValue.int(count) for name, count in results.counts().items() if count}
    return metadata | _remarks(results) | {"more about it": more_about(results.run_id)} | target_metadata(target)


def plan_metadata(plan: Plan, entries: Iterable[PlanEntry]) -> Metadata:
    """Builds what an operator sees of the plan of a dry run, with its first entries."""
    metadata: Metadata = {f"to {action}": MetadataValue.int(count) for action, count in plan.counts.to_dict().items()}
    rows = [
        (entry.action.value, entry.external_id, row.name, *_old_and_new(row))
        for entry in entries
        for row in field_rows(entry) or [FieldRow("", None, None)]
    ]
    writes = plan.counts.writes
    title = "changes" if writes <= ENTRIES_SHOWN else f"changes (first {ENTRIES_SHOWN} of {writes:,} records)"
    metadata[title] = _table(("action", "external id", "field", "old", "new"), rows[:ROWS_SHOWN])
    if plan.guarded:
        metadata["guards would withhold"] = MetadataValue.md("\n".join(f"- {reason}" for reason in plan.guarded))
    metadata["the whole plan"] = MetadataValue.text(f"sync-pipelines plan show {plan.id[:8]}")
    option, also = (" --reason '...'", " and a reason") if plan.guarded else ("", "")
    metadata["to apply it"] = MetadataValue.text(
        f"sync-pipelines apply {plan.id[:8]}{option}, or run config apply_plan: {plan.id}{also}"
    )
    metadata["expires"] = MetadataValue.timestamp(plan.expires_at)
    return metadata


def _old_and_new(row: FieldRow) -> tuple[str, ...]:
    return tuple("" if value is None else shown_text(row.name, value) for value in (row.old, row.new))


def _inbox_metadata(depth: Depth) -> Metadata:
    """Counts what is left in the inbox, and what was given up."""
    metadata: Metadata = {
        "inbox waiting": MetadataValue.int(depth.waiting),
        "inbox given up": MetadataValue.int(depth.failed),
    }
    if depth.oldest_waiting_at is not None:
        metadata["inbox oldest waiting"] = MetadataValue.timestamp(depth.oldest_waiting_at)
    return metadata


def balance_metadata(results: SyncResults) -> Metadata:
    """Builds what the check on the accounts shows."""
    counts = {name: MetadataValue.int(count) for name, count in results.counts().items()}
    return {**counts, "more about it": more_about(results.run_id)}


def withheld_metadata(results: SyncResults) -> Metadata:
    """Builds what the check on withheld changes shows."""
    if not results.guarded:
        return {}
    metadata: Metadata = {f"withheld {action}s": MetadataValue.int(count) for action, count in withheld_counts(results)}
    return metadata | {"to release it": MetadataValue.text(how_to_release(results))}


def drift_metadata(results: SyncResults) -> Metadata:
    """Builds what the check on the fields of items shows."""
    return {"more about it": more_about(results.run_id)} if results.drift else {}


def failed_metadata(results: SyncResults) -> Metadata:
    """Builds what the check on failed items shows."""
    metadata: Metadata = {
        "failed": MetadataValue.int(results.error_count),
        "fetched": MetadataValue.int(results.fetched),
        "more about it": more_about(results.run_id),
    }
    return metadata | ({"errors": errors_table(results)} if results.errors else {})


def more_about(run_id: str) -> MetadataValue:
    """Returns the command that shows everything the ledger has of a run."""
    return MetadataValue.text(f"sync-pipelines show {run_id[:8]}")


def causes_table(results: SyncResults) -> MetadataValue:
    """Builds the table of errors by cause, and of the causes that are gone."""
    causes = [("new" if cause.is_new else "", cause) for cause in results.causes]
    causes += [("gone", cause) for cause in results.gone_causes]
    rows = [
        (cause.count, cause.exception_type, cause.template, ", ".join(cause.sample_ids), since)
        for since, cause in causes[:CAUSES_SHOWN]
    ]
    return _table(("items", "error", "message", "e.g.", "since the last run"), rows)


def errors_table(results: SyncResults) -> MetadataValue:
    """Builds the table of the first errors."""
    rows = [
        (error.position, error.external_id or "", error.exception_type, error.message)
        for error in results.errors[:ERRORS_SHOWN]
    ]
    return _table(("position", "external id", "error", "message"), rows)


def target_metadata(target: TargetDescription | None) -> Metadata:
    """Builds table name, number of rows and columns, under the names that Dagster shows in their own places."""
    if target is None:
        return {}
    metadata: Metadata = {"dagster/table_name": MetadataValue.text(qualified(target.database, target.table_name))}
    if target.row_count is not None:
        metadata["dagster/row_count"] = MetadataValue.int(target.row_count)
    if target.columns:
        schema = TableSchema([TableColumn(name, kind) for name, kind in target.columns])
        metadata["dagster/column_schema"] = MetadataValue.table_schema(schema)
    return metadata


def _remarks(results: SyncResults) -> Metadata:
    remarks: Metadata = {}
    if results.errors:
        shown = min(len(results.errors), ERRORS_SHOWN)
        title = "errors" if shown == results.error_count else f"errors (first {shown} of {results.error_count})"
        remarks[title] = errors_table(results)
    if results.causes or results.gone_causes:
        remarks["errors by cause"] = causes_table(results)
    if results.recovered:
        remarks["recovered"] = MetadataValue.int(results.recovered)
    if results.guarded:
        remarks |= {f"withheld {action}s": MetadataValue.int(count) for action, count in withheld_counts(results)}
        remarks["withheld because"] = MetadataValue.md("\n".join(f"- {reason}" for reason in results.guarded))
        remarks["to release it"] = MetadataValue.text(how_to_release(results))
    if results.notes:
        remarks["notes"] = MetadataValue.md("\n".join(f"- {note}" for note in results.notes))
    if results.failure is not None:
        remarks["failure"] = MetadataValue.text(results.failure)
    return remarks


def withheld_counts(results: SyncResults) -> list[tuple[str, int]]:
    """Counts what guards have withheld, by action."""
    return [(action, count) for action, count in results.withheld.to_dict().items() if count]


def how_to_release(results: SyncResults) -> str:
    """Says how to look at what guards have withheld, and how to apply it."""
    plan = results.plan_id or ""
    return (
        f"sync-pipelines plan show {plan[:8]}, then sync-pipelines apply {plan[:8]} --reason '...', or launch with "
        f"apply_plan: {plan} and a reason"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> MetadataValue:
    schema = TableSchema([TableColumn(name, "int" if name in _NUMBERS else "string") for name in columns])
    return MetadataValue.table([TableRecord(dict(zip(columns, row, strict=True))) for row in rows], schema)
