"""Guards: what of a diff looks like a broken source, and is withheld until a person says that it is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from sync_pipelines.engine.blanks import Blanking
from sync_pipelines.engine.plan import Action, PlanCounts
from sync_pipelines.errors import ConfigurationError

_SHARES = ("max_delete_share", "max_update_share", "max_shrink_share", "max_blank_share")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Limits of what a full run may do by itself. What goes beyond is withheld; all else is applied.

    Args:
        max_delete_share: The largest share (0 to 1) of the local records that a run may delete; None for any.
        max_deletes: The largest number of local records that a run may delete; None for any.
        max_update_share: The largest share (0 to 1) of the found local records that a run may update; None for any.
        max_shrink_share: By what share (0 to 1) a fetch may have fewer items than the last good ones, before a run
            deletes nothing; None for any. A fetch without any item is always suspicious if earlier ones had some.
        max_blank_share: In what share (0 to 1) of the found local records that have a column a run may set it to null
            or empty, before it updates nothing; None for any.
        few: So many deletes, updates, lacking items or blanked records are never a matter of shares: in a small table
            each is a large one.

    Raises:
        ConfigurationError: A limit is no such number; the message names it and its value.
    """

    max_delete_share: float | None = 0.2
    max_deletes: int | None = None
    max_update_share: float | None = None
    max_shrink_share: float | None = 0.5
    max_blank_share: float | None = 0.2
    few: int = 10

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is None and limit.name != "few":
                continue
            if limit.name in _SHARES:
                _require_share(limit.name, value)
            elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigurationError(f"Guards: {limit.name}={value!r} must be a whole number from 0")


NO_LIMITS = Guards(max_delete_share=None, max_shrink_share=None, max_blank_share=None)
"""Even these let an empty fetch delete nothing."""


def _require_share(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= 1:
        raise ConfigurationError(f"Guards: {name}={value!r} must be a share from 0 to 1 (0.2 is a fifth), or None")


@dataclass(frozen=True, slots=True)
class Found:
    """Describes a diff, as far as guards look at it.

    Args:
        existing: Local records that there are, without those created now; None if they were not listed.
        last_fetched: How many items the last good fetches had, newest first.
        blankings: What the updates would set to null or empty, field by field.
    """

    fetched: int
    planned: PlanCounts
    unchanged: int = 0
    existing: int | None = None
    last_fetched: Sequence[int] = ()
    blankings: Sequence[Blanking] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Says what of a diff is withheld, and why it is suspicious, a sentence each."""

    reasons: tuple[str, ...] = ()
    withheld: frozenset[Action] = frozenset()

    def __bool__(self) -> bool:
        """Returns True if something is suspicious."""
        return bool(self.reasons)

    def joined_with(self, later: Verdict) -> Verdict:
        """Adds what a later verdict withholds besides."""
        if not self or not later.withheld <= self.withheld:
            return Verdict(tuple(dict.fromkeys((*self.reasons, *later.reasons))), self.withheld | later.withheld)
        return self


def judge(guards: Guards, diff: Found) -> Verdict:
    """Says what of a diff is suspicious, and what is to be withheld for it."""
    fetch, deletes = list(why_fetch(guards, diff.fetched, diff.last_fetched)), list(_why_deletes(guards, diff))
    if not diff.fetched and diff.planned.delete and not fetch:
        fetch.append("the source gave no items at all")
    updates = [*_why_updates(guards, diff), *_why_blankings(guards, diff)]
    withheld = {Action.DELETE} if (fetch or deletes) and diff.planned.delete else set()
    if updates:
        withheld.add(Action.UPDATE)
    return Verdict((*fetch, *deletes, *updates), frozenset(withheld))


def why_fetch(guards: Guards, fetched: int, last_fetched: Sequence[int]) -> Iterator[str]:
    """Yields why a fetch is suspicious: it has no items, or far fewer than the last good ones."""
    usual = median(last_fetched) if last_fetched else 0
    lacking = usual - fetched
    if not usual or lacking <= 0:
        return
    if not fetched:
        yield f"the source gave no items at all; the last good fetches had {usual:,.0f}"
    elif guards.max_shrink_share is not None and lacking > max(guards.few, guards.max_shrink_share * usual):
        yield (
            f"the source gave {fetched:,} items, the last good fetches had {usual:,.0f}: {_share(lacking, usual)} "
            f"fewer, and max_shrink_share is {guards.max_shrink_share:.0%}"
        )


def _why_deletes(guards: Guards, diff: Found) -> Iterator[str]:
    deletes = diff.planned.delete
    if guards.max_deletes is not None and deletes > guards.max_deletes:
        yield f"{deletes:,} local records would be deleted, and max_deletes is {guards.max_deletes:,}"
    share = guards.max_delete_share
    if share is not None and diff.existing and deletes > max(guards.few, share * diff.existing):
        yield (
            f"{deletes:,} of {diff.existing:,} local records would be deleted: {_share(deletes, diff.existing)}, "
            f"and max_delete_share is {share:.0%}"
        )


def _why_updates(guards: Guards, diff: Found) -> Iterator[str]:
    updates, share = diff.planned.update, guards.max_update_share
    compared = updates + diff.unchanged
    if share is not None and updates > max(guards.few, share * compared):
        yield (
            f"{updates:,} of {compared:,} local records would be updated: {_share(updates, compared)}, "
            f"and max_update_share is {share:.0%}"
        )


def _why_blankings(guards: Guards, diff: Found) -> Iterator[str]:
    share = guards.max_blank_share
    for each in diff.blankings if share is not None else ():
        if share is not None and each.records > max(guards.few, share * each.had):
            yield (
                f"{each.field!r} would be set to null or empty in {each.records:,} of the {each.had:,} local records "
                f"that have it: {_share(each.records, each.had)}, and max_blank_share is {share:.0%}"
            )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}".replace(".0%", "%")
