"""The results of a run: outcomes counted, errors kept, time measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING

from sync_pipelines.engine.causes import Cause
from sync_pipelines.engine.item_shapes import PREFIX
from sync_pipelines.engine.places import place_of
from sync_pipelines.engine.plan import Outcome, PlanCounts
from sync_pipelines.engine.redaction import exception_type, forget_frames, message_of, redact

if TYPE_CHECKING:
    import pandas as pd

MAX_LISTED = 1_000
"""How many errors and duplicates a result lists; the counts count all."""


@dataclass(frozen=True, slots=True)
class SyncError:
    """One item that failed.

    Args:
        external_id: The item's external id, None if it has none that can be read.
        message: The error's own message, without secrets.
        exception_type: Name of the exception's class, e.g. `"IntegrityError"`.
        position: Place of the item in the fetch, starting at 0; -1 for a local record that could not be deleted.
        trace: Through which functions of the user the error came, as Python writes it; empty if through none.
    """

    external_id: str | None
    message: str
    exception_type: str
    position: int = 0
    trace: str = field(default="", compare=False)

    @classmethod
    def of(cls, error: Exception, external_id: str | None, position: int) -> SyncError:
        """Keeps the message of an exception, which itself lets go of all it holds on to.

        An exception has the frames that it came through, theirs and those of their callers, and with them the page
        that they work on; which has the exception. Thousands of those would wait for the garbage collector.
        """
        place = place_of(error)
        trace = redact(place.trace) if place is not None else ""
        kept = cls(external_id, message_of(error), exception_type(error), position, trace)
        forget_frames(error)
        return kept


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An item that a later one with the same external id replaced.

    Args:
        external_id: The id that both have, as the target's key gives it back.
        position: Place of this item in the fetch, starting at 0.
        kept_position: Place of the item that counts.
    """

    external_id: str
    position: int
    kept_position: int


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item: `action` is `created`, `updated`, `deleted`, `unchanged` or `skipped`.

    Args:
        data_version: The data version of the target since then, if the item was written and a ledger keeps it.
    """

    action: str
    external_id: str
    data_version: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Counts:
    """Items by outcome. `deleted` counts local records, `recovered` those of `unchanged` that a broken-off attempt
    of the same run had already written."""  # noqa: D205, D209

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    duplicate: int = 0
    failed_deletes: int = 0
    recovered: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            **{outcome.name: getattr(self, outcome.name) + getattr(other, outcome.name) for outcome in fields(self)}
        )

    def items(self) -> int:
        """Returns how many fetched items these counts explain."""
        return self.created + self.updated + self.unchanged + self.skipped + self.failed + self.duplicate

    def to_dict(self) -> dict[str, int]:
        """Returns the counts by name."""
        return {outcome.name: getattr(self, outcome.name) for outcome in fields(self)}

    @staticmethod
    def of(outcomes: Iterable[Outcome]) -> Counts:
        """Counts outcomes."""
        return Counts(**Counter(outcome.value for outcome in outcomes))


@dataclass(frozen=True, kw_only=True)
class SyncResults:
    """The result of one run.

    Args:
        name: The sync job's name.
        run_id: The run's id in the ledger.
        started_at: When the run began, aware.
        completed_at: When it ended, aware.
        duration_ms: From start to end in milliseconds; time between the ops of a Dagster run included.
        fetched: Items taken from the source; equals created + updated + unchanged + skipped + failed + duplicate.
        created: Local records written anew.
        updated: Local records changed.
        deleted: Local records removed because the source no longer has them.
        unchanged: Items whose local record was already up to date.
        skipped: Items that `should_skip` left out.
        error_count: Items that failed, and deletes that failed.
        duplicate_count: Items that a later one with the same external id replaced.
        recovered: Of `unchanged`, how many an attempt that broke off had already written.
        errors: The first 1,000 errors in the order of the fetch; the ledger has all.
        duplicates: The first 1,000 duplicates.
        causes: The errors by cause, the most frequent first; at most 200, and what is left as one.
        gone_causes: Causes that the run before had, and this one has not.
        notes: What a person should know besides, e.g. why no deletes were looked for.
        set_back: Columns that something sets back after each run, a sentence each.
        phase_ms: Milliseconds spent in `fetch`, `diff`, `apply`.
        failure: Why the run as a whole failed, None if it did not.
        withheld: What guards have withheld: updates, which are among the skipped items, and deletes.
        guarded: Why they did, a sentence each; empty if nothing was suspicious.
        planned: Of a dry run, what its plan would create, update and delete; nothing of that is written. Else None.
        not_found: How many of the ids that it was asked for (`only`) the source does not have; the notes name them.
        no_deletes: True if it was to delete what is missing, and could not tell what that is; the notes say
            why.
        plan_id: Of a dry run the id of the plan that it left; of a guarded run that of what was withheld; of a run that
            applied a plan the id of that plan.
    """

    name: str
    run_id: str
    started_at: datetime
    completed_at: datetime
    duration_ms: int
    fetched: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    skipped: int = 0
    error_count: int = 0
    failed_deletes: int = 0
    duplicate_count: int = 0
    recovered: int = 0
    errors: tuple[SyncError, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    causes: tuple[Cause, ...] = ()
    gone_causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = ()
    set_back: tuple[str, ...] = ()
    phase_ms: Mapping[str, int] = field(default_factory=dict)
    failure: str | None = None
    withheld: PlanCounts = PlanCounts()
    guarded: tuple[str, ...] = ()
    planned: PlanCounts | None = None
    not_found: int = 0
    no_deletes: bool = False
    plan_id: str | None = None

    @property
    def dry_run(self) -> bool:
        """True if the run only planned: then created, updated and deleted are 0, and `planned` says what would be."""
        return self.planned is not None

    @property
    def drift(self) -> tuple[str, ...]:
        """What has changed in the fields of the items since the last good run, e.g. that none has `title` any more."""
        return tuple(note.removeprefix(PREFIX) for note in self.notes if note.startswith(PREFIX))

    @property
    def outcome(self) -> str:
        """What became of the run as a whole.

        `clean`; `partial` (some items failed, or are asked for and not in the source); `guarded` (guards have withheld
        something, or the fetch is suspicious); `failed` (the run as a whole); or `planned` for a dry run.
        """
        if self.failure is not None:
            return "failed"
        if self.planned is not None:
            return "planned"
        if self.guarded:
            return "guarded"
        return "partial" if self.error_count or self.not_found else "clean"

    @property
    def accounts_balance(self) -> bool:
        """True if every fetched item has exactly one outcome; of a dry run, or is planned to be written."""
        failed_items = self.error_count - self.failed_deletes
        explained = self.created + self.updated + self.unchanged + self.skipped + failed_items + self.duplicate_count
        if self.planned is not None:
            explained += self.planned.create + self.planned.update
        return explained == self.fetched

    def exceeds(self, fail_above: float | None) -> bool:
        """Returns True if more items failed than `fail_above` allows: a share of the fetched below 1, or a number."""
        if fail_above is None:
            return False
        return self.error_count > (fail_above * self.fetched if fail_above < 1 else fail_above)

    @property
    def items_per_s(self) -> float:
        """Fetched items per second of work in the three phases."""
        worked_ms = sum(self.phase_ms.values()) or self.duration_ms
        return self.fetched / (worked_ms / 1000) if worked_ms else float(self.fetched)

    def counts(self) -> dict[str, int]:
        """Returns the counts by name; of a dry run with `to_create`, `to_update`, `to_delete`."""
        planned = self.planned.to_dict() if self.planned is not None else {}
        return {
            "fetched": self.fetched,
            "created": self.created,
            "updated": self.updated,
            "deleted": self.deleted,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "failed": self.error_count,
            "duplicate": self.duplicate_count,
            **{f"to_{action}": count for action, count in planned.items()},
            **({"not_found": self.not_found} if self.not_found else {}),
        }

    def summary(self) -> str:
        """Returns one line for logs and terminals."""
        counts = [
            f"{count:,} {what.replace('_', ' ')}"
            for what, count in self.counts().items()
            if what not in {"fetched", "not_found"} and count
        ]
        text = f"{self.name}: {self.outcome}: {self.fetched:,} fetched"
        text += f" = {', '.join(counts)}" if counts else ""
        if self.recovered:
            text += f" ({self.recovered:,} of the unchanged were written by an attempt that broke off)"
        if self.not_found:
            text += f", {self.not_found:,} not found in the source"
        if self.withheld.writes:
            kept = [f"{count:,} {action}s" for action, count in self.withheld.to_dict().items() if count]
            text += f", {' and '.join(kept)} withheld"
        text += f" in {self.duration_ms / 1000:.1f} s"
        return f"{text}: {self.failure}" if self.failure else text

    def to_frame(self) -> pd.DataFrame:
        """Returns the listed errors and duplicates as a pandas DataFrame, one row per item, in the order of the fetch.

        Columns: `outcome` (`failed` or `duplicate`), `external_id`, `position`, `message`, `exception_type`.
        """
        import pandas as pd  # noqa: PLC0415 - the engine must not need pandas

        columns = ["outcome", "external_id", "position", "message", "exception_type"]
        rows: list[tuple[str, str | None, int, str, str]] = [
            ("failed", error.external_id, error.position, error.message, error.exception_type) for error in self.errors
        ]
        rows += [
            ("duplicate", duplicate.external_id, duplicate.position, f"replaced by item {duplicate.kept_position}", "")
            for duplicate in self.duplicates
        ]
        rows.sort(key=lambda row: row[2])
        return pd.DataFrame(rows, columns=columns)
