"""Which fields the items of a fetch have, and how far that has drifted from an earlier fetch.

A note is worth something only if it is seldom. So a share that has fallen is told if chance does not explain it, more
than ten items are concerned, and it has halved; where less than half of the items had the field, if next to none has
it. Of a small fetch only what was in all items and is in none is told. Names that are data, such as dates and ids, come
and go: of them nothing is told but what is in all of them alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import exp, lgamma
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
ELEMENT = "[]"
"""The name of what is in a list."""
ANY_NAME = "\x1e"
"""The name of all fields of an object whose names are data."""
_HALF, _NEXT_TO_NONE = 1 / 2, 1 / 20
_CHANCE = 1e-6
"""With a hundred fields and a run each hour, one note in a year that is but chance."""
_FEWEST_OF_MAP = 5
_RARE, _MANY = 0.05, 20
"""More than so many names that are in so small a share of objects each are data."""
_ID = re.compile(
    r"[0-9][0-9 ./:_TZ+-]*|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=.*[0-9])[0-9a-f]{12,}", re.IGNORECASE
)
_DIGITS = re.compile(r"[0-9]+")
_LETTER = re.compile(r"[^\W\d_]")
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
    levels = [("", *_with_data_names_as_one(_tree(before), _tree(now), is_inner=False))]
    lost: list[str] = []
    new: list[str] = []
    for outer, earlier, later in levels:
        # what no item has any more is not among the fields of now; what is in a field that has gone tells nothing
        looked_at = max((each.shape.of for name, each in later.items() if name != ANY_NAME), default=0)
        none = FieldShape(looked_at, 0, 0)
        for name, each in earlier.items():
            shape = later[name].shape if name in later else none
            lost += _changes_of(f"{outer}{name}", each.shape, shape)
            if name in later:
                inner = _with_data_names_as_one(each.inner, later[name].inner)
                levels.append((f"{outer}{name}{INNER}", *inner))
        new += [_named(f"{outer}{name}") for name, each in later.items() if _is_new(earlier.get(name), each.shape)]
    if not before or not lost:
        return []
    told = [*lost[:_MAX_NAMED], *([f"{len(lost) - _MAX_NAMED} fields more"] if len(lost) > _MAX_NAMED else [])]
    return [*told, f"new: {', '.join(new[:_MAX_NAMED])}"] if new else told


def with_marks(before: ItemShapes, now: ItemShapes) -> ItemShapes:
    """Returns the shapes of now as they are kept: marked are the objects of which some names have gone and others come.

    The names in such an object are data if that happens again: then they are told of once, and not with each run.
    """
    marks: dict[str, FieldShape] = {}
    gone, come = (
        Counter(_outer(name) for name in one if name not in other and not name.endswith((ANY_NAME, ELEMENT)))
        for one, other in ((before, now), (now, before))
    )
    for outer in gone.keys() & come.keys():
        if outer and outer in now and outer in before and min(gone[outer], come[outer]) >= _FEWEST_OF_MAP:
            marks[f"{outer}{INNER}{ANY_NAME}"] = FieldShape(0, 0, 0)
    return {**marks, **now}


def _outer(name: str) -> str:
    """Returns the name of the field that a field is in; the empty text of one that is the item's own."""
    return name.rpartition(INNER)[0]


@dataclass
class _Branch:
    """The shape of a field, and the fields in it."""

    shape: FieldShape
    inner: dict[str, _Branch] = field(default_factory=dict)

    def added(self, other: _Branch) -> _Branch:
        """Returns the shape of both fields' values together."""
        one, two = self.shape, other.shape
        types = Counter(one.types)
        types.update(two.types)
        shape = FieldShape(one.of + two.of, one.present + two.present, one.filled + two.filled, types)
        inner = dict(self.inner)
        for name, each in other.inner.items():
            inner[name] = inner[name].added(each) if name in inner else each
        return _Branch(shape, inner)


