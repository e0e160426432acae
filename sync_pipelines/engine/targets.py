"""What the engine asks of a target: three methods, and wider ones that it uses when they are offered.

The smallest target has `find_local`, `create` and `update` (`Target`). Each further protocol here is optional; the
engine looks for its method by name and prefers the wider one. Every method may be plain or `async`, except `open`,
which is plain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sync_pipelines.engine.plan import FieldChange

Item_contra = TypeVar("Item_contra", contravariant=True)
Local = TypeVar("Local")
Local_co = TypeVar("Local_co", covariant=True)
Local_contra = TypeVar("Local_contra", contravariant=True)

Identify = Callable[[Any], str]
"""Gives an item's external id, or raises `ItemError`."""


class Target(Protocol[Item_contra, Local]):
    """Where local records live: the least that a target must offer."""

    def find_local(self, external_id: str) -> Local | None:
        """The local record of that external id, or None."""

    def create(self, item: Item_contra) -> object:
        """Writes a new local record. What it returns is ignored."""

    def update(self, item: Item_contra, local: Local) -> object:
        """Brings the found local record up to the item. What it returns is ignored."""


class DecidesChanges(Protocol[Item_contra, Local_contra]):
    """A target that knows whether a found record differs."""

    def has_changed(self, item: Item_contra, local: Local_contra) -> bool:
        """True if `update` would change the local record."""


class NamesChanges(Protocol[Item_contra, Local_contra]):
    """A target that knows which fields differ; wider than `has_changed`."""

    def changes(self, item: Item_contra, local: Local_contra | None) -> Mapping[str, FieldChange]:
        """The fields that a create (`local` is None) or an update would write, old and new.

        Empty for a found record that is up to date. Raises `ItemError` naming field and value for an item that
        can't be written.
        """


class ReadsRecords(Protocol[Local_contra]):
    """A target whose local records are neither mappings nor plain objects, and that can tell their fields."""

    def local_fields(self, local: Local_contra) -> Mapping[str, Any]:
        """Field -> value, for plans to show what a delete removes."""


class TellsItsIdentity(Protocol):
    """A target declaration that can say what it writes to: a plan made for one is not applied to another."""

    def identity(self) -> Sequence[Any]:
        """Whatever makes it another target or another mapping if it changes; no secrets."""


class NamesIdField(Protocol):
    """A target declaration that reads external ids from a field of items: a text in it is the id as it stands."""

    @property
    def external_id_field(self) -> str | None:
        """The name of the field; None if there is no such one."""


class DeletesRecords(Protocol[Local_contra]):
    """A target that can delete a local record."""

    def delete(self, local: Local_contra) -> object:
        """Deletes the local record."""


class MarksRecords(Protocol[Local_contra]):
    """A target whose deletes mark local records instead of removing them; its `find_local` finds marked ones too.

    Such a target names its changes: that of a marked record whose item is there takes the mark off. Its declaration has
    an attribute `soft_delete`, which is not None; one that is not opened may have `is_marked` alone.
    """

    def is_marked(self, local: Local_contra) -> bool:
        """True if the local record is marked as deleted."""

    def delete_changes(self, local: Local_contra) -> Mapping[str, FieldChange]:
        """The fields that a delete would write, old and new."""


class ListsRecords(Protocol):
    """A target that can say what exists, which deletes of missing records need."""

    def list_local(self) -> Iterable[str]:
        """The canonical external ids of all local records in the scope of the sync, streamed; none that are marked."""


class FindsMany(Protocol[Local_co]):
    """A target that looks up many records at once."""

    def find_many(self, external_ids: Sequence[str]) -> Mapping[str, Local_co]:
        """The local records that exist, by canonical external id."""


class CreatesMany(Protocol[Item_contra]):
    """A target that creates many records at once, all of them or, by raising, none."""

    def create_many(self, items: Sequence[Item_contra]) -> object:
        """Writes all records in one transaction."""


class UpdatesMany(Protocol[Item_contra, Local_contra]):
    """A target that updates many records at once, all of them or, by raising, none."""

    def update_many(self, pairs: Sequence[tuple[Item_contra, Local_contra]]) -> object:
        """Writes all records in one transaction."""


class DeletesMany(Protocol[Local_contra]):
    """A target that deletes many records at once, all of them or, by raising, none."""

    def delete_many(self, locals_: Sequence[Local_contra]) -> object:
        """Deletes all records in one transaction."""


