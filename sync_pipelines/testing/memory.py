"""In-memory fakes: a target and a source that behave like real ones, and fail on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sync_pipelines.engine.items import field_names, read_field
from sync_pipelines.engine.pages import batches
from sync_pipelines.engine.plan import FieldChange
from sync_pipelines.engine.targets import Identify, TargetDescription

if TYPE_CHECKING:  # the fakes do without SQLAlchemy
    from sync_pipelines.targets.table.soft_delete import SoftDelete


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A local record of a `MemoryTarget`, as it was when it was looked up."""

    external_id: str
    fields: Mapping[str, Any]


class MemoryTarget:
    """A table in memory, with every method that the engine can make use of. Batches land as a whole or not at all.

    Args:
        records: External id -> fields of the records that are there already.
        fails: External id -> what creating, updating or deleting that record raises. It may be changed between runs.
        fails_to_find: External id -> what looking up that record raises.
        columns: The item fields that are written; by default all.
        soft_delete: How a delete marks a record instead of removing it.
    """

    def __init__(
        self,
        records: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        fails: Mapping[str, Exception] | None = None,
        fails_to_find: Mapping[str, Exception] | None = None,
        columns: Sequence[str] | None = None,
        soft_delete: SoftDelete | None = None,
    ) -> None:
        self.records: dict[str, dict[str, Any]] = {key: dict(fields) for key, fields in (records or {}).items()}
        self.fails: dict[str, Exception] = dict(fails or {})
        self.fails_to_find: dict[str, Exception] = dict(fails_to_find or {})
        self.calls: Counter[str] = Counter()
        """How often each method was called."""
        self.writes = 0
        """How many records were created, updated or deleted."""
        self.soft_delete = soft_delete
        self._columns = columns
        self._identify: Identify | None = None

    @contextmanager
    def open(self, identify: Identify) -> Iterator[MemoryTarget]:
        """Yields the target itself; the records stay when it is closed."""
        self.calls["open"] += 1
        self._identify = identify
        yield self

    def find_local(self, external_id: str) -> MemoryRecord | None:
        """Returns the record of that external id, or None."""
        return self._found("find_local", [external_id]).get(external_id)

    def find_many(self, external_ids: Sequence[str]) -> dict[str, MemoryRecord]:
        """Returns the records that exist, by external id."""
        return self._found("find_many", external_ids)

    def list_local(self) -> Iterator[str]:
        """Yields the external ids of all records that are not marked as deleted."""
        self.calls["list_local"] += 1
        yield from [external_id for external_id, fields in self.records.items() if not self._has_mark(fields)]

    def changes(self, item: Any, local: MemoryRecord | None) -> dict[str, FieldChange]:
        """Returns the fields that a create or an update would write, old and new."""
        new = self._fields_of(item)
        if local is None:
            return {name: FieldChange(None, value) for name, value in new.items()}
        old = local.fields
        return {
            name: FieldChange(old.get(name), value)
            for name, value in new.items()
            if (name not in old or not _same(old[name], value)) and not self._is_live_value(name, old)
        }

    def is_marked(self, local: MemoryRecord) -> bool:
        """True if a record is marked as deleted."""
        return self._has_mark(local.fields)

    def delete_changes(self, local: MemoryRecord) -> dict[str, FieldChange]:
        """Returns what a delete changes of a record."""
        if self.soft_delete is None:
            return {name: FieldChange(value, None) for name, value in local.fields.items()}
        column = self.soft_delete.column
        return {column: FieldChange(local.fields.get(column), self.soft_delete.shown)}

    def _has_mark(self, fields: Mapping[str, Any]) -> bool:
        if self.soft_delete is None:
            return False
        held = fields.get(self.soft_delete.column)
        return held is not None if self.soft_delete.is_moment else _same(held, self.soft_delete.deleted)

    def _is_live_value(self, name: str, fields: Mapping[str, Any]) -> bool:
        """True of the column that marks records, if it says that this one is live."""
        return self.soft_delete is not None and name == self.soft_delete.column and not self._has_mark(fields)

    def local_fields(self, local: MemoryRecord) -> Mapping[str, Any]:
        """Returns the fields of a record."""
        return local.fields

    def create(self, item: Any) -> None:
        """Writes a new record. Raises `ValueError` if there is one already."""
        self._write("create", [(item, None)])

    def create_many(self, items: Sequence[Any]) -> None:
        """Writes new records, all or none."""
        self._write("create_many", [(item, None) for item in items])

    def update(self, item: Any, local: MemoryRecord) -> None:
        """Brings a record up to the item. Raises `LookupError` if it is gone."""
        self._write("update", [(item, local)])

    def update_many(self, pairs: Sequence[tuple[Any, MemoryRecord]]) -> None:
        """Brings records up to their items, all or none."""
        self._write("update_many", pairs)

    def delete(self, local: MemoryRecord) -> None:
        """Deletes a record. Raises `LookupError` if it is gone."""
        self._write("delete", [(None, local)])

    def delete_many(self, locals_: Sequence[MemoryRecord]) -> None:
        """Deletes records, all or none."""
        self._write("delete_many", [(None, local) for local in locals_])

    def describe(self) -> TargetDescription:
        """Returns the columns, as far as the records show them, and the number of records."""
        names = {name: type(value).__name__ for fields in self.records.values() for name, value in fields.items()}
        return TargetDescription("memory", tuple(names.items()), len(self.records))

    def _found(self, method: str, external_ids: Sequence[str]) -> dict[str, MemoryRecord]:
        self.calls[method] += 1
        for external_id in external_ids:
            _fail_on_request(self.fails_to_find, external_id)
        return {
            external_id: MemoryRecord(external_id, dict(self.records[external_id]))
            for external_id in external_ids
            if external_id in self.records
        }

    def _write(self, method: str, pairs: Sequence[tuple[Any, MemoryRecord | None]]) -> None:
        self.calls[method] += 1
        changed = {key: dict(self.records[key]) for key in self._ids_of(pairs) if key in self.records}
        for item, local in pairs:
            self._write_one(changed, item, local)
        for key in self._ids_of(pairs):
            if key in changed:
                self.records[key] = changed[key]
            else:
                self.records.pop(key, None)
        self.writes += len(pairs)

    def _write_one(self, changed: dict[str, dict[str, Any]], item: Any, local: MemoryRecord | None) -> None:
        external_id = self._id_of(item) if local is None else local.external_id
        _fail_on_request(self.fails, external_id)
        if local is not None and external_id not in changed:
            raise LookupError(f"the record {external_id!r} is not there any more")
        if local is None and external_id in changed:
            raise ValueError(f"there is a record {external_id!r} already")
        if item is None and self.soft_delete is not None:
            changed[external_id][self.soft_delete.column] = self.soft_delete.value_at(datetime.now(UTC))
        elif item is None:
            del changed[external_id]
        else:
            before = changed.get(external_id, {})
            new = {
                name: value
                for name, value in self._fields_of(item).items()
                if local is None or not self._is_live_value(name, before)
            }
            changed[external_id] = {**before, **new}

    def _ids_of(self, pairs: Sequence[tuple[Any, MemoryRecord | None]]) -> list[str]:
        return [self._id_of(item) if local is None else local.external_id for item, local in pairs]

    def _id_of(self, item: Any) -> str:
        if self._identify is None:
            raise RuntimeError("a MemoryTarget is opened by a run; call open(identify) to use it by hand")
        return self._identify(item)

    def _fields_of(self, item: Any) -> dict[str, Any]:
        names = field_names(item) if self._columns is None else self._columns
        fields = {name: read_field(item, name) for name in names}
        if self.soft_delete is not None:
            fields[self.soft_delete.column] = self.soft_delete.live_for(self.soft_delete.deleted)
        return fields


