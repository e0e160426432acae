"""`SoftDelete`: a delete that marks a row instead of removing it, as a `SqlTable` declares it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sync_pipelines.errors import ConfigurationError


class _Given(Enum):
    """What a declaration left out."""

    MOMENT = "the moment of the delete"
    NOTHING = "nothing"


MOMENT = _Given.MOMENT.value
"""What a plan shows of a moment that is not there yet."""


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

    def value_at(self, moment: datetime) -> Any:
        """What a delete writes.

        Args:
            moment: When it is, aware.
        """
        return moment if self.is_moment else self.deleted

    def live_for(self, deleted: Any) -> Any:
        """The value of live rows.

        Args:
            deleted: That of deleted rows, as the column holds it.
        """
        if self.live is not _Given.NOTHING:
            return self.live
        return not deleted if isinstance(deleted, bool) else None
