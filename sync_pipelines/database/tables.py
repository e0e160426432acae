"""Describes the ledger's tables, as the migrations make them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

POSTGRES_SCHEMA = "sync_pipelines"
"""Dagster puts `runs`, `jobs` and `alembic_version` into `public`; ours live beside it."""
SQLITE_PREFIX = "sync_"

FULL = "full"
APPLY = "apply"
RETRY = "retry"
DRAIN = "drain"
DRY_RUN = "dry run"
WITHHELD = "withheld"
"""Kind of a plan that limits have kept from being applied."""
WHOLE = (FULL, APPLY)
"""Kinds of runs that write all that a fetch brought, at once or out of a plan."""


class Moment(TypeDecorator[datetime]):
    """Keeps an aware moment. SQLite keeps only the wall clock, so that all are stored in UTC and returned in it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Converts a moment to UTC."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Converts what the database keeps to an aware moment in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


_SERIAL = BigInteger().with_variant(Integer, "sqlite")


@dataclass(frozen=True, slots=True)
class LedgerTables:
    """Holds the tables by what is in them."""

    metadata: MetaData
    runs: Table
    run_errors: Table
    run_batches: Table
    inbox: Table
    leases: Table
    versions: Table
    plans: Table
    failures: Table
    run_causes: Table
    run_shapes: Table
    history: Table
    history_blocks: Table
    misses: Table
    data_versions: Table
    data_writers: Table
    source_parts: Table


@cache
def ledger_tables(dialect_name: str) -> LedgerTables:
    """Returns the tables as they are named on that dialect; nobody changes them."""
    on_sqlite = dialect_name == "sqlite"
    schema, prefix = (None, SQLITE_PREFIX) if on_sqlite else (POSTGRES_SCHEMA, "")
    metadata = MetaData(schema=schema)
    run = f"{schema}.{prefix}runs.id" if schema else f"{prefix}runs.id"
    return LedgerTables(
        metadata=metadata,
        runs=_runs(metadata, prefix),
        run_errors=_run_errors(metadata, prefix, run),
        run_batches=_run_batches(metadata, prefix, run),
        inbox=_inbox(metadata, prefix),
        leases=_leases(metadata, prefix),
        versions=_versions(metadata, prefix),
        plans=_plans(metadata, prefix),
        failures=_failures(metadata, prefix),
        run_causes=_run_causes(metadata, prefix, run),
        run_shapes=_run_shapes(metadata, prefix, run),
        history=_history(metadata, prefix),
        history_blocks=_history_blocks(metadata, prefix),
        misses=_misses(metadata, prefix),
        data_versions=_data_versions(metadata, prefix),
        data_writers=_data_writers(metadata, prefix),
        source_parts=_source_parts(metadata, prefix),
    )


def _runs(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}runs",
        metadata,
        Column("id", String(36), primary_key=True),
        Column("job", Text, nullable=False),
        Column("kind", String(16), nullable=False),  # full, drain, dry run, apply or retry
        Column("dagster_run_id", String(64)),
        Column("options", JSON, nullable=False),  # limit, only; plan: the plan that is applied
        Column("started_at", Moment, nullable=False),
        Column("apply_started_at", Moment),
        Column("completed_at", Moment),
        Column("outcome", String(16)),
        Column("counts", JSON),
        Column("phase_ms", JSON),
        Column("notes", JSON),
        Column("failure", Text),
        # all that it was to write is written, whether or not it failed then; set when it ends
        Column("applied_all", Boolean, nullable=False, server_default=false()),
        # it was to delete, and could not tell which records are missing; what guards withhold is a plan
        Column("deletes_withheld", Boolean, key="no_deletes", nullable=False, server_default=false()),
        # what stated the end of its fetch, and why there may be more items: then an item's absence says nothing
        Column("completeness", JSON),
        Column("errors_noted_to", BigInteger),  # number of the last of its errors that is noted in the failures
        Index(f"ix_{prefix}runs_job_started_at", "job", "started_at"),
    )


def _run_errors(metadata: MetaData, prefix: str, run: str) -> Table:
    return Table(
        f"{prefix}run_errors",
        metadata,
        Column("id", _SERIAL, primary_key=True),
        Column("run_id", String(36), ForeignKey(run, ondelete="CASCADE"), nullable=False),
        Column("phase", String(16), nullable=False),  # diff or apply
        Column("position", BigInteger, nullable=False),
        Column("external_id", Text),
        Column("exception_type", Text, nullable=False),
        Column("message", Text, nullable=False),
        Column("trace", Text),  # through which functions of the user it came
        Index(f"ix_{prefix}run_errors_run_id_position", "run_id", "position"),
        Index(
            f"ix_{prefix}run_errors_external_id",
            # no index of PostgreSQL takes a text of thousands of characters
            "external_id" if prefix else text("substr(external_id, 1, 200)"),
            "run_id",
            postgresql_where=(named := text("external_id IS NOT NULL")),
            sqlite_where=named,
        ),
    )


