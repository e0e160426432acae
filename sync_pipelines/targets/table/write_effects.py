"""What a database does by itself when rows are created or updated: triggers, rules, conflict rules of SQLite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.plan import Action
from sync_pipelines.errors import WriteRefusedError
from sync_pipelines.targets.dialects.postgresql import name_of
from sync_pipelines.targets.dialects.sqlite import fires_on, read_definitions, replaces_rows
from sync_pipelines.targets.table.delete_effects import PARTS_ON_POSTGRESQL, rows_gone
from sync_pipelines.targets.table.row_changes import states_conflict_rule
from sync_pipelines.targets.table.row_order import Reading

_ON_POSTGRESQL = sa.text(  # of the table, its partitions and heirs; a trigger may delete whatever it likes
    f"{PARTS_ON_POSTGRESQL}, "  # noqa: S608 - text of ours
    "fired(event) AS (SELECT CAST(g.tgtype AS int) FROM pg_trigger g JOIN parts p ON g.tgrelid = p.oid "
    "WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' "
    "UNION SELECT CASE r.ev_type WHEN '3' THEN 4 ELSE 16 END FROM pg_rewrite r JOIN parts p ON r.ev_class = p.oid "
    "WHERE r.ev_type IN ('2', '3')) "
    "SELECT coalesce(bool_or(event & 4 = 4), false), coalesce(bool_or(event & 16 = 16), false) FROM fired"
)
_ON_MYSQL = sa.text(
    "SELECT EVENT_MANIPULATION FROM information_schema.TRIGGERS "
    "WHERE EVENT_OBJECT_SCHEMA = coalesce(:schema, database()) AND EVENT_OBJECT_TABLE = :name"
)
_DELETES = re.compile(r"\b(?:DELETE|REPLACE)\b", re.IGNORECASE)


class WriteEffects:
    """Knows whether the database may do more than it is told when a row is created or updated, and sees that it did.

    Of a table without triggers and rules nothing is asked.
    """

    def __init__(self, reading: Reading, table: sa.Table) -> None:
        self._reading = reading
        self._table = table
        self._may_remove = True

    def are_possible(self, action: Action) -> bool:
        """True if the database may leave something else than the row, or not under its key."""
        return self._possible[action]

    @cached_property
    def _possible(self) -> Mapping[Action, bool]:
        with self._reading() as connection:
            created, updated = self._read(connection)
        return {Action.CREATE: created, Action.UPDATE: updated, Action.DELETE: False}

    def _read(self, connection: sa.Connection) -> tuple[bool, bool]:
        if connection.dialect.name == "postgresql":
            created, updated = connection.execute(
                _ON_POSTGRESQL, {"name": name_of(connection.dialect, self._table)}
            ).one()
            return bool(created), bool(updated)
        if connection.dialect.name == "sqlite":
            return self._read_on_sqlite(connection)
        if connection.dialect.name in {"mysql", "mariadb"}:
            given: dict[str, Any] = {"schema": self._table.schema, "name": self._table.name}
            events = set(connection.scalars(_ON_MYSQL, given))
            self._may_remove = False  # there a trigger may not touch its own table
            return "INSERT" in events, "UPDATE" in events
        return False, False

    def _read_on_sqlite(self, connection: sa.Connection) -> tuple[bool, bool]:
        definitions = read_definitions(connection, self._table)
        replaces = replaces_rows(definitions, self._table) and not states_conflict_rule(self._table)
        self._may_remove = replaces or any(_DELETES.search(each.sql) for each in definitions if each.is_trigger)
        created, updated = (fires_on(definitions, self._table, event) for event in ("INSERT", "UPDATE"))
        return replaces or created, replaces or updated

    @contextmanager
    def watched(self, connection: sa.Connection, *, created: int = 0) -> Iterator[None]:
        """Makes sure that what is written in the block removes no row of the table. Its transaction must end if so.

        Args:
            created: How many rows are created in the block.

        Raises:
            WriteRefusedError: Rows have gone.
        """
        before = rows_gone(connection, self._table) if self._may_remove else 0
        yield
        gone = rows_gone(connection, self._table, created=created) - before if self._may_remove else 0
        if gone > 0:
            raise WriteRefusedError(
                f"not written: a trigger or a rule of the database would remove {gone:,} other "
                f"record{'s' if gone > 1 else ''} of the table with it, though nothing says that "
                f"{'their items are' if gone > 1 else 'its item is'} gone"
            )
