"""Turns a misspelt or missing field of a declaration into an error that names it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from sync_pipelines.errors import ConfigurationError


def check_field_names(kind: Any, place: str, args: tuple[object, ...], values: Mapping[str, object]) -> None:
    """Checks what a dataclass that takes keyword arguments only is made with; `place` begins each message."""
    known = [field.name for field in fields(kind)]
    if args:
        name = kind.__name__
        raise ConfigurationError(f"{place}: {name} takes keyword arguments only: {name}({known[0]}=..., ...)")
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are: {', '.join(known)}"
            raise ConfigurationError(f"{place}: there is no field {name!r}; {hint}")
    for field in fields(kind):
        if field.default is MISSING and field.default_factory is MISSING and field.name not in values:
            raise ConfigurationError(f"{place}: the field {field.name!r} is missing")
