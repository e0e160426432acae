"""`SyncJob`: how to fetch all external items, what identifies one, how to find, create and update the local record."""

from __future__ import annotations

import difflib
import keyword
import math
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar
from uuid import UUID

from sync_pipelines.engine.intervals import Interval, as_interval
from sync_pipelines.engine.items import read_field
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.webhooks import Webhook, check_webhook
from sync_pipelines.errors import ConfigurationError, ItemError

Item = TypeVar("Item")
Local = TypeVar("Local")

Fetched = Iterable[Any] | AsyncIterable[Any]

MAX_CONCURRENCY = 1_000
"""Each call at a time takes a thread, and most systems bear far fewer."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_KEY_PART = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_GROUP = re.compile(r"[A-Za-z0-9_]+")
# what Dagster does not allow as a name
_RESERVED = {
    *keyword.kwlist,
    *["bool", "conf", "config", "context", "dict", "float", "input", "int", "meta", "output", "self", "str", "type"],
}
# What Dagster takes, said when the declaration is made instead of when all definitions fail to load.
_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_MAX_KINDS = 3
_ID_TYPES = (str, int, float, Decimal, UUID, date)
_HOOKS = (
    "fetch_one", "find_local", "create", "update", "delete", "list_local", "should_skip", "has_changed", "on_start",
    "on_complete",
)  # fmt: skip
_PER_RECORD = ("find_local", "create", "update")


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
            webhook says only that something has changed, or when it can't be told which of two states is the newer one.
        get_version: Which of two states of an item is the newer one: a function of the item that gives a number or an
            aware moment (or a text of either, such as `"2026-01-31T12:00:00Z"`), or the name of such a field. An older
            item never overwrites a newer one, whichever way it comes.
        create: `create(item)` writes a new local record.
        update: `update(item, local)` brings a found record up to the item.
        delete: `delete(local)` removes a local record; needed for `deletes="hard"` without a target that can.
        list_local: `list_local()` gives the external ids of all local records; needed like `delete`.
        should_skip: `should_skip(item)` is true for items that are to be left alone.
        has_changed: `has_changed(item, local)` is true if the record needs the update. Without it, and without a target
            that can tell, every found record is updated.
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
        deletes: `"hard"` deletes local records that a complete fetch no longer has; `"off"` never deletes.
        schedule: An interval such as `sync_intervals.hours(1)`, or a cron line in UTC.
        webhook: How a sender tells us that one item has changed: `Webhook(signature=..., ...)`.
        description: What an operator should know; shown in the UI. Markdown.
        asset_key: Key of the Dagster asset, at least two words joined by `/`, e.g. `"shop/variants"`; by default group
            and name of the job: `"sync/erp_inventory"`.
        source_asset: Key of the external asset upstream; by default `"sources/erp_inventory"`. May be another job's
            `asset_key`: then this sync reads what that one writes.
        group: Dagster's asset group.
        owners: Who answers for this sync: e-mail addresses or `team:name`.
        kinds: Up to three words that Dagster shows as badges, e.g. `("tryton", "sqlite")`.
        tags: Further Dagster tags.

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
    deletes: Literal["off", "hard"] = "off"
    schedule: Interval | str | None = None
    webhook: Webhook | None = None
    description: str = ""
    asset_key: str | None = None
    source_asset: str | None = None
    group: str = "sync"
    owners: Sequence[str] = ()
    kinds: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    if not TYPE_CHECKING:

        def __new__(cls, *args: object, **given: object) -> Self:
            """Turns a misspelt or missing field into an error that names it."""
            _check_field_names(cls, args, given)
            return super().__new__(cls)

    def __copy__(self) -> Self:
        """A declaration never changes."""
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        """A declaration never changes."""
        return self

    def __post_init__(self) -> None:
        """Checks the declaration."""
        _check_name(self)
        _check_callables(self)
        _check_identity(self)
        _check_target(self)
        _check_pace(self)
        _check_deletes(self)
        _check_presentation(self)
        if self.schedule is not None:
            try:
                object.__setattr__(self, "schedule", as_interval(self.schedule))
            except ConfigurationError as error:
                raise _wrong(self, "schedule", str(error)) from error
        if self.webhook is not None:
            try:
                check_webhook(self.webhook)
            except ConfigurationError as error:
                raise _wrong(self, "webhook", str(error)) from error

    @property
    def dagster_name(self) -> str:
        """The job's name as Dagster wants it: `erp_inventory`."""
        return self.name.replace("-", "_")

    @property
    def interval(self) -> Interval | None:
        """The schedule as an interval."""
        return as_interval(self.schedule) if self.schedule is not None else None

    def identify(self, item: Item) -> Any:
        """Gives what `get_external_id` or the target's key columns say, unchecked; awaitable if they are `async`."""
        if self.get_external_id is None:
            return self.target.external_id(item)
        if isinstance(self.get_external_id, str):
            return read_field(item, self.get_external_id)
        return self.get_external_id(item)

    def read_version(self, item: Item) -> Any:
        """Gives what `get_version` says, unchecked; awaitable if it is `async`. Only where there is a `get_version`."""
        if isinstance(self.get_version, str):
            return read_field(item, self.get_version)
        return self.get_version(item) if self.get_version is not None else None


