"""Reading items, whatever they are: mappings, dataclasses, pydantic models, objects with attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sync_pipelines.errors import ItemError

_MISSING = object()


def read_field(item: Any, name: str) -> Any:
    """Returns the field of that name, of a mapping or an object with attributes.

    Raises:
        ItemError: The item has no such field; the message names those it has.
    """
    value = item.get(name, _MISSING) if isinstance(item, Mapping) else getattr(item, name, _MISSING)
    if value is _MISSING:
        raise ItemError(f"the item has no field {name!r}; it has: {', '.join(field_names(item)) or 'none'}")
    return value


def field_names(item: Any) -> list[str]:
    """Returns the names of an item's fields, in the item's own order."""
    if isinstance(item, Mapping):
        return [str(name) for name in item]
    if hasattr(type(item), "model_fields"):
        return list(type(item).model_fields)
    if hasattr(item, "__dataclass_fields__"):
        return list(item.__dataclass_fields__)
    return sorted(name for name in vars(item) if not name.startswith("_")) if hasattr(item, "__dict__") else []