def _run_batches(metadata: MetaData, prefix: str, run: str) -> Table:
    return Table(
        f"{prefix}run_batches",
        metadata,
        Column("run_id", String(36), ForeignKey(run, ondelete="CASCADE"), primary_key=True),
        Column("part", String(16), primary_key=True),  # `database.batches` has the parts
        Column("number", Integer, primary_key=True, autoincrement=False),  # in its part, from 0
        Column("counts", JSON, nullable=False),
        Column("left", JSON(none_as_null=True)),  # places in it that are still to be written; null: it is done
        Column("applied_at", Moment, nullable=False),
    )


def _inbox(metadata: MetaData, prefix: str) -> Table:
    finished = text("finished_at IS NOT NULL")
    named = text("delivery_id IS NOT NULL")
    return Table(
        f"{prefix}inbox",
        metadata,
        Column("id", _SERIAL, primary_key=True),
        Column("job", Text, nullable=False),
        Column("kind", String(16), nullable=False),  # upsert, delete, refetch, event
        Column("external_id", Text),  # as soon as it is known
        Column("item", Text),  # the engine's JSON; of an upsert
        Column("payload", Text),  # the body of a webhook, where the item does not say the same
        Column("headers", JSON(none_as_null=True)),  # of a webhook, as `parse` gets them
        Column("delivery_id", Text),  # what names it at the sender's
        Column("received_at", Moment, nullable=False),
        Column("state", String(16), nullable=False),  # waiting, applied, failed
        Column("attempts", Integer, nullable=False),
        Column("next_try_at", Moment),  # null: at once
        Column("action", String(16)),
        Column("message", Text),
        Column("finished_at", Moment),
        Column("came_with", BigInteger),  # the delivery that it was split off, and whose place in the order it has
        Index(f"ix_{prefix}inbox_job_state_id", "job", "state", "id"),
        Index(
            f"ux_{prefix}inbox_job_delivery_id",
            "job",
            "delivery_id",
            unique=True,
            postgresql_where=named,
            sqlite_where=named,
        ),
        Index(
            f"ix_{prefix}inbox_external_id",
            "job",
            # no index of PostgreSQL takes a text of thousands of characters
            "external_id" if prefix else text("substr(external_id, 1, 200)"),
            "state",
            "id",
        ),
        Index(f"ix_{prefix}inbox_finished_at", "finished_at", postgresql_where=finished, sqlite_where=finished),
    )


def _leases(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}leases",
        metadata,
        Column("job", String(200), primary_key=True),
        Column("holder", String(36)),  # a run; null when nobody has it
        Column("token", BigInteger, nullable=False),
        Column("expires_at", Moment, nullable=False),
        Column("dagster_run_id", String(64)),
        Column("described", Text, nullable=False),
        Column("process", Text, nullable=False),
    )


def _versions(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}versions",
        metadata,
        Column("job", String(200), primary_key=True),
        Column("external_id", String(300), primary_key=True),  # canonical
        Column("version", String(100), nullable=False),
    )


def _plans(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}plans",
        metadata,
        Column("id", String(36), primary_key=True),  # of the dry run that left it
        Column("job", Text, nullable=False),
        Column("created_at", Moment, nullable=False),
        Column("expires_at", Moment, nullable=False),
        Column("counts", JSON, nullable=False),  # create, update, delete
        Column("made_for", String(64), nullable=False),  # the target and the declaration in short
        Column("state", String(16), nullable=False),  # open, applying, applied, expired, superseded
        Column("applied_by", String(36)),  # the run that applies it
        Column("applied_at", Moment),
        Column("kind", String(16), nullable=False, server_default=DRY_RUN),  # dry run; withheld: by guards
        Column("guarded", JSON(none_as_null=True)),  # why it may be applied only with a reason: sentences
        Column("reason", Text),  # why it was applied all the same
        Column("released_by", Text),  # who said so
        Index(f"ix_{prefix}plans_job_created_at", "job", "created_at"),
    )


def _failures(metadata: MetaData, prefix: str) -> Table:
    is_open, resolved = text("state = 'open'"), text("resolved_at IS NOT NULL")
    return Table(
        f"{prefix}failures",
        metadata,
        Column("job", String(200), primary_key=True),
        Column("key", String(300), primary_key=True),  # by external id, or of an item without one by what it is
        Column("external_id", Text),  # canonical as far as it is known
        Column("source_id", Text),  # as the source writes it
        Column("action", String(16), nullable=False),  # upsert or delete
        Column("payload", Text),  # the engine's JSON of the item; none of a failure that is resolved
        Column("payload_hash", String(64)),
        Column("seen_at", Moment),  # since when the payload is known; null of a plan's, which may be older than records
        Column("exception_type", Text, nullable=False),
        Column("message", Text, nullable=False),
        Column("fingerprint", String(16), nullable=False),
        Column("template", Text, nullable=False),
        Column("attempts", Integer, nullable=False),  # since the item changed last
        Column("first_failed_at", Moment, nullable=False),
        Column("last_failed_at", Moment, nullable=False),
        Column("next_try_at", Moment),  # null: with the next run
        Column("state", String(16), nullable=False),  # open, given up, resolved
        Column("last_run_id", String(36), nullable=False),
        Column("resolved_at", Moment),
        Column("resolved_by", String(64)),  # a run, "vanished", or "single item"
        Column("trace", Text),  # through which functions of the user the error came
        # in parts, so that nobody takes it for a way to the failures of some keys
        Index(f"ix_{prefix}failures_due", "job", "next_try_at", postgresql_where=is_open, sqlite_where=is_open),
        Index(f"ix_{prefix}failures_resolved_at", "resolved_at", postgresql_where=resolved, sqlite_where=resolved),
    )


