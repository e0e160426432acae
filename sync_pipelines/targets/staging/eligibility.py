"""Whether the database can compare a table with what is staged, and the fingerprint of its plans."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Any

from sync_pipelines.engine.staged_target import StagingRequest
from sync_pipelines.targets.staging.owned_rows import Ownership
from sync_pipelines.targets.staging.staged_columns import why_not_compared
from sync_pipelines.targets.staging.table_parts import TableParts
from sync_pipelines.targets.types.codec import Facts

_SQLITE_WITH_FULL_JOIN = (3, 39, 0)


def why_not(target: TableParts, request: StagingRequest, written: Sequence[str], ownership: Ownership) -> str | None:
    """Returns why the database can't compare a table with what is staged, before anything is tried; None if it can.

    Args:
        target: The opened table.
        written: The columns that are written besides the key.
        ownership: What is known of the columns that are no item's.
    """
    reason = why_not_compared(target.reflected, target.key, written, target.create_only, ownership.names)
    return reason or ownership.why_not() or _too_old(target, request) or _why_not_by_version(target, request, written)


def _too_old(target: TableParts, request: StagingRequest) -> str | None:
    """Why this SQLite can't compare; None if it can."""
    driver: Any = target.database.dialect.dbapi
    version = getattr(driver, "sqlite_version_info", _SQLITE_WITH_FULL_JOIN)
    if request.deletes and version < _SQLITE_WITH_FULL_JOIN:
        return f"SQLite {driver.sqlite_version} has no FULL JOIN, which deletes need; 3.39 has"
    return None


def _why_not_by_version(target: TableParts, request: StagingRequest, written: Sequence[str]) -> str | None:
    """Why the database can't tell which of two states of an item is the newer one; None if it can, or need not."""
    field = request.version
    if field is None:
        return None
    column = target.reader.column_of(field)
    codec = target.reflected.codecs.get(column) if column is not None else None
    updated = set(written) - target.create_only
    return _why_not_compared(field, column, codec.facts if codec else None, updated, target.compare)


def _why_not_compared(
    field: str, column: str | None, facts: Facts | None, written: Collection[str], compared: Collection[str] | None
) -> str | None:
    """Why the database can't compare versions; None if it can.

    Args:
        field: The item's field that holds the version.
        column: The column that it is written to as it is, None if there is none.
        facts: What is known of the column's type.
        written: The columns that an update writes.
        compared: Those that decide whether a record has changed, None for all.
    """
    if column is None or facts is None or column not in written:
        return f"the version {field!r} is in no column that every update writes"
    if compared is not None and column not in compared:
        return f"the version's column {column!r} is not compared, and so may be behind"
    if facts.family not in {"int", "numeric"} and not (facts.family == "datetime" and facts.aware):
        return f"the version's column {column!r} holds neither numbers nor moments with a time zone"
    return None


def fingerprint(target: TableParts, written: Sequence[str], ownership: Ownership) -> str:
    """The table and the declaration in short: a plan that was made for others must not be applied."""
    codecs = target.reflected.codecs
    types = [(name, codecs[name].type_name if name in codecs else None) for name in (*target.key, *written)]
    compare = None if target.compare is None else sorted(target.compare)
    said: list[Any] = [target.reflected.label, list(target.key), types, compare, sorted(target.create_only)]
    return sha256(repr(said + ownership.identity()).encode()).hexdigest()[:16]
