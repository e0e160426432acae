"""Reads the plan of a dry run, or of what limits have withheld: counts, and entries field by field, page by page."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from sync_pipelines.database.plans import APPLIED, APPLYING, EXPIRED, OPEN, SUPERSEDED, PlanRow
from sync_pipelines.engine.display import shown_text, shown_value
from sync_pipelines.engine.items import field_names
from sync_pipelines.engine.plan import Action, PlanCounts, PlanEntry
from sync_pipelines.errors import ConfigurationError, PlanError
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.plans.plan_file import files_of_plan, read_plan
from sync_pipelines.settings.model import Settings
from sync_pipelines.snapshots.store import RunFiles

if TYPE_CHECKING:
    import pandas as pd

WHOLE_ITEM = "(item)"
"""Stands for a field's name where the target does not name its fields."""
_COLUMNS = ("action", "external_id", "position", "field", "old", "new")
_CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class FieldRow:
    """Holds one field of an entry as it is shown: its name, the old and the new value, without secrets."""

    name: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Plan:
    """What a dry run would write, or what guards have withheld of a run.

    It holds nothing open; `with` is allowed, and not needed.

    Args:
        id: The plan's id, which is that of the run that left it.
        job: The sync job's name.
        created_at: When it was made, aware.
        expires_at: Until when it can be applied, aware.
        state: `open`, `applying` (begun, and perhaps broken off), `applied`, `expired`, or `superseded` (of what guards
            have withheld: a newer whole run has looked again).
        counts: How many records it would create, update and delete.
        applied_by: The run that applies or has applied it; of a superseded plan the newer run.
        applied_at: When that run was done, aware.
        kind: `dry run`, or `withheld` for what guards have withheld of a run.
        guarded: Why it can be applied only with a reason; empty if it needs none.
        reason: The reason that was given.
        released_by: Who gave it.
    """

    id: str
    job: str
    created_at: datetime
    expires_at: datetime
    state: str
    counts: PlanCounts
    applied_by: str | None
    applied_at: datetime | None
    kind: str
    guarded: tuple[str, ...]
    reason: str | None
    released_by: str | None
    _row: PlanRow = field(repr=False)
    _files: RunFiles = field(repr=False)

    def __enter__(self) -> Self:
        """Gives the plan itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Has nothing to close."""

    def entries(self, *, action: str | None = None, field: str | None = None) -> Iterator[PlanEntry]:
        """Yields the entries in their order, a page in memory at a time, with values as they are, secrets included.

        Args:
            action: Only those that `create`, `update` or `delete`.
            field: Only those that change this field.

        Raises:
            ConfigurationError: There is no such action.
            PlanError: The plan's files were cleaned up.
        """
        return self._chosen(_action(action), field)

    def _chosen(self, wanted: Action | None, field: str | None) -> Iterator[PlanEntry]:
        self._check_files()
        for page in read_plan(self._files, fields=True):
            for entry in page.entries:
                if (wanted is None or entry.action is wanted) and (field is None or _has_field(entry, field)):
                    yield entry

    def _check_files(self) -> None:
        if not self._files.plan.exists():
            raise gone(self._row) if self.state in {OPEN, APPLYING} else not_open(self._row)

    def to_frame(self, *, action: str | None = None, field: str | None = None) -> pd.DataFrame:
        """The entries as a pandas DataFrame, one row per field, secrets redacted. It is all in memory.

        Columns: `action`, `external_id`, `position`, `field`, `old`, `new`. Where the target does not name its fields,
        the field is `(item)` and `new` the item.

        Args:
            action: Only those that `create`, `update` or `delete`.
            field: Only those that change this field.
        """
        import pandas as pd  # noqa: PLC0415 - whoever only lists plans must not wait for pandas

        return pd.DataFrame(
            list(self._rows(self.entries(action=action, field=field))), columns=list(_COLUMNS), dtype=object
        )

    def to_csv(
        self, file: TextIO, *, action: str | None = None, field: str | None = None, limit: int | None = None
    ) -> None:
        """Writes the rows of `to_frame` as CSV, a page in memory at a time.

        Args:
            file: A text file, opened with `newline=""`.
            action: Only those that `create`, `update` or `delete`.
            field: Only those that change this field.
            limit: No more than so many entries.
        """
        entries = self.entries(action=action, field=field)
        self._check_files()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for *known, old, new in self._rows(islice(entries, limit)):
            writer.writerow([*known, _cell(old), _cell(new)])

    def to_json(
        self, file: TextIO, *, action: str | None = None, field: str | None = None, limit: int | None = None
    ) -> None:
        """Writes one JSON document: what is known of the plan, and its entries, a page in memory at a time.

        Args:
            action: Only those that `create`, `update` or `delete`.
            field: Only those that change this field.
            limit: No more than so many entries.
        """
        entries = self.entries(action=action, field=field)
        self._check_files()
        head = json.dumps(self.document(), indent=2, ensure_ascii=False)
        file.write(head.removesuffix("\n}") + ',\n  "entries": [')
        lead = "\n    "
        for entry in islice(entries, limit):
            file.write(lead + json.dumps(entry_document(entry), ensure_ascii=False))
            lead = ",\n    "
        file.write("\n  ]\n}\n")

    def document(self) -> dict[str, Any]:
        """What is known of the plan, but its entries, as JSON can hold it."""
        return {
            "id": self.id,
            "job": self.job,
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "state": self.state,
            "counts": self.counts.to_dict(),
            "applied_by": self.applied_by,
            "applied_at": self.applied_at.isoformat() if self.applied_at is not None else None,
            "kind": self.kind,
            "guarded": list(self.guarded),
            "reason": self.reason,
            "released_by": self.released_by,
        }

    @staticmethod
    def _rows(entries: Iterator[PlanEntry]) -> Iterator[tuple[Any, ...]]:
        for entry in entries:
            for row in field_rows(entry) or [FieldRow("", None, None)]:
                yield entry.action.value, entry.external_id, entry.position, row.name, row.old, row.new


