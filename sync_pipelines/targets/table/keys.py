"""The key of a table: external ids to values of its columns and back, and the ids that a sync may delete."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import product
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.json_text import parse_json
from sync_pipelines.engine.pages import batches
from sync_pipelines.errors import ItemError
from sync_pipelines.targets.table.reflection import ReflectedTable
from sync_pipelines.targets.table.scope import Scope
from sync_pipelines.targets.table.soft_delete import Mark
from sync_pipelines.targets.table.transactions import Transactions
from sync_pipelines.targets.types.codec import ColumnCodec, id_of
from sync_pipelines.targets.types.sqlalchemy_types import AsGiven
from sync_pipelines.targets.types.unwrap import shortened

_IDS_PER_PAGE = 5_000


class TableKey:
    """The key columns of one table."""

    def __init__(self, table: sa.Table, codecs: Sequence[ColumnCodec]) -> None:
        self.codecs = tuple(codecs)
        self.columns = [table.c[codec.name] for codec in self.codecs]

    def canonical_id(self, external_id: str) -> str:
        """Returns the external id as the key columns would give it back: "7" for "007" and an integer key."""
        return self.id_of_key(self.key_of_id(external_id))

    def key_of_id(self, external_id: str) -> list[Any]:
        """Returns the canonical values of the key columns; `ItemError` if the id does not convert to their types."""
        parts = self._parts(external_id)
        return [codec.key_from_id(part) for codec, part in zip(self.codecs, parts, strict=True)]

    def id_of_key(self, key: Sequence[Any]) -> str:
        """Returns the external id of canonical values of the key columns."""
        return id_of([codec.id_part(value) for codec, value in zip(self.codecs, key, strict=True)])

    def forms_of(self, key: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Yields the keys that the database may have for that one: where a column has no type, 1 and "1" are one id."""
        return product(
            *(
                [value] if codec.key_forms is None else codec.key_forms(value)
                for codec, value in zip(self.codecs, key, strict=True)
            )
        )

    def expect_ids(self, external_ids: Sequence[str]) -> None:
        """Takes note of external ids that are about to be converted, for a database with a way of its own with text."""
        if all(codec.expect is None for codec in self.codecs):
            return
        keys: list[Sequence[Any]] = []
        for external_id in external_ids:
            with suppress(ItemError):
                keys.append(self._parts(external_id))
        self.expect_keys(keys)

    def expect_keys(self, keys: Sequence[Sequence[Any]]) -> None:
        """Does as `expect_ids` for values of the key columns, which each of the sequences begins with."""
        for number, codec in enumerate(self.codecs):
            if codec.expect is not None:
                codec.expect_ids([key[number] for key in keys])

    def _parts(self, external_id: str) -> list[Any]:
        if len(self.codecs) == 1:
            return [external_id]
        try:
            parts = parse_json(external_id)
        except ValueError:
            parts = None
        if not isinstance(parts, list) or len(parts) != len(self.codecs):
            names = ", ".join(codec.name for codec in self.codecs)
            raise ItemError(
                f"the external id {shortened(external_id)} is not a JSON array of the key columns ({names})",
                external_id=external_id,
            )
        return parts


class KeyLister:
    """Lists the external ids of the rows of one table that a sync may delete, streamed or page by page."""

    def __init__(
        self, reflected: ReflectedTable, key: TableKey, mark: Mark | None, scope: Scope, transactions: Transactions
    ) -> None:
        table = reflected.table
        self._key = key
        self._mark = mark
        self._scope = scope
        self._transactions = transactions
        self._profile = reflected.profile
        self._judged = [] if mark is None else [mark.codec]
        self._judged += [column.codec for column in scope.columns]
        # what the database leaves out need not be read; where it is not sure, each row is judged again
        self._conditions: list[sa.ColumnElement[bool]] = [column.is_not(None) for column in key.columns]
        self._conditions += [column.condition(table.c[column.codec.name]) for column in scope.columns]
        if mark is not None and mark.is_compared_exactly:
            self._conditions.append(mark.is_off(table.c[mark.name]))
        self._columns = [*key.columns, *(table.c[codec.name] for codec in self._judged)]

    def list_ids(self) -> Iterator[str]:
        """Yields the canonical ids of all rows that are in the scope, are not marked and have a key."""
        rows = self._rows_in_pages() if self._profile.lists_in_pages else self._rows_in_stream()
        codecs, id_of_key = self._key.codecs, self._key.id_of_key
        with closing(rows):
            for page in batches(rows, _IDS_PER_PAGE):
                kept = [row for row in page if self._may_be_deleted(row)] if self._judged else page
                self._key.expect_keys(kept)
                for row in kept:
                    key = [codec.key_from_database(value) for codec, value in zip(codecs, row, strict=False)]
                    if None not in key:  # no item can mean that row
                        yield id_of_key(key)

    def _may_be_deleted(self, row: Sequence[Any]) -> bool:
        values = zip(self._judged, row[len(self._key.codecs) :], strict=True)
        local = {codec.name: codec.from_database(value) for codec, value in values}
        return self._scope.has(local) and not (self._mark is not None and self._mark.is_set(local))

    def _rows_in_stream(self) -> Generator[Sequence[Any]]:
        statement = sa.select(*self._columns).where(*self._conditions)
        with (
            self._transactions.reading() as connection,
            connection.execution_options(yield_per=_IDS_PER_PAGE).execute(statement) as result,
        ):
            yield from result

    def _rows_in_pages(self) -> Generator[Sequence[Any]]:
        """Reads on from the last key with each page, so that no result stays half-read."""
        size = len(self._columns)
        bare = [sa.type_coerce(column, AsGiven()) for column in self._key.columns]  # as it lies there, to go on from
        statement = sa.select(*self._columns, *bare).where(*self._conditions).order_by(*bare).limit(_IDS_PER_PAGE)
        page: Sequence[Sequence[Any]] = self._page(statement)
        while page:
            yield from (row[:size] for row in page)
            page = self._page(statement.where(self._profile.after(bare, page[-1][size:])))

    def _page(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        with self._transactions.reading() as connection:
            return connection.execute(statement).all()
