"""Deletes that mark a row instead of removing it: declared as `SoftDelete`, opened on a table as its `Mark`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any

import sqlalchemy as sa

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.unwrap import plain, shortened

_EXACT = frozenset({"int", "bool", "numeric", "date", "datetime", "uuid"})
_MOMENTS = frozenset({"text", "date", "datetime", "own"})


class _Given(Enum):
    """Stands for what a declaration leaves out. Its name is in the identity of targets, by which plans are kept."""

    MOMENT = "the moment of the delete"
    NOTHING = "nothing"


_SHOWN_MOMENT = _Given.MOMENT.value


@dataclass(frozen=True)
class SoftDelete:
    """How rows are marked as deleted, instead of being removed.

    A row is deleted if its column equals `deleted`; with a moment, if it holds anything. Whatever other values the
    column has, such as `"draft"`, are those of live rows, and are left alone. The column is the sync's own: no item
    writes it.

    Args:
        column: The column that marks a row, e.g. `"active"` or `"deleted_at"`.
        deleted: The value of deleted rows, e.g. `False` or `"archived"`. Left out, it is the moment of the delete.
        live: The value that new rows get, and deleted ones when their item comes back. By default NULL; of a boolean
            `deleted` the other one.

    Raises:
        ConfigurationError: A field is wrong; the message names it and its value.
    """

    column: str
    deleted: Any = _Given.MOMENT
    live: Any = _Given.NOTHING

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise ConfigurationError(f"SoftDelete: column={self.column!r} is not understood; give a column's name")
        if self.deleted is None:
            raise ConfigurationError(
                "SoftDelete: deleted=None would take rows without a value for deleted ones; give the value of deleted "
                "rows, or leave it out for the moment of the delete"
            )
        if self.is_moment and self.live is not _Given.NOTHING and self.live is not None:
            raise ConfigurationError(
                f"SoftDelete: live={self.live!r} is taken for deleted, as is anything in {self.column!r} without a "
                "value of `deleted`; leave it out, or give deleted"
            )

    @property
    def is_moment(self) -> bool:
        """True if a row is marked with the moment of the delete."""
        return self.deleted is _Given.MOMENT

    @property
    def shown(self) -> Any:
        """What a plan shows that a delete writes."""
        return _SHOWN_MOMENT if self.is_moment else self.deleted

    def value_at(self, moment: datetime) -> Any:
        """Returns what a delete at that moment (aware) writes."""
        return moment if self.is_moment else self.deleted

    def live_for(self, deleted: Any) -> Any:
        """Returns the value of live rows, where that of deleted ones, as the column holds it, is given.

        Of a boolean it is the other one, whether the declaration says a boolean or the column holds one.
        """
        if self.live is not _Given.NOTHING:
            return self.live
        for value in (plain(self.deleted), deleted):
            if isinstance(value, bool):
                return not value
        return None


@dataclass(frozen=True, slots=True)
class Mark:
    """The column that marks deleted rows.

    Args:
        deleted: What it holds of a deleted row, None for a moment.
        live: What it holds of a new or restored row.
    """

    codec: ColumnCodec
    is_moment: bool
    deleted: Any
    live: Any

    @property
    def name(self) -> str:
        """The column's name."""
        return self.codec.name

    @property
    def shown(self) -> Any:
        """What a plan shows that a delete writes."""
        return _SHOWN_MOMENT if self.is_moment else self.deleted

    @property
    def is_compared_exactly(self) -> bool:
        """True if the database can't take another value for that of deleted rows, as it may with texts."""
        return self.is_moment or self.codec.facts.family in _EXACT

    def is_off(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Returns the condition that a row is not marked; only for a mark that is compared exactly."""
        return column.is_(None) if self.is_moment else sa.or_(column.is_(None), column != self.deleted)

    def is_set(self, local: Mapping[str, Any]) -> bool:
        """True if the row is marked."""
        held = local[self.name]
        return held is not None if self.is_moment else self.codec.same(held, self.deleted)

    def written(self) -> Any:
        """Returns what a delete writes now."""
        return self.codec.from_item(datetime.now(UTC)) if self.is_moment else self.deleted

    def identity(self) -> list[Any]:
        """Returns what makes it another mark if it changes."""
        return [self.name, self.is_moment, repr(self.deleted), repr(self.live)]


def open_mark(soft_delete: SoftDelete, reflected: ReflectedTable) -> Mark:
    """Checks a declared mark against its column.

    Raises:
        ConfigurationError: The column is missing or can't be written, or a value does not fit.
    """
    name = soft_delete.column
    codec = reflected.comparable_codec_of(name, "soft_delete")
    refusal = f"it is generated by {reflected.label!r}" if name in reflected.generated else None
    refusal = refusal or reflected.unwritable.get(name)
    if refusal is None and soft_delete.is_moment and codec.facts.family not in _MOMENTS:
        refusal = f"it is of the type {codec.type_name}, which holds no moment; give deleted=..."
    if refusal is not None:
        raise ConfigurationError(f"SqlTable: soft_delete: {name!r} of {reflected.label!r} can't mark rows: {refusal}")
    convert = partial(reflected.declared_value, codec, where="soft_delete")
    deleted = convert(datetime.now(UTC) if soft_delete.is_moment else soft_delete.deleted)
    if soft_delete.is_moment:
        deleted = None
    live = convert(soft_delete.live_for(deleted))
    _check_values(soft_delete, reflected, deleted, live)
    return Mark(codec, soft_delete.is_moment, deleted, live)


def _check_values(soft_delete: SoftDelete, reflected: ReflectedTable, deleted: Any, live: Any) -> None:
    name = soft_delete.column
    where = f"SqlTable: soft_delete: column {name!r} of {reflected.label!r}"
    if not soft_delete.is_moment and deleted is None:
        raise ConfigurationError(f"{where}: deleted={soft_delete.deleted!r} would be NULL; give another value")
    if live is None and name in reflected.not_null:
        raise ConfigurationError(f"{where} can't be NULL, which live rows would have; give live=..., or let it be NULL")
    length = reflected.codecs[name].facts.length
    for value in (deleted, live):
        if isinstance(value, str) and length is not None and len(value) > length:
            raise ConfigurationError(f"{where} holds {length} characters, {value!r} is longer; give deleted and live")
    if not soft_delete.is_moment and reflected.codecs[name].same(live, deleted):
        raise ConfigurationError(f"{where}: deleted and live are both {shortened(deleted)}; give two values")