_Level = dict[str, _Branch]


def _tree(shapes: ItemShapes) -> _Level:
    root: _Level = {}
    for name in sorted(shapes, key=lambda each: each.count(INNER)):
        *outer, own = name.split(INNER)
        level: _Level | None = root
        for each in outer:
            level = level[each].inner if level is not None and each in level else None
        if level is not None:
            level[own] = _Branch(shapes[name])
    return root


def _with_data_names_as_one(before: _Level, now: _Level, *, is_inner: bool = True) -> tuple[_Level, _Level]:
    """Returns the fields of an object, with all those as one of which the names are data."""
    names = _data_names(before, now, is_inner=is_inner)
    return _as_one(before, names), _as_one(now, names)


def _as_one(level: _Level, names: Collection[str]) -> _Level:
    kept = {name: each for name, each in level.items() if name not in names}
    for name in level:
        if name in names:
            shape = level[name].shape
            every = _Branch(replace(shape, of=shape.present), level[name].inner)
            kept[ANY_NAME] = kept[ANY_NAME].added(every) if ANY_NAME in kept else every
    return kept


def _data_names(before: _Level, now: _Level, *, is_inner: bool) -> set[str]:
    """Returns the names that are data: too many to be counted, dates or ids, or each in few objects.

    The items' own fields may have numbers for names, as columns without a header do. They, and others that differ in
    digits only, are data if some have gone while others have come.
    """
    levels = (before, now)
    names = {*before, *now} - {ELEMENT}
    if ANY_NAME in names:
        return names
    alike: dict[str, set[str]] = {}
    for name in names:
        if _ID.fullmatch(name) or _DIGITS.search(name):
            alike.setdefault("#" if _ID.fullmatch(name) else _DIGITS.sub("#", name), set()).add(name)
    data = {
        name
        for form, group in alike.items()
        if len(group) >= _FEWEST_OF_MAP
        and ((is_inner and not _LETTER.search(form)) or (group - before.keys() and group - now.keys()))
        for name in group
    }
    rare = {
        name
        for name in names - data
        if all(level[name].shape.present < _RARE * level[name].shape.of for level in levels if name in level)
    }
    return data | rare if len(rare) > _MANY else data


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
    """Returns True if what was usual has become rare, or has gone, in more items than chance brings about."""
    if min(before_of, now_of) < FEWEST:
        return False
    if before == before_of and not now:
        return True
    share = before / before_of
    most = share * (_HALF if share >= USUAL_SHARE else _NEXT_TO_NONE)
    is_low = now / now_of <= most and share * now_of - now > FEW
    return is_low and _chance(before, before_of, now, now_of) < _CHANCE


def _chance(before: int, before_of: int, now: int, now_of: int) -> float:
    """Returns how likely it is that so few come now, if what has the field were spread at random over both fetches.

    Of the fewer, each is less than half as likely as the one before, so that all come to less than twice the first.

    Source:
        R. A. Fisher's exact test, one-sided.
    """
    ways = _log_ways(now_of, now) + _log_ways(before_of, before) - _log_ways(before_of + now_of, before + now)
    return 2 * exp(min(ways, 0))


def _log_ways(of: int, count: int) -> float:
    return lgamma(of + 1) - lgamma(count + 1) - lgamma(of - count + 1)


def _is_new(before: _Branch | None, now: FieldShape) -> bool:
    had = before is not None and before.shape.present
    return not had and now.of >= FEWEST and now.present >= USUAL_SHARE * now.of


def _named(name: str) -> str:
    return f"`{name.replace(INNER + ELEMENT, ELEMENT).replace(INNER, '.').replace(ANY_NAME, '*')}`"


def _share(part: int, whole: int) -> str:
    if not part or not whole:
        return "none"
    percent = 100 * part / whole
    return f"{percent:.3g} %" if percent >= 1 else "less than 1 %"
