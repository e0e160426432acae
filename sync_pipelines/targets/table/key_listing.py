"""Lists the keys of the rows that a sync may delete, streamed or page by page."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.pages import batches
from sync_pipelines.targets.dialects.profile import DialectProfile
from sync_pipelines.targets.table.scope import Scope
from sync_pipelines.targets.table.soft_delete import Mark
from sync_pipelines.targets.table.transactions import Transactions
from sync_pipelines.targets.types.codec import ColumnCodec
from sync_pipelines.targets.types.sqlalchemy_types import AsGiven

_IDS_PER_PAGE = 5_000


class KeyLister:
    """Lists keys of one table.

    Args:
        table: The table.
        key: Its key columns.
        mark: The column that marks deleted rows, if there is one.
        scope: The rows that the sync answers for.
        transactions: Give connections.
        profile: How the database is worked with.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        table: sa.Table,
        key: Sequence[ColumnCodec],
        mark: Mark | None,
        scope: Scope,
        transactions: Transactions,
        profile: DialectProfile,
    ) -> None:
        self._key = key
        self._mark = mark
        self._scope = scope
        self._transactions = transactions
        self._in_pages = profile.lists_in_pages
        self._profile = profile
        self._key_columns = [table.c[codec.name] for codec in key]
        self._judged = [] if mark is None else [mark.codec]
        self._judged += [each.codec for each in scope.columns]
        # what the database leaves out need not be read; where it is not sure, each row is judged again
        conditions: list[sa.ColumnElement[bool]] = [column.is_not(None) for column in self._key_columns]
        conditions += [each.condition(table.c[each.codec.name]) for each in scope.columns]
        if mark is not None and mark.is_compared_exactly:
            conditions.append(mark.is_off(table.c[mark.name]))
        self._columns = [*self._key_columns, *(table.c[codec.name] for codec in self._judged)]
        self._conditions = conditions

    def listed(self) -> Iterator[list[Any]]:
        """The canonical keys of all rows that are in the scope and not marked; rows without a key are left out.

        Raises:
            RetryableError: The database can't be reached.
        """
        rows = self._rows_in_pages() if self._in_pages else self._rows_in_stream()
        with closing(rows):
            for page in batches(rows, _IDS_PER_PAGE):
                kept = [row for row in page if self._may_be_deleted(row)] if self._judged else page
                for number, codec in enumerate(self._key):
                    codec.expect_ids([row[number] for row in kept])
                for row in kept:
                    yield [codec.from_database(value) for codec, value in zip(self._key, row, strict=False)]

    def _may_be_deleted(self, row: Sequence[Any]) -> bool:
        values = zip(self._judged, row[len(self._key) :], strict=True)
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
        bare = [sa.type_coerce(column, AsGiven()) for column in self._key_columns]  # as it lies there, to go on from
        statement = sa.select(*self._columns, *bare).where(*self._conditions).order_by(*bare).limit(_IDS_PER_PAGE)
        page: Sequence[Sequence[Any]] = self._page(statement)
        while page:
            yield from (row[:size] for row in page)
            page = self._page(statement.where(self._profile.after(bare, page[-1][size:])))

    def _page(self, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        with self._transactions.reading() as connection:
            return connection.execute(statement).all()
