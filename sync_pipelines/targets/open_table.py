"""The target that a `SqlTable` opens: finds, compares and writes rows, each batch in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import sqlalchemy as sa

from sync_pipelines.engine.plan import Action, FieldChange
from sync_pipelines.engine.staged_target import StagingRequest
from sync_pipelines.engine.targets import Identify, TargetDescription
from sync_pipelines.errors import ItemError, WriteRefusedError
from sync_pipelines.targets.staging.read_columns import PageReader
from sync_pipelines.targets.staging.staged_table import StagedTable
from sync_pipelines.targets.staging.table_parts import TableParts
from sync_pipelines.targets.table.declared import database_name
from sync_pipelines.targets.table.delete_effects import DeleteEffects, rows_gone
from sync_pipelines.targets.table.keys import KeyLister, TableKey
from sync_pipelines.targets.table.mapping import ItemMapping
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.table.row_changes import ChangedRow, RowChanges, changed_row, insert_into
from sync_pipelines.targets.table.row_order import Move, RowOrder, stand_in
from sync_pipelines.targets.table.scope import EVERYTHING, Scope
from sync_pipelines.targets.table.soft_delete import Mark
from sync_pipelines.targets.table.transactions import Transactions
from sync_pipelines.targets.table.write_effects import WriteEffects
from sync_pipelines.targets.types.unwrap import shortened

Row = dict[str, Any]
"""A local record: column -> canonical value, key columns included."""


@dataclass(frozen=True, slots=True)
class WritePolicy:
    """Which columns of a row are written when, and which rows the sync answers for.

    Args:
        written: The columns that are written, None if they depend on the item.
        compare: The columns that decide whether a row has changed, None for all.
        mark: The column that marks deleted rows, None if a delete removes them.
    """

    key: tuple[str, ...]
    written: tuple[str, ...] | None
    compare: frozenset[str] | None
    create_only: frozenset[str]
    mark: Mark | None = None
    scope: Scope = EVERYTHING

    def own_columns(self) -> set[str]:
        """Returns the columns that say whether a row is deleted, and whether it is in the scope."""
        mark = {self.mark.name} if self.mark is not None else set()
        return mark | {column.codec.name for column in self.scope.columns}


class OpenedSqlTable:
    """One table, for the time of a run. Its methods may be called from several threads."""

    def __init__(
        self,
        database: sa.Engine,
        reflected: ReflectedTable,
        policy: WritePolicy,
        mapping: ItemMapping,
        identify: Identify,
    ) -> None:
        self._database = database
        self._reflected = reflected
        self._table = reflected.table
        self._profile = reflected.profile
        self._policy = policy
        self._mapping = mapping
        self._read_item = mapping.read
        self._identify = identify
        self._transactions = Transactions(database, self._profile)
        self._key = TableKey(self._table, [reflected.codecs[name] for name in policy.key])
        self._changes = RowChanges(
            self._table,
            self._key.columns,
            self._profile,
            counts_many=database.dialect.supports_sane_multi_rowcount,
        )
        self._mark = policy.mark
        self._writable = frozenset(reflected.codecs) - reflected.generated - {self._mark.name if self._mark else ""}
        self._lister = KeyLister(reflected, self._key, policy.mark, policy.scope, self._transactions)
        shown: Collection[str] = reflected.codecs
        if policy.written is not None:
            shown = {*policy.key, *policy.written, *policy.own_columns()}
        unique = [each for each in reflected.unique_keys if each <= frozenset(reflected.codecs)]
        self._order = RowOrder(self._transactions.reading, self._table, unique)
        written = self._writable if policy.written is None else policy.written
        self._wanted = {
            name
            for names in self._order.unique
            if set(names) != set(policy.key) and set(names) <= set(written)
            for name in names
        }
        self._effects = DeleteEffects(
            self._transactions.reading, self._table, self._profile, self._order, self._key, written
        )
        self._write_effects = WriteEffects(self._transactions.reading, self._table)
        self._shown = tuple(codec for name, codec in reflected.codecs.items() if name in shown)

    def canonical_id(self, external_id: str) -> str:
        """Returns the external id as the key columns would give it back: "7" for "007" and an integer key."""
        return self._key.canonical_id(external_id)

    def expect_ids(self, external_ids: Sequence[str]) -> None:
        """Takes note of external ids that are about to be asked for, for a database with a way of its own with text."""
        self._key.expect_ids(external_ids)

    def find_local(self, external_id: str) -> Row | None:
        """Returns the row of that external id, or None."""
        return self.find_many([external_id]).get(self.canonical_id(external_id))

    def find_many(self, external_ids: Sequence[str]) -> dict[str, Row]:
        """Returns the rows that exist, by canonical external id."""
        self.expect_ids(external_ids)
        id_of_key = self._key.id_of_key
        by_canonical_id = {id_of_key(key): key for key in map(self._key.key_of_id, external_ids)}
        keys = [form for key in by_canonical_id.values() for form in self._key.forms_of(key)]
        with self._transactions.reading() as connection:
            return self._find_on(connection, keys)

    def _find_on(self, connection: sa.Connection, keys: Sequence[Sequence[Any]]) -> dict[str, Row]:
        """Finds the rows with those keys over a given connection."""
        id_of_key = self._key.id_of_key
        columns = [self._table.c[codec.name] for codec in self._shown]
        size = self._profile.values_per_lookup // len(self._policy.key)
        rows: list[Sequence[Any]] = []
        for start in range(0, len(keys), size):
            among = self._profile.among(self._key.columns, keys[start : start + size])
            rows += connection.execute(sa.select(*columns).where(among)).all()
        by_id: dict[str, Row] = {}
        for values in rows:
            row = {codec.name: codec.from_database(value) for codec, value in zip(self._shown, values, strict=True)}
            by_id[id_of_key(self._key_in(row))] = row
        return by_id

    def changes(self, item: Any, local: Mapping[str, Any] | None) -> dict[str, FieldChange]:
        """Returns what a create (`local` is None) or an update would write, old and new; empty if up to date.

        `targets.staging.field_changes.changed_fields` says the same of staged rows.

        Raises:
            ItemError: The item can't be written; the message names column and value.
        """
        if local is None:
            return {name: FieldChange(None, new) for name, new in self._row_of(item).items()}
        different: dict[str, FieldChange] = {}
        for name, value in self._read_item(item, self._writable.__contains__).items():
            if name in self._policy.key or name in self._policy.create_only:
                continue
            codec = self._reflected.codecs[name]
            new = codec.from_item(value)
            if not codec.same(local[name], new):
                different[name] = FieldChange(local[name], new)
        compare = self._policy.compare
        counts = compare is None or not compare.isdisjoint(different)
        if self._mark is not None and self._mark.is_set(local):
            different[self._mark.name] = FieldChange(local[self._mark.name], self._mark.live)
            counts = True
        return different if counts else {}

    def is_marked(self, local: Mapping[str, Any]) -> bool:
        """True if the row is marked as deleted."""
        return self._mark is not None and self._mark.is_set(local)

    def delete_changes(self, local: Mapping[str, Any]) -> dict[str, FieldChange]:
        """Returns what a delete changes of a row: it is marked, or all that is known of it goes."""
        if self._mark is not None:
            return {self._mark.name: FieldChange(local[self._mark.name], self._mark.shown)}
        return {name: FieldChange(value, None) for name, value in local.items()}

    def local_version(self, local: Mapping[str, Any], field: str) -> Any:
        """Returns the value of the column that an item's field is written to as it is; None if there is none."""
        column = self._mapping.column_of(field)
        return local.get(column) if column is not None else None

    def stored_version(self, value: Any, field: str) -> Any:
        """Returns what `local_version` would give after that value was written; None if there is no such column."""
        codec = self._reflected.codecs.get(self._mapping.column_of(field) or "")
        try:
            return None if codec is None else codec.from_item(value)
        except ItemError:
            return None

    def create(self, item: Any) -> None:
        """Inserts the item's row. Raises as `create_many`."""
        self.create_many([item])

    def create_many(self, items: Sequence[Any]) -> None:
        """Inserts a row for each item, all of them or none.

        Raises:
            ItemError: An item can't be written.
            RetryableError: The database can't be reached, is locked, or broke a deadlock.
            sqlalchemy.exc.DBAPIError: The database refuses a row.
        """
        batches: dict[frozenset[str], list[Row]] = {}
        for row in map(self._row_of, items):
            batches.setdefault(frozenset(row), []).append(row)
        refer_to_each_other = bool(self._order.references)  # asked before a transaction has the only connection
        watches = self._write_effects.are_possible(Action.CREATE)
        with self._transactions.writing() as connection, self._watched(connection, len(items), watches=watches):
            for rows in batches.values():
                if 0 <= self._insert(connection, rows, at_once=refer_to_each_other) < len(rows) or watches:
                    self._require_kept(connection, rows)

    def _watched(
        self, connection: sa.Connection, created: int = 0, *, watches: bool = True
    ) -> AbstractContextManager[None]:
        return self._write_effects.watched(connection, created=created) if watches else nullcontext()

    def _insert(self, connection: sa.Connection, rows: Sequence[Row], *, at_once: bool) -> int:
        """Inserts rows with the same columns; gives how many the database says that it has inserted.

        Args:
            at_once: True for one statement, by which rows that refer to each other can go in in whatever order.
        """
        statement = insert_into(self._table).execution_options(preserve_rowcount=True)
        values = len(rows) * len(rows[0])
        if at_once and len(rows) > 1 and values <= self._profile.values_per_lookup:
            return connection.execute(statement.values(list(rows))).rowcount
        return connection.execute(statement, rows).rowcount

    def _require_kept(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Makes sure that rows are there under their keys: a trigger may have moved them, or taken them elsewhere."""
        keys = [self._key_in(row) for row in rows]
        query = sa.select(sa.func.count()).select_from(self._table).where(self._profile.among(self._key.columns, keys))
        lacking = len(rows) - int(connection.scalar(query) or 0)
        if lacking > 0:
            which = "the row" if len(rows) == 1 else f"{lacking} of {len(rows)} rows"
            first = self._key.id_of_key(keys[0])
            raise WriteRefusedError(
                f"the database took {which} and kept nothing under the key {first!r}: a trigger or a rule of the table "
                "left it out, or changed its key"
            )

    def update(self, item: Any, local: Mapping[str, Any]) -> None:
        """Writes the columns that differ. Raises as `update_many`."""
        self.update_many([(item, local)])

    def update_many(self, pairs: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        """Writes of each pair of item and row the columns that differ, all pairs or none. Raises as `create_many`."""
        batches: dict[tuple[str, ...], list[ChangedRow]] = {}
        moves: list[Move] = []
        for item, local in pairs:
            if changes := self.changes(item, local):
                new = {name: change.new for name, change in changes.items()}
                batches.setdefault(tuple(changes), []).append(changed_row(self._key_in(local), new.values()))
                moves.append(Move(local, {**local, **new}))
        exchanged = self._order.exchanged(moves)
        watches = self._write_effects.are_possible(Action.UPDATE)
        with self._transactions.writing() as connection, self._watched(connection, watches=watches):
            self._set_aside(connection, moves, exchanged)
            hits = sum(self._changes.update(connection, columns, rows) for columns, rows in batches.items())
            if hits != len(moves):
                self._require_written(connection, pairs)
            elif watches:
                self._require_same_keys(connection, [move.old for move in moves])

    def _set_aside(
        self, connection: sa.Connection, moves: Sequence[Move], exchanged: Mapping[str, Sequence[int]]
    ) -> None:
        """Frees unique values that rows take from one another, as in a swap: else none could be the first."""
        for name, places in exchanged.items():
            codec, is_nullable = self._reflected.codecs[name], name not in self._reflected.not_null
            rows = [
                changed_row(self._key_in(moves[place].old), [None if is_nullable else stand_in(codec, number)])
                for number, place in enumerate(places)
            ]
            self._changes.update(connection, (name,), rows)

    def _require_same_keys(self, connection: sa.Connection, locals_: Sequence[Mapping[str, Any]]) -> None:
        """Makes sure that rows which were updated have the same keys as before."""
        keys = [self._key_in(local) for local in locals_]
        found = self._find_on(connection, keys)
        for external_id in map(self._key.id_of_key, keys):
            if external_id not in found:
                raise WriteRefusedError(
                    f"the database has changed its key, or removed it, when the local record {external_id!r} was "
                    "updated: a trigger or a rule of the table does that",
                    external_id=external_id,
                )

    def _require_written(self, connection: sa.Connection, pairs: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        """Makes sure that rows are as they should be which the database does not count as updated.

        A trigger may have written them in its own way.
        """
        found = self._find_on(connection, [self._key_in(local) for _, local in pairs])
        for item, local in pairs:
            external_id = self._key.id_of_key(self._key_in(local))
            if external_id not in found:
                self._raise_gone(external_id)
            if self.changes(item, found[external_id]):
                self._raise_kept(external_id, "updated")

    def delete(self, local: Mapping[str, Any]) -> None:
        """Deletes the row. Raises as `delete_many`."""
        self.delete_many([local])

    def delete_many(self, locals_: Sequence[Mapping[str, Any]]) -> None:
        """Deletes the rows, or marks them as deleted, all of them or none. Raises as `create_many`."""
        for local in locals_:
            self._policy.scope.require(local)
        keys = [self._key_in(local) for local in locals_]
        takes_others = self.deletes_may_take_others
        refer_to_each_other = self._mark is None and bool(self._order.references)
        watches = self._mark is not None and self._write_effects.are_possible(Action.UPDATE)
        with self._transactions.writing() as connection:
            if self._mark is not None:
                new = [self._mark.written()]
                rows = [changed_row(key, new) for key in keys]
                with self._watched(connection, watches=watches):
                    hit = self._changes.update(connection, (self._mark.name,), rows)
            elif takes_others:
                self._effects.require_alone(connection, keys)
                before = rows_gone(connection, self._table)
                self._changes.delete(connection, keys, at_once=refer_to_each_other)
                hit = rows_gone(connection, self._table) - before
                self._effects.require_no_more(hit, len(keys))
            else:
                hit = self._changes.delete(connection, keys, at_once=refer_to_each_other)
            if hit != len(keys):
                self._require_deleted(connection, keys)

    @property
    def deletes_may_take_others(self) -> bool:
        """True if a delete may do something to other rows."""
        if self._mark is not None or not self._effects.are_possible:
            return False
        return self._order.references is not None  # asked as well, before a transaction has the only connection

    def _require_deleted(self, connection: sa.Connection, keys: Sequence[Sequence[Any]]) -> None:
        """Says of rows that were not deleted whether they are gone, or the database has kept them."""
        found = self._find_on(connection, keys)
        for key in keys:
            external_id = self._key.id_of_key(key)
            if external_id not in found:
                self._raise_gone(external_id)
            if not self.is_marked(found[external_id]):
                self._raise_kept(external_id, "deleted")

    def list_local(self) -> Iterator[str]:
        """Returns the canonical external ids of all rows that this sync may delete, streamed.

        Rows that are marked as deleted, out of the scope, or without a key are left out.
        """
        return self._lister.list_ids()

    def describe(self) -> TargetDescription:
        """Returns the table's name, columns and number of rows, which it counts."""
        with self._transactions.reading() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(self._table)).scalar_one()
        columns = tuple((name, codec.type_name) for name, codec in self._reflected.codecs.items())
        url = self._database.url
        return TargetDescription(self._reflected.label, columns, count, database_name(url, self._table.schema))

    def notes(self) -> list[str]:
        """Returns what an operator should know of this target."""
        return [self._profile.note] if self._profile.note else []

    def open_staged(self, request: StagingRequest) -> StagedTable | None:
        """Returns what this table offers for many items at once; None if its database works page by page only."""
        if not self._profile.has_staging:
            return None
        parts = TableParts(
            database=self._database,
            reflected=self._reflected,
            key=self._policy.key,
            shown=self._shown,
            compare=self._policy.compare,
            create_only=self._policy.create_only,
            reader=PageReader(self._mapping, self._writable.__contains__),
            key_of_id=self._key.key_of_id,
            id_of_key=self._key.id_of_key,
            fence=self._transactions.fence,
            mark=self._policy.mark,
            scope=self._policy.scope,
            deletes_singly=request.deletes and self.deletes_may_take_others,
            effects=self._write_effects if self._may_have_effects() else None,
        )
        return StagedTable(parts, request)

    def _may_have_effects(self) -> bool:
        return any(map(self._write_effects.are_possible, Action))

    def together(self) -> AbstractContextManager[sa.Connection | None]:
        """Opens one transaction for all that is written in the block, and for what else the caller writes in it."""
        return self._transactions.together()

    def fence_with(self, fence: Callable[[sa.Connection], object]) -> None:
        """Lets every write transaction begin with that call, which raises if this run may not write any more."""
        self._transactions.fence = fence

    def _row_of(self, item: Any) -> Row:
        """Builds the row that a create writes."""
        external_id = self._identify(item)
        row = dict(zip(self._policy.key, self._key.key_of_id(external_id), strict=True))
        for name, value in self._read_item(item, self._writable.__contains__).items():
            codec = self._reflected.codecs[name]
            is_key = name in self._policy.key
            row[name] = codec.key_from_item(value, row[name]) if is_key else codec.from_item(value)
        written = self._key_in(row)
        if None in written or self._key.id_of_key(written) != self._key.canonical_id(external_id):
            raise ItemError(
                f"the item's external id is {external_id!r}, but its key columns would be {shortened(written)}: "
                "get_external_id and columns must say the same",
                external_id=external_id,
            )
        own = {self._mark.name: self._mark.live} if self._mark is not None else {}
        return self._policy.scope.fillings() | row | own

    def _key_in(self, row: Mapping[str, Any]) -> list[Any]:
        return [row[name] for name in self._policy.key]

    def may_come_right(self, error: Exception) -> bool:
        """True if a row that was refused may be written once others of the table have been."""
        return self._order.may_come_right(error)

    def units(self, writes: Sequence[tuple[Any, Mapping[str, Any] | None]]) -> list[list[int]]:
        """Puts writes into the order in which the table can take them; those that need each other are in one list.

        Args:
            writes: Item (None of a delete) and local record (None of a create) of each.
        """
        if not self._order.matters:
            return [[place] for place in range(len(writes))]
        return self._order.units([self._move(item, local) for item, local in writes])

    def later_rivals(self, writes: Sequence[tuple[Any, Mapping[str, Any] | None]]) -> set[int]:
        """Returns the places of writes that want unique values, besides the key, which one before them wants.

        Args:
            writes: Item (None of a delete) and local record (None of a create) of each.
        """
        if not self._wanted:
            return set()
        moves = [Move(local or {}, {} if item is None else self._wanted_of(item)) for item, local in writes]
        return set(self._order.rivals(moves))

    def _wanted_of(self, item: Any) -> Row:
        """Returns what an item holds for unique columns besides the key, without what can't be read."""
        found: Row = {}
        for name in self._wanted:
            with suppress(Exception):  # the functions of columns are the user's
                found[name] = self._reflected.codecs[name].from_item(self._mapping.read_key(item, name))
        return found

    def _move(self, item: Any, local: Mapping[str, Any] | None) -> Move:
        if item is None:
            return Move(local or {}, {})
        try:
            changes = {name: change.new for name, change in self.changes(item, local).items()}
        except ItemError:  # it is raised when it is written
            return Move({}, {})
        return Move(local or {}, {**(local or {}), **changes})

    def _raise_gone(self, external_id: str) -> NoReturn:
        raise ItemError(
            f"the local record {external_id!r} is not there any more: somebody deleted it or changed its key",
            external_id=external_id,
        )

    def _raise_kept(self, external_id: str, done: str) -> NoReturn:
        hint = "; if it marks rows as deleted, say so with soft_delete" if done == "deleted" else ""
        kind = WriteRefusedError if done == "updated" else ItemError
        raise kind(
            f"the database has not {done} the local record {external_id!r}: a trigger, a rule or row-level security "
            f"has kept it as it is{hint}",
            external_id=external_id,
        )
