"""What is said of one item: that it is new or has changed, is gone, is to be asked for, or is to be left alone."""

from __future__ import annotations

from collections.abc import Iterator, ValuesView
from dataclasses import dataclass
from typing import Any

from sync_pipelines.errors import ItemError


@dataclass(frozen=True, slots=True)
class Upsert:
    """The item is new or has changed.

    Args:
        item: The item as `fetch_external` would give it.
    """

    item: Any


@dataclass(frozen=True, slots=True)
class Delete:
    """The item is gone.

    Args:
        external_id: What `get_external_id` gave of it.
        version: The sender's number or time of the delete, comparable to what `get_version` gives of items: an item
            that is older does not bring the record back, and a record that is newer is not deleted.
    """

    external_id: str
    version: Any = None


@dataclass(frozen=True, slots=True)
class Refetch:
    """Something about the item has changed; the job's `fetch_one` asks the source what it is now.

    Args:
        external_id: What `get_external_id` gives of it.
    """

    external_id: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """The event means nothing to this sync.

    Args:
        reason: Why; the sender gets it in the answer.
    """

    reason: str = ""


ChangeEvent = Upsert | Delete | Refetch | Ignore


def as_change_events(value: Any) -> list[ChangeEvent]:
    """Returns what `parse` gave as change events: of several together each, in their order."""
    if not _are_several(value):
        return [as_change_event(value)]
    return [event for each in value for event in as_change_events(each)]


def _are_several(value: Any) -> bool:
    """Returns True for several changes; a named tuple, as any object with fields, may be an item."""
    return isinstance(value, (list, tuple, set, frozenset, ValuesView, Iterator)) and not hasattr(value, "_fields")


def as_change_event(value: Any) -> ChangeEvent:
    """Returns what a caller gave as a change event: a bare item is an upsert, None is ignored.

    Raises:
        ItemError: It was given in the place of an item.
    """
    if isinstance(value, ItemError):
        raise value
    if isinstance(value, (Upsert, Delete, Refetch, Ignore)):
        return value
    return Ignore() if value is None else Upsert(value)
