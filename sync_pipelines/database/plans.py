"""Keeps plans that wait to be applied, of dry runs and of limits: until when, and who has applied one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, delete, insert, or_, select, update

from sync_pipelines.database.ledger import Ledger
from sync_pipelines.database.tables import DRY_RUN, WITHHELD

OPEN = "open"
APPLYING = "applying"
APPLIED = "applied"
EXPIRED = "expired"
SUPERSEDED = "superseded"
_GRACE = timedelta(days=1)
"""How long the files of a plan that is being applied stay after it has expired."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """Holds one plan as the ledger keeps it. Times are aware.

    Args:
        id: The id of the run that left it, whose files hold its entries.
        made_for: The fingerprint of target and declaration.
        state: `open`, `applying` (begun, and perhaps broken off), `applied`, `expired`, or `superseded` (of what guards
            have withheld: a newer whole run has looked again).
        kind: `dry run`, or `withheld` for what limits have withheld.
        guarded: Why it can be applied only with a reason; empty if it needs none.
    """

    id: str
    job: str
    created_at: datetime
    expires_at: datetime
    counts: Mapping[str, int]
    made_for: str
    state: str = OPEN
    applied_by: str | None = None
    applied_at: datetime | None = None
    kind: str = DRY_RUN
    guarded: tuple[str, ...] = ()
    reason: str | None = None
    released_by: str | None = None


class Plans:
    """Keeps the plans of all sync jobs; each method is one transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._table = ledger.tables.plans

    def save(self, plan: PlanRow) -> None:
        """Keeps a plan, in place of the one that an earlier attempt of the same run left."""
        values = {**asdict(plan), "counts": dict(plan.counts), "guarded": list(plan.guarded)}
        with self._ledger.transaction() as connection:
            connection.execute(delete(self._table).where(self._table.c.id == plan.id))
            connection.execute(insert(self._table).values(values))

    def plan(self, plan_id: str) -> PlanRow | None:
        """Returns the plan of that id."""
        return next(iter(self._found(self._table.c.id == plan_id, 1)), None)

    def starting_with(self, prefix: str, limit: int) -> list[PlanRow]:
        """Returns the plans whose ids start like that, newest first."""
        return self._found(self._table.c.id.startswith(prefix, autoescape=True), limit)

    def latest(self, job: str | None, limit: int) -> list[PlanRow]:
        """Returns the newest plans, of one sync job or of all, newest first."""
        return self._found(True if job is None else self._table.c.job == job, limit)

    def _found(self, condition: Any, limit: int) -> list[PlanRow]:
        table = self._table
        query = select(table).order_by(table.c.created_at.desc(), table.c.id).limit(limit)
        query = query if condition is True else query.where(condition)
        with self._ledger.transaction() as connection:
            return [_plan_row(row) for row in connection.execute(query)]

    def claim(self, plan_id: str, run_id: str, now: datetime) -> str | None:
        """Lets a run apply the plan, if it is open, or if the run that had begun with it broke off.

        Whoever asks must have the lease of the sync.

        Returns:
            The run that applies it: this one, or the earlier one, to be gone on with. None: it can't be applied.
        """
        table = self._table
        is_open = (table.c.id == plan_id, table.c.state == OPEN, table.c.expires_at > now)
        with self._ledger.transaction() as connection:
            connection.execute(update(table).where(*is_open).values(state=APPLYING, applied_by=run_id))
            begun = select(table.c.applied_by).where(table.c.id == plan_id, table.c.state == APPLYING)
            claimed: str | None = connection.scalar(begun)
        return claimed

    def note_reason(self, plan_id: str, reason: str, released_by: str) -> None:
        """Keeps why a plan is applied that limits have withheld, and who says so."""
        self._set(plan_id, reason=reason, released_by=released_by)

    def supersede(self, job: str, by: str) -> None:
        """Closes what limits have withheld of earlier runs: a newer whole run has looked at everything again.

        What has been applied to its end before is noted as that.

        Args:
            by: That run; its own plan stays.
        """
        table, runs = self._table, self._ledger.tables.runs
        earlier = (table.c.job == job, table.c.kind == WITHHELD, table.c.id != by)
        ended_at = select(runs.c.completed_at).where(runs.c.id == table.c.applied_by, runs.c.applied_all)
        was_applied = update(table).where(*earlier, table.c.state == APPLYING, ended_at.scalar_subquery().is_not(None))
        with self._ledger.transaction() as connection:
            # its process died between the two notes
            connection.execute(was_applied.values(state=APPLIED, applied_at=ended_at.scalar_subquery()))
            # nobody is applying any other: whoever asks has the lease
            left = update(table).where(*earlier, table.c.state.in_((OPEN, APPLYING)))
            connection.execute(left.values(state=SUPERSEDED, applied_by=by))

    def withheld_of(self, run_id: str) -> PlanRow | None:
        """Returns what limits have withheld of a run; None if nothing was suspicious."""
        table = self._table
        return next(iter(self._found(and_(table.c.id == run_id, table.c.kind == WITHHELD), 1)), None)

    def still_withheld(self, job: str) -> PlanRow | None:
        """Returns what limits withhold of the newest run of a sync and nobody has released, or None."""
        table = self._table
        held = and_(table.c.job == job, table.c.kind == WITHHELD, table.c.state == OPEN)
        return next(iter(self._found(held, 1)), None)

    def released(self, job: str) -> set[str]:
        """Returns the runs of a sync of which a person has said that what limits withheld is right."""
        table = self._table
        of_job = (table.c.job == job, table.c.kind == WITHHELD, table.c.state == APPLIED)
        with self._ledger.transaction() as connection:
            return set(connection.scalars(select(table.c.id).where(*of_job)))

    def forget(self, plan_id: str) -> None:
        """Forgets what an earlier attempt of the same run left that nobody has begun to apply."""
        table = self._table
        with self._ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.id == plan_id, table.c.state == OPEN))

    def give_back(self, plan_id: str) -> None:
        """Opens a plan again of which nothing was applied."""
        self._set(plan_id, state=OPEN, applied_by=None)

    def finish(self, plan_id: str, at: datetime) -> None:
        """Notes that all of a plan is applied."""
        self._set(plan_id, state=APPLIED, applied_at=at)

    def _set(self, plan_id: str, **values: Any) -> None:
        table = self._table
        with self._ledger.transaction() as connection:
            connection.execute(update(table).where(table.c.id == plan_id, table.c.state == APPLYING).values(values))

    def clean_up(self, now: datetime, forget_before: datetime) -> set[str]:
        """Marks plans that have expired, and forgets old ones.

        Args:
            forget_before: Plans that expired before that time are forgotten.

        Returns:
            The ids of those that can still be applied, whose files must stay.
        """
        table = self._table
        over = table.c.expires_at <= now
        with self._ledger.transaction() as connection:
            connection.execute(delete(table).where(table.c.expires_at < forget_before))
            connection.execute(update(table).where(over, table.c.state == OPEN).values(state=EXPIRED))
            is_open = and_(table.c.state == OPEN, table.c.expires_at > now)
            is_begun = and_(table.c.state == APPLYING, table.c.expires_at > now - _GRACE)
            return set(connection.scalars(select(table.c.id).where(or_(is_open, is_begun))))


def _plan_row(row: Row[Any]) -> PlanRow:
    values = {name: getattr(row, name) for name in PlanRow.__dataclass_fields__}
    return PlanRow(**{**values, "guarded": tuple(values["guarded"] or ())})
