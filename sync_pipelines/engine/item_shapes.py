"""Which fields the items of a fetch have, and how far that has drifted from an earlier fetch.

A note is worth something only if it is seldom: a field counts as usual if at least half of the items have it, and it is
told of if that share has halved and more than ten items are concerned. Of a small fetch only what was in all items and
is in none is told. What few items have, says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

USUAL_SHARE = 0.5
FEW = 10
FEWEST = 3
"""With fewer items than that nothing can be told."""
_MAX_NAMED = 10
PREFIX = "source drift: "
"""What a note of a run begins with that tells of it."""
INNER = "\x1f"
"""Stands between the name of a field and that of one in it: names may have points."""
TYPES = ("text", "numbers", "truth values", "times", "dates", "bytes", "lists", "objects", "other values")


@dataclass(frozen=True, slots=True)
class FieldShape:
    """Says of how many items one field is known.

    Args:
        of: Items that were looked at.
        present: Those that have the field.
        filled: Those in which it is neither null nor empty.
        types: Kind of value, one of `TYPES` -> how many of the filled ones.
    """

    of: int
    present: int
    filled: int
    types: Mapping[str, int] = field(default_factory=dict)


ItemShapes = Mapping[str, FieldShape]
"""Field -> its shape; a field of an object in a field has both names, joined by `INNER`."""


def shapes_to_json(shapes: ItemShapes) -> dict[str, Any]:
    """Returns the shapes as a snapshot's manifest keeps them."""
    return {name: [each.of, each.present, each.filled, dict(each.types)] for name, each in shapes.items()}


def shapes_from_json(form: Mapping[str, Any]) -> ItemShapes:
    """Reads the shapes of a snapshot's manifest."""
    return {name: FieldShape(*values) for name, values in form.items()}


def drift_between(before: ItemShapes, now: ItemShapes) -> list[str]:
    """Returns what has changed, a phrase for each field, most telling first; empty if nothing has."""
    none = FieldShape(0, 0, 0)
    # what no item has any more is not among the fields of now; what was inside of a field that has gone tells nothing
    looked_at = {_outer(name): each.of for name, each in now.items()}
    lost = [
        change
        for name, earlier in before.items()
        for change in _changes_of(name, earlier, now.get(name, FieldShape(looked_at.get(_outer(name), 0), 0, 0)))
    ]
    new = [_named(name) for name, each in now.items() if _is_new(before.get(name, none), each)]
    if not before or not lost:
        return []
    told = [*lost[:_MAX_NAMED], *([f"{len(lost) - _MAX_NAMED} fields more"] if len(lost) > _MAX_NAMED else [])]
    return [*told, f"new: {', '.join(new[:_MAX_NAMED])}"] if new else told


def _outer(name: str) -> str:
    """Returns the name of the field that a field is in; the empty text of one that is the item's own."""
    return name.rpartition(INNER)[0]


def _changes_of(name: str, before: FieldShape, now: FieldShape) -> Iterator[str]:
    if _has_fallen(before.present, before.of, now.present, now.of):
        yield f"{_named(name)} was in {_share(before.present, before.of)} of items, is in {_share(now.present, now.of)}"
    elif _has_fallen(before.filled, before.of, now.filled, now.of):
        was, is_ = _share(before.filled, before.of), _share(now.filled, now.of)
        yield f"{_named(name)} was filled in {was} of items, is in {is_}"
    else:
        yield from _change_of_type(name, before, now)


def _change_of_type(name: str, before: FieldShape, now: FieldShape) -> Iterator[str]:
    if not before.types or not now.types:
        return
    usual, new = (max(each.types, key=lambda kind: each.types[kind]) for each in (before, now))
    count = now.types.get(usual, 0)
    if usual != new and _has_fallen(before.types[usual], before.filled, count, now.filled):
        was, is_ = _share(before.types[usual], before.filled), _share(now.types[new], now.filled)
        yield f"{_named(name)} held {usual} in {was} of items, now {new} in {is_}"


def _has_fallen(before: int, before_of: int, now: int, now_of: int) -> bool:
    """Returns True if what was usual has become rare, in more items than chance brings about."""
    if min(before_of, now_of) < FEWEST:
        return False
    if before == before_of and not now:
        return True
    share = before / before_of
    is_usual = share >= USUAL_SHARE and before > FEW
    return is_usual and now / now_of <= share / 2 and share * now_of - now > FEW


def _is_new(before: FieldShape, now: FieldShape) -> bool:
    return not before.present and now.of >= FEWEST and now.present >= USUAL_SHARE * now.of


def _named(name: str) -> str:
    return f"`{name.replace(INNER, '.')}`"


def _share(part: int, whole: int) -> str:
    if not part or not whole:
        return "none"
    percent = 100 * part / whole
    return f"{percent:.3g} %" if percent >= 1 else "less than 1 %"
