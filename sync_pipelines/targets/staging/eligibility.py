"""Whether a table can be synced in bulk, and what a plan of it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sync_pipelines.engine.staged_target import StagingRequest
from sync_pipelines.targets.staging.item_versions import why_not_by_version
from sync_pipelines.targets.staging.owned_rows import Ownership
from sync_pipelines.targets.staging.staged_columns import why_not_in_bulk
from sync_pipelines.targets.staging.table_parts import BulkTarget

_SQLITE_WITH_FULL_JOIN = (3, 39, 0)


def why_not(target: BulkTarget, request: StagingRequest, written: Sequence[str], ownership: Ownership) -> str | None:
    """Why a table can't be synced in bulk, before anything is tried; None if it can.

    Args:
        target: The opened table.
        written: The columns that are written besides the key.
        ownership: What is known of the columns that are no item's.
    """
    reason = why_not_in_bulk(target.reflected, target.key, written, target.create_only, ownership.names)
    return reason or ownership.why_not() or _too_old(target, request) or _why_not_by_version(target, request, written)


def _too_old(target: BulkTarget, request: StagingRequest) -> str | None:
    """Why this SQLite can't compare; None if it can."""
    driver: Any = target.database.dialect.dbapi
    version = getattr(driver, "sqlite_version_info", _SQLITE_WITH_FULL_JOIN)
    if request.deletes and version < _SQLITE_WITH_FULL_JOIN:
        return f"SQLite {driver.sqlite_version} has no FULL JOIN, which deletes need; 3.39 has"
    return None


def _why_not_by_version(target: BulkTarget, request: StagingRequest, written: Sequence[str]) -> str | None:
    """Why the database can't tell which of two states of an item is the newer one; None if it can, or need not."""
    field = request.version
    if field is None:
        return None
    column = target.reader.column_of(field)
    codec = target.reflected.codecs.get(column) if column is not None else None
    updated = set(written) - target.create_only
    return why_not_by_version(field, column, codec.facts if codec else None, updated, target.compare)


def fingerprint(target: BulkTarget, written: Sequence[str], ownership: Ownership) -> str:
    """The table and the declaration in short: a plan that was made for others must not be applied."""
    codecs = target.reflected.codecs
    types = [(name, codecs[name].type_name if name in codecs else None) for name in (*target.key, *written)]
    compare = None if target.compare is None else sorted(target.compare)
    said: list[Any] = [target.reflected.label, list(target.key), types, compare, sorted(target.create_only)]
    return sha256(repr(said + ownership.identity()).encode()).hexdigest()[:16]