def open_plan(plan_id: str, *, settings: Settings | None = None) -> Plan:
    """Opens the plan of a dry run, to be looked at.

    Args:
        plan_id: The plan's id, or the beginning of it.
        settings: By default those of the environment.

    Raises:
        ConfigurationError: There is no such plan, or several begin like that.
    """
    with open_workspace(settings) as workspace:
        return plan_of(workspace, find_plan(workspace, plan_id))


def list_plans(job: str | None, limit: int, *, settings: Settings | None = None) -> list[Plan]:
    """Returns the newest plans, of one sync job or of all, newest first."""
    with open_workspace(settings) as workspace:
        return [plan_of(workspace, row) for row in workspace.plans.latest(job, limit)]


def plan_of(workspace: Workspace, row: PlanRow) -> Plan:
    """Returns a plan as the ledger has it."""
    expired = row.state == OPEN and row.expires_at <= workspace.clock()
    return Plan(
        id=row.id,
        job=row.job,
        created_at=row.created_at,
        expires_at=row.expires_at,
        state=EXPIRED if expired else row.state,
        counts=PlanCounts(**row.counts),
        applied_by=row.applied_by,
        applied_at=row.applied_at,
        kind=row.kind,
        guarded=row.guarded,
        reason=row.reason,
        released_by=row.released_by,
        _row=row,
        _files=files_of_plan(workspace, row.id, row.kind),
    )


def find_plan(workspace: Workspace, given: str) -> PlanRow:
    """Returns the plan whose id is that, or begins like that.

    Raises:
        ConfigurationError: It is no text, there is none, or several begin like that.
    """
    if not isinstance(given, str):
        raise ConfigurationError(
            f"{given!r} is no id of a plan; results have a plan_id after a dry run, and if guards withheld something"
        )
    wanted = given.strip()
    plans = workspace.plans.starting_with(wanted, _CANDIDATES) if wanted else []
    if len(plans) > 1:
        told = ", ".join(f"{plan.id} ({plan.job})" for plan in plans)
        raise ConfigurationError(f"several plans begin with {given!r}, e.g. {told}; give more of the id")
    if not plans:
        raise ConfigurationError(f"the ledger has no plan {given!r}; `sync-pipelines plans` lists those it has")
    return plans[0]