class OrdersWrites(Protocol[Item_contra, Local_contra]):
    """A target whose records depend on each other: one refers to another, or takes over a value that must be unique."""

    def may_come_right(self, error: Exception) -> bool:
        """True if a record that was refused with that error may be written once others have been."""

    def units(self, writes: Sequence[tuple[Item_contra | None, Local_contra | None]]) -> Sequence[Sequence[int]]:
        """Puts writes into an order: lists of their places, each list to be written together.

        Args:
            writes: Item (None of a delete) and local record (None of a create) of each.
        """


class KnowsRivals(Protocol[Item_contra, Local_contra]):
    """A target that can tell that two records want one value that must be unique."""

    def later_rivals(self, writes: Sequence[tuple[Item_contra | None, Local_contra | None]]) -> Collection[int]:
        """Returns the places of those that want a value which one before them wants: the first is to have it.

        Args:
            writes: As `OrdersWrites.units` takes them.
        """


class ConvertsIds(Protocol):
    """A target whose keys have a type: "007" and 7 are the same integer key."""

    def canonical_id(self, external_id: str) -> str:
        """The external id as the key column would give it back; raises `ItemError` if it does not convert."""


class ExpectsIds(Protocol):
    """A target that converts ids faster when it has been told them all together."""

    def expect_ids(self, external_ids: Sequence[str]) -> object:
        """Says which external ids `canonical_id` is about to be called with."""


class IdentifiesItems(Protocol[Item_contra]):
    """A target declaration that can tell an item's external id from its own key columns."""

    def external_id(self, item: Item_contra) -> str:
        """The item's external id; of several key columns their JSON array."""


@dataclass(frozen=True, slots=True)
class TargetDescription:
    """What a target tells the operator about itself.

    Args:
        table_name: The table with its schema, e.g. `"shop.variants"`.
        columns: Name and database type of each column, in table order.
        row_count: Number of local records now, None if unknown.
        database: The database's name, None if it has none.
    """

    table_name: str
    columns: tuple[tuple[str, str], ...] = ()
    row_count: int | None = None
    database: str | None = None


@dataclass(frozen=True, slots=True)
class DeclaredColumn:
    """What a declaration says of a column.

    Args:
        type_name: Its database type; None if only the database knows.
        nullable: False if the declaration says that it holds no NULL.
        field: The item's field that it is given as it is; None if there is no such one.
    """

    name: str
    type_name: str | None = None
    nullable: bool = True
    field: str | None = None


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """What a target's declaration knows of its table before anything is connected.

    Args:
        dialect: The kind of database, as `"postgresql"`; empty if it is not known.
        database: The database's name; None if it has none or it is not known.
        table: The table, with its schema if that is declared.
        uri: Where the database is, without user, password and options; None if it is not known.
    """

    dialect: str
    database: str | None
    table: str
    uri: str | None
    columns: tuple[DeclaredColumn, ...] = ()

    @property
    def full_name(self) -> str:
        """The table with its database: `"shop.public.variants"`."""
        return qualified(self.database, self.table)


def qualified(database: str | None, table: str) -> str:
    """Returns a table's name with that of its database."""
    return f"{database}.{table}" if database else table


class DeclaresTable(Protocol):
    """A target declaration that can say which table it is, and connects to nothing for that."""

    def declared_table(self, configured: Callable[[], str | None]) -> DeclaredTable:
        """What the declaration knows of its table.

        Args:
            configured: Gives the URL of the configured database; None if it can't be read.
        """


class DescribesItself(Protocol):
    """A target that can name its table, columns and number of records."""

    def describe(self) -> TargetDescription:
        """What an operator should see; may count the rows."""


class HasNotes(Protocol):
    """A target that has something to say to the operator of each run."""

    def notes(self) -> Sequence[str]:
        """Lines for the run log and the run's notes."""


class OpensTarget(Protocol):
    """A target declaration that connects only for the time of a run."""

    def open(self, identify: Identify) -> AbstractContextManager[Any]:
        """Connects, checks the declaration against the database, and yields the target to work on.

        Args:
            identify: Gives an item's external id.

        Raises:
            ConfigurationError: A table, column or key is missing or wrong; nothing has been written.
        """