def _run_causes(metadata: MetaData, prefix: str, run: str) -> Table:
    return Table(
        f"{prefix}run_causes",
        metadata,
        Column("run_id", String(36), ForeignKey(run, ondelete="CASCADE"), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("exception_type", Text, nullable=False),
        Column("template", Text, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("sample_ids", JSON, nullable=False),
        Column("state", String(16), nullable=False),  # new, known or gone
    )


def _run_shapes(metadata: MetaData, prefix: str, run: str) -> Table:
    return Table(
        f"{prefix}run_shapes",
        metadata,
        Column("run_id", String(36), ForeignKey(run, ondelete="CASCADE"), primary_key=True),
        Column("job", Text, nullable=False),
        Column("shapes", JSON, nullable=False),  # `engine.item_shapes` has the form
        Index(f"ix_{prefix}run_shapes_job", "job"),
    )


def _history(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}history",
        metadata,
        Column("id", _SERIAL, primary_key=True),
        Column("job", String(200), nullable=False),
        Column("external_id", String(300), nullable=False),  # canonical; of a long one the hash
        Column("run_id", String(36)),  # null: a single item that was applied at once
        Column("via", String(16), nullable=False),  # the kind of the run, or single
        Column("at", Moment, nullable=False),
        Column("action", String(16), nullable=False),  # created, updated, deleted
        Column("changes", Text),  # the engine's JSON: field -> [old, new]; null if they are not known
        Index(f"ix_{prefix}history_record", "job", "external_id", "id"),
        Index(f"ix_{prefix}history_job_at", "job", "at"),
    )


def _history_blocks(metadata: MetaData, prefix: str) -> Table:
    """Describes what was written in bulk, hundreds of records to a row; `engine.history` has the form."""
    bound = String(100).with_variant(String(100, collation="C"), "postgresql")  # by code points, as Python sorts
    return Table(
        f"{prefix}history_blocks",
        metadata,
        Column("id", String(32), primary_key=True),
        Column("job", String(200), nullable=False),
        Column("run_id", String(36), nullable=False),
        Column("via", String(16), nullable=False),
        Column("at", Moment, nullable=False),
        Column("first_id", bound, nullable=False),
        Column("last_id", bound, nullable=False),
        Column("records", Integer, nullable=False),
        Column("lines", LargeBinary, nullable=False),
        Index(f"ix_{prefix}history_blocks_ids", "job", "first_id", "last_id"),
        Index(f"ix_{prefix}history_blocks_job_at", "job", "at"),
    )


def _misses(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}misses",
        metadata,
        Column("job", String(200), primary_key=True),
        Column("external_id", String(300), primary_key=True),  # canonical; empty: the fetch that was counted last
        Column("misses", Integer, nullable=False),  # complete fetches in a row
        Column("fetch", BigInteger, nullable=False),  # number of the last of them among those counted
        Column("first_missed_at", Moment, nullable=False),  # when the run of the first of them began
        Column("run_id", String(36), nullable=False),  # the run of the last of them
    )


def _data_versions(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}data_versions",
        metadata,
        Column("job", String(200), primary_key=True),
        Column("number", BigInteger, nullable=False),  # of changes of the target; it only grows
        Column("changed_at", Moment, nullable=False),
        Column("changed_by", String(64), nullable=False),  # for people
        Column("writer", String(36)),  # who has made the last change; null: nobody came back to say so
        Column("written", BigInteger, nullable=False),  # how much that was
    )


def _data_writers(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}data_writers",
        metadata,
        Column("job", String(200), primary_key=True),
        Column("writer", String(36), primary_key=True),  # was about to write and has not said how it ended
        Column("described", String(64), nullable=False),
        Column("is_single", Boolean, nullable=False),
        Column("is_counted", Boolean, nullable=False),  # a run that began meanwhile took it for a change already
        Column("began_at", Moment, nullable=False),
    )


def _source_parts(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}source_parts",
        metadata,
        Column("source", String(500), primary_key=True),  # key of the asset
        Column("job", String(200), primary_key=True),  # who reads it
        Column("part", String(64), nullable=False),  # what it fetched last, in short
        Column("number", BigInteger, nullable=False),  # of the source's change that this row has made, or came after
        Column("version", String(64), nullable=False),  # of the source since then
    )
