"""What a database does by itself when rows are deleted: cascades, references that are emptied, triggers, rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from sync_pipelines.errors import DeleteRefusedError
from sync_pipelines.targets.dialects.postgresql import name_of
from sync_pipelines.targets.dialects.profile import DialectProfile
from sync_pipelines.targets.dialects.sqlite import read_definitions
from sync_pipelines.targets.table.keys import TableKey
from sync_pipelines.targets.table.references import Reference, read_all_references
from sync_pipelines.targets.table.row_order import Reading, RowOrder

_NAMED = 3
# The table itself, what a delete takes by cascades, however many tables further; whether that comes back to the table,
# and whether triggers or rules have a say.
_MORE_ON_POSTGRESQL = sa.text(
    "WITH RECURSIVE taken(oid) AS (SELECT CAST(CAST(:name AS regclass) AS oid) UNION SELECT c.conrelid FROM "
    "pg_constraint c JOIN taken t ON c.confrelid = t.oid WHERE c.contype = 'f' AND c.confdeltype = 'c') "
    "SELECT EXISTS (SELECT FROM pg_constraint c JOIN taken t ON c.confrelid = t.oid WHERE c.contype = 'f' "
    "AND c.confdeltype IN ('c', 'n', 'd') AND c.conrelid = CAST(:name AS regclass)) "
    "OR EXISTS (SELECT FROM pg_trigger g JOIN taken t ON g.tgrelid = t.oid WHERE NOT g.tgisinternal "
    "AND g.tgenabled <> 'D' AND g.tgtype & 8 = 8) "
    "OR EXISTS (SELECT FROM pg_rewrite r JOIN taken t ON r.ev_class = t.oid WHERE r.ev_type = '4')"
)
# The table, its partitions and heirs.
PARTS_ON_POSTGRESQL = (
    "WITH RECURSIVE parts(oid) AS (SELECT CAST(CAST(:name AS regclass) AS oid) UNION "
    "SELECT i.inhrelid FROM pg_inherits i JOIN parts p ON i.inhparent = p.oid)"
)
# How many rows this transaction has deleted so far, by whatever statement: of the table, its partitions and heirs.
_DELETED_ON_POSTGRESQL = sa.text(
    f"{PARTS_ON_POSTGRESQL} "  # noqa: S608 - text of ours
    "SELECT sum(pg_stat_get_xact_tuples_deleted(oid)) FROM parts WHERE CAST(current_setting('track_counts') AS boolean)"
)


def rows_gone(connection: sa.Connection, table: sa.Table, *, created: int = 0) -> int:
    """Returns a number that grows by each row of a table that goes, in this transaction.

    Args:
        created: How many rows have been created since the number to compare with.
    """
    if connection.dialect.name == "postgresql":
        deleted = connection.scalar(_DELETED_ON_POSTGRESQL, {"name": name_of(connection.dialect, table)})
        if deleted is not None:
            return int(deleted)
    return created - int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


class DeleteEffects:
    """Sees to it that a delete takes the rows that it is for, and no others of the table.

    Args:
        written: The columns that the sync writes: what a delete may do to others is no business of it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        reading: Reading,
        table: sa.Table,
        profile: DialectProfile,
        order: RowOrder,
        key: TableKey,
        written: Collection[str],
    ) -> None:
        self._reading = reading
        self._table = table
        self._profile = profile
        self._order = order
        self._key = key
        self._written = written

    @cached_property
    def are_possible(self) -> bool:
        """True if a delete of a row may do something to other rows of the table, or leave the row there."""
        with self._reading() as connection:
            if connection.dialect.name == "postgresql":
                name = name_of(connection.dialect, self._table)
                return bool(connection.scalar(_MORE_ON_POSTGRESQL, {"name": name}))
            return self._takes_others(connection) or self._has_triggers(connection)

    def _takes_others(self, connection: sa.Connection) -> bool:
        """True if a chain of references leads back to the table."""
        effective = [each for each in read_all_references(connection, self._table) if each.on_delete]
        taken: set[str] = set()
        more = {self._table.name}
        while more - taken:
            taken |= more
            hit = [each for each in effective if each.referred_table in taken]
            if any(each.table == self._table.name for each in hit):
                return True
            more = {each.table for each in hit if each.on_delete == "CASCADE"}
        return False

    def _has_triggers(self, connection: sa.Connection) -> bool:
        if connection.dialect.name != "sqlite":
            return False  # on MySQL a trigger may not touch its own table
        definitions = read_definitions(connection, self._table)
        return any(each.is_trigger and "DELETE" in each.sql.upper() for each in definitions)

    def require_alone(self, connection: sa.Connection, keys: Sequence[Sequence[Any]]) -> None:
        """Makes sure that no reference of the table to itself has a delete take or change other rows.

        Raises:
            DeleteRefusedError: It would.
        """
        for each in self._order.references:
            if each.on_delete == "CASCADE" or (each.on_delete and not set(each.columns).isdisjoint(self._written)):
                others = self._others(connection, each, keys)
                if others:
                    named = ", ".join(others[:_NAMED])
                    more = " and others" if len(others) > _NAMED else ""
                    raise DeleteRefusedError(
                        f"not deleted: other records refer to it ({named}{more}), and the database would "
                        f"{_effect(each)} with it, though nothing says that their items are gone"
                    )

    def _others(self, connection: sa.Connection, reference: Reference, keys: Sequence[Sequence[Any]]) -> list[str]:
        """The ids of some rows that refer to others which are to be deleted, and are not among them."""
        deleted = self._table.alias("deleted")
        pairs = zip(reference.columns, reference.referred, strict=True)
        refers = [self._table.c[own] == deleted.c[other] for own, other in pairs]
        query = sa.select(*self._key.columns).select_from(self._table.join(deleted, sa.and_(*refers))).where(
            self._profile.among([deleted.c[column.name] for column in self._key.columns], keys),
            ~self._profile.among(self._key.columns, keys),
        )  # fmt: skip
        rows = connection.execute(query.limit(_NAMED + 1)).all()
        codecs, id_of_key = self._key.codecs, self._key.id_of_key
        return [
            id_of_key([codec.from_database(value) for codec, value in zip(codecs, row, strict=True)]) for row in rows
        ]

    def require_no_more(self, gone: int, rows: int) -> None:
        """Makes sure that no more rows have gone than were to go. The transaction must end if they have.

        Raises:
            DeleteRefusedError: More have.
        """
        if gone > rows:
            raise DeleteRefusedError(
                f"not deleted: a cascade, a trigger or a rule of the database would delete {gone - rows:,} other "
                "records of the table with it, though nothing says that their items are gone"
            )


def _effect(reference: Reference) -> str:
    if reference.on_delete == "CASCADE":
        return "delete them (ON DELETE CASCADE)"
    return f"empty their {', '.join(reference.columns)} (ON DELETE {reference.on_delete})"