def checked_external_id(value: Any) -> str:
    """Makes text of an external id.

    Raises:
        ItemError: The id is missing (None, NaN), empty, or a truth value.
    """
    if value is None or type(value).__name__ in {"NAType", "NaTType"} or value != value:  # noqa: PLR0124 - NaN
        raise ItemError("the item has no external id (None)")
    if isinstance(value, Enum):
        value = value.value
    if getattr(getattr(value, "dtype", None), "kind", "") in {"i", "u", "f"}:
        value = value.item()  # a number of numpy's
    if isinstance(value, bool) or not isinstance(value, _ID_TYPES):
        raise ItemError(f"the external id is a {type(value).__name__}; an id is text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a pandas column with a gap turns 7 into 7.0
    text = str(value).strip() if not isinstance(value, str) else value
    if not text.strip():
        raise ItemError(f"the item's external id is empty ({value!r})")
    return text


def _wrong(job: SyncJob[Any, Any], name: str, problem: str) -> ConfigurationError:
    shown = job.name if isinstance(job.name, str) else "?"
    return ConfigurationError(f"sync job {shown!r}: {name}: {problem}")


def _check_field_names(cls: type, args: tuple[object, ...], given: Mapping[str, object]) -> None:
    shown = given.get("name", "?")
    if args:
        raise ConfigurationError(f"sync job {shown!r}: SyncJob takes keyword arguments only: SyncJob(name=..., ...)")
    known = [each.name for each in fields(cls)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the fields are: {', '.join(known)}"
            raise ConfigurationError(f"sync job {shown!r}: there is no field {name!r}; {hint}")
    for name in ("name", "fetch_external"):
        if name not in given:
            raise ConfigurationError(f"sync job {shown!r}: the field {name!r} is missing")


def _check_name(job: SyncJob[Any, Any]) -> None:
    if not isinstance(job.name, str) or not _NAME.fullmatch(job.name):
        raise _wrong(job, "name", f"{job.name!r} must be lower case words and digits joined by '-': 'erp-inventory'")
    if job.name in _RESERVED:
        raise _wrong(job, "name", f"Dagster allows no job named {job.name!r}; add a word, as in 'crm-{job.name}'")


def _check_callables(job: SyncJob[Any, Any]) -> None:
    if not callable(job.fetch_external):
        raise _wrong(job, "fetch_external", f"{job.fetch_external!r} is not a function; pass it without calling it")
    for name in _HOOKS:
        value = getattr(job, name)
        if value is not None and not callable(value):
            raise _wrong(job, name, f"{value!r} is not a function")


def _check_identity(job: SyncJob[Any, Any]) -> None:
    given = job.get_external_id
    if given is None and not hasattr(job.target, "external_id"):
        raise _wrong(job, "get_external_id", "is missing; give a function of the item or the name of one of its fields")
    if given is not None and not callable(given) and not (isinstance(given, str) and given):
        raise _wrong(job, "get_external_id", f"{given!r} is neither a function nor a field name")
    version = job.get_version
    if version is not None and not callable(version) and not (isinstance(version, str) and version):
        raise _wrong(job, "get_version", f"{version!r} is neither a function nor a field name")


def _check_target(job: SyncJob[Any, Any]) -> None:
    given = [name for name in _PER_RECORD if getattr(job, name) is not None]
    if job.target is not None:
        also = [*given, *(name for name in ("delete", "list_local") if getattr(job, name) is not None)]
        if also:
            raise _wrong(job, also[0], "a job has a target or per-record functions, not both")
        if not hasattr(job.target, "open") and not all(
            callable(getattr(job.target, each, None)) for each in _PER_RECORD
        ):
            raise _wrong(job, "target", f"{job.target!r} has no find_local, create and update")
        return
    for name in _PER_RECORD:
        if name not in given:
            raise _wrong(job, name, "is missing; give find_local, create and update, or a target such as SqlTable(...)")


def _check_pace(job: SyncJob[Any, Any]) -> None:
    at_a_time, limit = job.concurrency, job.max_calls_per_s
    if not isinstance(at_a_time, int) or isinstance(at_a_time, bool) or not 1 <= at_a_time <= MAX_CONCURRENCY:
        raise _wrong(job, "concurrency", f"{at_a_time!r} must be a whole number from 1 to {MAX_CONCURRENCY}")
    if limit is None:
        return
    if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not 0 < limit < math.inf:
        raise _wrong(job, "max_calls_per_s", f"{limit!r} must be a number above 0, or None for no limit")


def _check_deletes(job: SyncJob[Any, Any]) -> None:
    if job.deletes not in ("off", "hard"):  # a set would not do: what is no text may not be hashable
        raise _wrong(job, "deletes", f"{job.deletes!r} must be 'off' or 'hard'")
    if job.deletes == "off":
        return
    if job.target is None:
        for name in ("delete", "list_local"):
            if getattr(job, name) is None:
                raise _wrong(job, name, "is missing; deletes='hard' needs delete and list_local")
    elif not hasattr(job.target, "open"):
        for names in (("delete", "delete_many"), ("list_local",)):
            if not any(callable(getattr(job.target, name, None)) for name in names):
                raise _wrong(job, "deletes", f"'hard' needs a target with {names[0]}, which {job.target!r} lacks")


def _is_key(key: object) -> bool:
    """One word alone would be the name of a graph in Dagster, where jobs have their names too."""
    parts = key.split("/") if isinstance(key, str) else []
    return len(parts) > 1 and all(_KEY_PART.fullmatch(part) for part in parts)


def _check_presentation(job: SyncJob[Any, Any]) -> None:
    for name in ("asset_key", "source_asset"):
        key = getattr(job, name)
        if key is not None and not _is_key(key):
            raise _wrong(job, name, f"{key!r} must be at least two words joined by '/', such as 'shop/variants'")
    if job.asset_key is not None and job.asset_key == job.source_asset:
        raise _wrong(job, "source_asset", f"{job.source_asset!r} is the asset_key as well; a sync can't read itself")
    if not isinstance(job.group, str) or not _GROUP.fullmatch(job.group):
        raise _wrong(job, "group", f"{job.group!r} must be letters, digits and '_'")
    if not isinstance(job.description, str):
        raise _wrong(job, "description", f"{job.description!r} must be text")
    _check_labels(job)


def _check_labels(job: SyncJob[Any, Any]) -> None:
    for name in ("owners", "kinds"):
        value = getattr(job, name)
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
            raise _wrong(job, name, f"{value!r} must be a list of texts")
    for owner in job.owners:
        if not _OWNER.fullmatch(owner):
            raise _wrong(job, "owners", f"{owner!r} must be an e-mail address or 'team:name'")
    if len(job.kinds) > _MAX_KINDS or not all(kind and _TAG_VALUE.fullmatch(kind) for kind in job.kinds):
        raise _wrong(job, "kinds", f"{job.kinds!r} must be up to three words of letters, digits, '_', '.' and '-'")
    if not isinstance(job.tags, Mapping) or not all(
        isinstance(key, str) and _TAG_KEY.fullmatch(key) and isinstance(value, str) and _TAG_VALUE.fullmatch(value)
        for key, value in job.tags.items()
    ):
        raise _wrong(
            job, "tags", f"{job.tags!r} must map texts to texts, each up to 63 letters, digits, '_', '.' and '-'"
        )
