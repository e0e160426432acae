"""`SyncJob`: how to fetch all external items, what identifies one, how to find, create and update the local record."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from sync_pipelines.engine.declaration_checks import check_declaration
from sync_pipelines.engine.declared_at import Place, caller_outside, note_place
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.intervals import Interval, as_interval
from sync_pipelines.engine.items import read_field
from sync_pipelines.engine.keyword_fields import check_field_names
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.retry import Retry
from sync_pipelines.engine.webhooks import Webhook

Item = TypeVar("Item")
Local = TypeVar("Local")

DEFAULT_GROUP = "sync"
"""Dagster's asset group of a job that names none."""

Fetched = Iterable[Any] | AsyncIterable[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SyncJob(Generic[Item, Local]):
    """The declaration of one sync.

    Every function may be plain or `async`. Write `JOB: SyncJob[ErpItem, Variant] = SyncJob(...)`.

    Args:
        name: Lower case words joined by `-`, e.g. `"erp-inventory"`; Dagster's names have `_` instead.
        fetch_external: Called without arguments; returns or yields items or pages of items (lists, DataFrames).
        get_external_id: What identifies an item: a function of the item, or the name of one of its fields. May be left
            out when the target knows its key columns.
        find_local: `find_local(external_id)` gives the local record or None.
        fetch_one: `fetch_one(external_id)` gives the item as the source has it now, None if it is gone. Asked when a
            webhook says only that something has changed, or when it is not known which of two states is the newer one.
        get_version: Which of two states of an item is the newer one: a function of the item that gives a number or an
            aware moment (or a text of either, such as `"2026-01-31T12:00:00Z"`), or the name of such a field. An older
            item never overwrites a newer one, whichever way it comes.
        create: `create(item)` writes a new local record.
        update: `update(item, local)` brings a found record up to the item.
        delete: `delete(local)` removes a local record; needed for `deletes="hard"` without a target that can.
        list_local: `list_local()` gives the external ids of all local records; needed like `delete`.
        should_skip: `should_skip(item)` is true for items that are to be left alone.
        has_changed: `has_changed(item, local)` is true if the record needs the update. Without it, and without a target
            that can compare, every found record is updated.
        on_start: Called before the fetch; an error ends the run.
        on_complete: `on_complete(results)` is called at the end, after failures too; an error fails the run after the
            applying is done.
        target: Where local records live, e.g. `SqlTable(...)`, instead of the per-record functions.
        concurrency: How many per-record calls (`find_local`, `create`, `update`, `delete`) run at one time: plain
            functions in threads, which they must allow, `async` ones as tasks of one event loop. With 1, the default,
            plain functions are called one after the other in the caller's thread. Results and their order are the same
            with any number. `has_changed` is called one item at a time; methods of a target for many records
            (`create_many`) are called once for all of them.
        max_calls_per_s: How many of those calls, and of those for many records, may begin in a second, attempts after
            an error included. They are spread evenly, never in bursts. It holds for each run (`sync_single_item` is one
            of its own). None: no limit.
        deletes: What becomes of local records that a complete fetch no longer has: `"hard"` deletes them, `"soft"`
            marks them as deleted, for a target that can (`SqlTable(soft_delete=...)`); `"off"` leaves them alone.
        delete_after: How many complete fetches in a row must be without a record before it is deleted.
        guards: Limits of what a full run may delete or update by itself, and of how much smaller a fetch may be than
            the last good ones. What goes beyond is withheld as a plan, everything else is applied, the outcome is
            `guarded`, and `apply_plan(plan_id, reason=...)` releases it once. None: no limits (a fetch without any item
            deletes nothing all the same).
        fail_above: How many items may fail before the run counts as failed, once all others are applied: a share below
            1 (0.05 is a twentieth of the items fetched) or a whole number of items. None: any number.
        fresh_within: How old the last good run may be before the asset counts as stale; by default three times the
            schedule's interval. Without a schedule, or with a cron line, there is no such check unless this is given.
        retry: When an item that failed is tried again without waiting for the next run: `Retry(attempts=6,
            first_wait_s=60)`. None: only the next run tries it again.
        keep_history_days: How long the ledger remembers what was written of each record, with old and new values, for
            `record_history` and `sync-pipelines history`. With 0 nothing is recorded, and what was is forgotten.
        schedule: An interval such as `sync_intervals.hours(1)`, or a cron line in UTC.
        webhook: How a sender reports that one item has changed: `Webhook(signature=..., ...)`.
        description: What an operator should know; shown in the UI. Markdown.
        asset_key: Key of the Dagster asset, at least two words joined by `/`, e.g. `"shop/variants"`; by default group
            and name of the job: `"sync/erp_inventory"`.
        source_asset: Key of the external asset upstream; by default `"sources/erp_inventory"`. May be another job's
            `asset_key`: then this sync reads what that one writes.
        upstream: Keys of further assets that this sync reads, other syncs' or anybody's: `["warehouse/products"]`.
            Dagster draws them in the lineage, and in one run they go first.
        automation: What starts the sync instead of a schedule: `"eager"` for each time that an asset in `upstream`
            (without one, `source_asset`) is updated, `"on_change"` for each time that this has changed its data, or a
            Dagster `AutomationCondition`.
        group: Dagster's asset group.
        owners: Who answers for this sync: e-mail addresses or `team:name`.
        kinds: Up to three words that Dagster shows as badges, e.g. `("tryton", "sqlite")`. Where there is room, the
            kind of source and the target's database follow by themselves.
        tags: Further Dagster tags, of the asset and of every run.
        run_tags: Tags of this sync's runs alone: text of any length, or what JSON can say, such as
            `{"dagster/priority": "3", "dagster-k8s/config": {...}}`. Dagster shows them: no secrets.
        op_tags: The same for the steps of a run (fetch, diff, apply, drain, retry).

    Raises:
        ConfigurationError: The declaration is wrong; the message names job and field.
    """

    name: str
    fetch_external: Callable[[], Fetched | Awaitable[Fetched]]
    get_external_id: Callable[[Item], str | Awaitable[str]] | str | None = None
    fetch_one: Callable[[str], Awaitable[Item | None] | Item | None] | None = None
    get_version: Callable[[Item], Any] | str | None = None
    find_local: Callable[[str], Awaitable[Local | None] | Local | None] | None = None
    create: Callable[[Item], object] | None = None
    update: Callable[[Item, Local], object] | None = None
    delete: Callable[[Local], object] | None = None
    list_local: Callable[[], Iterable[str] | AsyncIterable[str] | Awaitable[Iterable[str]]] | None = None
    should_skip: Callable[[Item], bool | Awaitable[bool]] | None = None
    has_changed: Callable[[Item, Local], bool | Awaitable[bool]] | None = None
    on_start: Callable[[], object] | None = None
    on_complete: Callable[[SyncResults], object] | None = None
    target: Any = None
    concurrency: int = 1
    max_calls_per_s: float | None = None
    deletes: Literal["off", "hard", "soft"] = "off"
    delete_after: int = 1
    guards: Guards | None = Guards()
    fail_above: float | None = None
    fresh_within: timedelta | None = None
    retry: Retry | None = Retry()
    keep_history_days: int = 90
    schedule: Interval | str | None = None
    webhook: Webhook | None = None
    description: str = ""
    asset_key: str | None = None
    source_asset: str | None = None
    upstream: Sequence[str] = ()
    automation: Any = None
    group: str = DEFAULT_GROUP
    owners: Sequence[str] = ()
    kinds: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    run_tags: Mapping[str, Any] = field(default_factory=dict)
    op_tags: Mapping[str, Any] = field(default_factory=dict)

    if not TYPE_CHECKING:

        def __new__(cls, *args: object, **values: object) -> Self:
            """Turns a misspelt or missing field into an error that names it."""
            check_field_names(cls, f"sync job {values.get('name', '?')!r}", args, values)
            return super().__new__(cls)

    def __copy__(self) -> Self:
        """Returns the declaration itself, which never changes."""
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        """Returns the declaration itself, which never changes."""
        return self

    def __post_init__(self) -> None:
        """Checks the declaration."""
        check_declaration(self)
        note_place(self, caller_outside(__name__))
        if self.schedule is not None:
            object.__setattr__(self, "schedule", as_interval(self.schedule))

    @property
    def declared_at(self) -> Place | None:
        """The file and line in which it was declared; None if it is in no file."""
        return getattr(self, "_declared_at", None)

    def scheduled(self, interval: Interval) -> Self:
        """Returns the same declaration with that schedule."""
        scheduled = replace(self, schedule=interval)
        note_place(scheduled, self.declared_at)
        return scheduled

    @property
    def dagster_name(self) -> str:
        """The job's name as Dagster wants it: `erp_inventory`."""
        return _dagster_name(self.name)

    @property
    def asset_path(self) -> str:
        """The key of the asset that it keeps up to date, as `asset_key` gives it or by default."""
        return self.asset_key or default_asset_path(self.name, self.group)

    @property
    def source_path(self) -> str:
        """The key of the external asset that it reads, as `source_asset` gives it or by default."""
        return self.source_asset or f"sources/{self.dagster_name}"

    @property
    def interval(self) -> Interval | None:
        """The schedule as an interval."""
        return as_interval(self.schedule) if self.schedule is not None else None

    @property
    def fresh_after(self) -> timedelta | None:
        """How old the last good run may be; None if nobody minds."""
        if self.fresh_within is not None or self.interval is None or self.interval.period is None:
            return self.fresh_within
        return 3 * self.interval.period

    @property
    def id_field(self) -> str | None:
        """The field of an item that holds its external id, where a text in it is the id as it stands."""
        if self.get_external_id is None:
            return getattr(self.target, "external_id_field", None)
        return self.get_external_id if isinstance(self.get_external_id, str) else None

    def identify(self, item: Item) -> Any:
        """Returns what `get_external_id` or the target's key columns say, unchecked; awaitable if they are `async`."""
        if self.get_external_id is None:
            return self.target.external_id(item)
        if isinstance(self.get_external_id, str):
            return read_field(item, self.get_external_id)
        return self.get_external_id(item)

    def read_version(self, item: Item) -> Any:
        """Returns what `get_version` says, unchecked; awaitable if it is `async`. Needs a `get_version`."""
        if isinstance(self.get_version, str):
            return read_field(item, self.get_version)
        return self.get_version(item) if self.get_version is not None else None


AnyJob = SyncJob[Any, Any]
"""A sync job, whatever its items and local records are."""


def default_asset_path(name: str, group: str = DEFAULT_GROUP) -> str:
    """Returns the key of the asset of a job that gives none: group and name."""
    return f"{group}/{_dagster_name(name)}"


def _dagster_name(name: str) -> str:
    return name.replace("-", "_")
