"""Checks, entry by entry, whether local records still are what they were when a plan was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sync_pipelines.engine.codec import encodable, encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.display import shown_text
from sync_pipelines.engine.plan import Action, FieldChange, PlanEntry
from sync_pipelines.errors import StalePlanError
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.decide.came_since import CameSince
from sync_pipelines.runner.plans.plan_file import readable_fields

_MISSING = object()
_FIELDS_SHOWN = 5


class ConflictCheck:
    """Refuses entries whose local record has changed since.

    Args:
        uncertain: True if an earlier attempt may have written some of the next batch without noting it.
    """

    def __init__(
        self, job: SyncJob[Any, Any], driver: TargetDriver, *, uncertain: bool, came_since: CameSince | None = None
    ) -> None:
        self._job = job
        self._driver = driver
        self._came_since = came_since or CameSince()
        self.uncertain = uncertain
        self.unchecked = 0
        """How many entries were written although nobody knows what their record was when the plan was made."""

    def refused(self, entry: PlanEntry, local: Any | None, changes: Mapping[str, FieldChange]) -> StalePlanError | None:
        """Returns why an entry must not be written; None if it may.

        Args:
            entry: An entry of the plan, which is not yet as the plan wants it.
            changes: What an update of it would change, as far as the target names that.
        """
        if local is None:
            return self._refused_missing(entry)
        not_missing = self._came_since.why_not_delete(entry.external_id) if entry.action is Action.DELETE else None
        if not_missing is not None:
            return self._stale(entry, not_missing)
        if self._is_own_write(entry):
            return None
        if entry.action is Action.CREATE:
            fields = {name: (_MISSING, change.old) for name, change in changes.items()}
            return self._stale(entry, f"there is a local record by now{_fields_text(fields, ': its ')}")
        differing = self._differing(entry, local, changes)
        if differing:
            return self._stale(entry, f"the local record has changed since{_fields_text(differing, ': ')}")
        return self._otherwise(entry, changes)

    def _refused_missing(self, entry: PlanEntry) -> StalePlanError | None:
        if entry.action is Action.UPDATE:
            return self._stale(entry, "the local record is gone")
        try:
            changes = self._driver.compare(entry.item, None).changes
        except Exception:  # noqa: BLE001 - creating it raises the same, as the item's own error
            return None
        return self._otherwise(entry, changes)

    def _otherwise(self, entry: PlanEntry, changes: Mapping[str, FieldChange]) -> StalePlanError | None:
        """Refuses what the job would now write differently: somebody has changed a function of it."""
        for name, change in changes.items():
            if name in entry.changes and not _same(entry.changes[name].new, change.new):
                told = f"{name} would be {shown_text(name, change.new)}"
                planned = shown_text(name, entry.changes[name].new)
                return self._stale(entry, f"the job writes something else now: {told}, the plan says {planned}")
        return None

    def older(self, entry: PlanEntry) -> StalePlanError:
        """Returns the error of an entry whose item is older than its record by now."""
        return self._stale(entry, "a newer item has been applied since")

    def notes(self) -> list[str]:
        """Returns what a person should know of the checks."""
        if not self.unchecked:
            return []
        told = "their fields can't be read, to say whether they have changed since the plan was made"
        return [f"{self.unchecked:,} records were written unchecked: {told}"]

    def _is_own_write(self, entry: PlanEntry) -> bool:
        """True if the attempt that broke off may have written the entry itself."""
        tells = self._driver.names_changes or self._driver.decides_changes
        return self.uncertain and not tells and entry.action is not Action.DELETE

    def _differing(
        self, entry: PlanEntry, local: Any, changes: Mapping[str, FieldChange]
    ) -> dict[str, tuple[Any, Any]]:
        """Returns the fields that are not what they were: field -> value in the plan, and value now."""
        if entry.changes and entry.action is Action.UPDATE:
            return self._differing_changes(entry.changes, changes, local)
        before = entry.before or {name: change.old for name, change in entry.changes.items()} or None
        if before is None:
            self.unchecked += 1
            return {}
        now = readable_fields(self._driver, local)
        names = [*before, *(name for name in now if name not in before)]
        pairs = {name: (before.get(name, _MISSING), now.get(name, _MISSING)) for name in names}
        return {name: pair for name, pair in pairs.items() if not _same(*pair)}

    def _differing_changes(
        self, planned: Mapping[str, FieldChange], changes: Mapping[str, FieldChange], local: Any
    ) -> dict[str, tuple[Any, Any]]:
        fields = readable_fields(self._driver, local)
        differing: dict[str, tuple[Any, Any]] = {}
        for name in {**planned, **changes}:
            # a field of one side only: it was what the item says, or it has become that
            was = planned[name].old if name in planned else changes[name].new
            now = changes[name].old if name in changes else fields.get(name, planned[name].new)
            if not _same(was, now):
                differing[name] = (was, now)
        return differing

    def _stale(self, entry: PlanEntry, what: str) -> StalePlanError:
        return StalePlanError(
            f"stale: {what}. It was left as it is; make a new plan of {self._job.name} for it.",
            external_id=entry.external_id,
        )


def _same(was: Any, now: Any) -> bool:
    """True for values that a plan keeps as the same text."""
    if was is _MISSING or now is _MISSING:
        return was is now
    if isinstance(was, Decimal) and isinstance(now, Decimal) and was == now:
        return True  # of a zero a database does not keep the sign
    return _kept(was) == _kept(now)


def _kept(value: Any) -> str:
    """Returns a value as a plan keeps it, with the keys of objects sorted."""
    return json.dumps(json.loads(encode(encodable(value))), sort_keys=True)


def _fields_text(fields: Mapping[str, tuple[Any, Any]], lead: str) -> str:
    told = [_field_text(name, was, now) for name, (was, now) in list(fields.items())[:_FIELDS_SHOWN]]
    more = len(fields) - len(told)
    return lead + ", ".join([*told, *([f"{more} more"] if more else [])]) if told else ""


def _field_text(name: str, was: Any, now: Any) -> str:
    shown = "is gone" if now is _MISSING else f"is {shown_text(name, now)}"
    before = "" if was is _MISSING else f"was {shown_text(name, was)}, "
    return f"{name} {before}{shown}".lstrip()