def field_rows(entry: PlanEntry) -> list[FieldRow]:
    """Returns the fields of an entry as they are shown; of a target that names none, the item as a whole."""
    if entry.changes:
        return [
            FieldRow(name, shown_value(name, change.old), shown_value(name, change.new))
            for name, change in entry.changes.items()
        ]
    if entry.action is Action.DELETE:
        return []
    before = entry.before.get("", entry.before) if entry.before is not None else None
    return [FieldRow(WHOLE_ITEM, shown_value("", before), shown_value("", entry.item))]


def entry_line(entry: PlanEntry) -> str:
    """Shows an entry on a line, for people: `update A-1: price 10 -> 12`."""
    told = [_row_text(entry.action, row) for row in field_rows(entry)]
    return f"{entry.action.value} {shown_text('', entry.external_id)}{': ' if told else ''}{', '.join(told)}"


def _row_text(action: Action, row: FieldRow) -> str:
    name = "" if row.name == WHOLE_ITEM else f"{row.name} "
    if action is Action.DELETE and row.new is None:
        return f"{name}{shown_text('', row.old)}"
    before = f"{shown_text('', row.old)} -> " if action is not Action.CREATE and (name or row.old is not None) else ""
    return f"{name}{before}{shown_text('', row.new)}"


def entry_document(entry: PlanEntry) -> dict[str, Any]:
    """Returns an entry for machines, secrets redacted."""
    return {
        "action": entry.action.value,
        "external_id": entry.external_id,
        "position": entry.position if entry.position >= 0 else None,
        "changes": {row.name: {"old": row.old, "new": row.new} for row in field_rows(entry) if entry.changes},
        "before": shown_value("", entry.before),
        "item": shown_value("", entry.item),
    }


def first_entries(files: RunFiles, limit: int) -> list[PlanEntry]:
    """Returns the first entries of a run's plan."""
    entries = (entry for page in read_plan(files, fields=True) for entry in page.entries)
    return list(islice(entries, limit))


def _action(given: str | None) -> Action | None:
    try:
        return Action(given) if given is not None else None
    except ValueError as error:
        raise ConfigurationError(f"action={given!r} is not understood; give create, update or delete") from error


def _has_field(entry: PlanEntry, name: str) -> bool:
    return name in entry.changes if entry.changes else name in field_names(entry.item)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def anew(plan: PlanRow) -> str:
    """Returns the command that makes a new plan."""
    return f"sync-pipelines plan {plan.job}"


def gone(plan: PlanRow) -> PlanError:
    """Returns the error of a plan whose files are not there."""
    return PlanError(
        f"{plan.job}: the files of the plan {plan.id} are not in the snapshot store: they were cleaned up, or this "
        f"process has another data folder (SYNC_PIPELINES_DATA_DIR). Make a new one: {anew(plan)}"
    )


def not_open(plan: PlanRow) -> PlanError:
    """Returns the error of a plan that can't be applied any more."""
    if plan.state == APPLIED and plan.applied_at is not None:
        return PlanError(
            f"{plan.job}: the plan {plan.id} was applied at {plan.applied_at.isoformat(timespec='seconds')} by the run "
            f"{plan.applied_by}, and a plan is applied once; nothing was done. Make a new one: {anew(plan)}"
        )
    if plan.state == SUPERSEDED:
        return PlanError(
            f"{plan.job}: the plan {plan.id} is superseded: the newer run {plan.applied_by} has looked at everything "
            f"again, and what it withholds is a plan of its own; nothing was done. See: sync-pipelines plans {plan.job}"
        )
    if plan.state == APPLYING:
        return PlanError(f"{plan.job}: the plan {plan.id} is being applied by another run; nothing was done")
    return PlanError(
        f"{plan.job}: the plan {plan.id} has expired at {plan.expires_at.isoformat(timespec='seconds')}; nothing was "
        f"done. Make a new one: {anew(plan)} (SYNC_PIPELINES_KEEP_PLANS_DAYS says how long plans can be applied)"
    )