class MemorySource:
    """A source in memory; give the object itself as `fetch_external`.

    Args:
        items: What it gives. The list may be changed between runs.
        page_size: Items per page; by default it yields single items.
        breaks_after: Raise `error` when so many items have been given.
        error: What it raises then.
        asynchronous: True to be an async generator.
    """

    def __init__(
        self,
        items: Iterable[Any],
        *,
        page_size: int | None = None,
        breaks_after: int | None = None,
        error: Exception | None = None,
        asynchronous: bool = False,
    ) -> None:
        self.items = list(items)
        self.page_size = page_size
        self.breaks_after = breaks_after
        self.error = error or ConnectionError("the source broke off")
        self.asynchronous = asynchronous
        self.calls = 0
        """How often it was asked."""
        self.given = 0
        """How many items it gave, over all calls."""
        self.closed = 0
        """How many of its generators have ended, whichever way."""

    def __call__(self) -> Generator[Any] | AsyncGenerator[Any]:
        """Begins a fetch."""
        self.calls += 1
        return self._give_async() if self.asynchronous else self._give()

    def _give(self) -> Generator[Any]:
        try:
            for page in self._pages():
                self.given += len(page) if self.page_size else 1
                yield page
            if self.breaks_after is not None:
                raise self.error
        finally:
            self.closed += 1

    async def _give_async(self) -> AsyncGenerator[Any]:
        with closing(self._give()) as pages:
            for page in pages:
                yield page

    def _pages(self) -> Iterator[Any]:
        items = self.items[: self.breaks_after]
        return batches(items, self.page_size) if self.page_size else iter(items)


def _fail_on_request(fails: Mapping[str, Exception], external_id: str) -> None:
    if external_id in fails:
        raise fails[external_id]


def _same(old: Any, new: Any) -> bool:
    """True for equal values; True and 1 are not equal, two NaN are."""
    if isinstance(old, bool) != isinstance(new, bool):
        return False
    return bool(old == new) or bool(old != old and new != new)  # noqa: PLR0124 - the definition of NaN
