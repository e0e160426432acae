"""The transactions of an opened table, one of which several writes may share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from sync_pipelines.database.faults import TargetStateError
from sync_pipelines.errors import RetryableError
from sync_pipelines.targets.db_errors import passing_failures
from sync_pipelines.targets.dialects.profile import DialectProfile


def commits_by_itself(connection: sa.Connection) -> bool:
    """True if each statement is a transaction of its own, as an `Engine` may ask for."""
    driver_connection = connection.connection.dbapi_connection
    dialect = connection.dialect
    if dialect.name != "postgresql" or driver_connection is None:
        return False
    return dialect.detect_autocommit_setting(driver_connection)


@contextmanager
def checked_together(connection: sa.Connection) -> Iterator[None]:
    """Has all that may be deferred checked at the end of the block: not by each statement, nor with other rows."""
    is_postgresql = connection.dialect.name == "postgresql" and not commits_by_itself(connection)
    if is_postgresql:
        connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
    yield
    if is_postgresql:
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


class Transactions:
    """Connections to read and transactions to write with. One may be shared by all that is done for a while."""

    def __init__(self, database: sa.Engine, profile: DialectProfile) -> None:
        self.fence: Callable[[sa.Connection], object] | None = None
        self._database = database
        self._profile = profile
        self._shared: sa.Connection | None = None

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Opens a connection to read with: within `together` that one, for a pool may have no other."""
        if self._shared is not None:
            with self._part_of(self._shared) as shared:
                yield shared
            return
        with (
            passing_failures(self._database),
            self._database.connect() as connection,
            self._profile.in_order(connection),
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Opens a transaction to write in; within `together` a part of that one, undone by itself if it fails."""
        if self._shared is None:
            with self._begun() as connection:
                self._check_fence(connection)
                with checked_together(connection):
                    yield connection
            return
        with self._part_of(self._shared) as shared, checked_together(shared):
            yield shared

    @contextmanager
    def together(self) -> Iterator[sa.Connection | None]:
        """Opens one transaction for all that is written in the block, and for what else the caller writes in it.

        None where the caller's `Engine` commits each statement by itself.

        A row that the database refuses leaves the others in it. Once the connection fails, all of it is undone: then
        every further write raises `TargetError`.
        """
        with self._begun() as connection:
            if commits_by_itself(connection):
                yield None
                return
            self._check_fence(connection)
            self._shared = connection
            try:
                yield connection
            finally:
                self._shared = None

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        with (
            passing_failures(self._database),
            self._database.begin() as connection,
            self._profile.in_order(connection),
        ):
            yield connection

    def _check_fence(self, connection: sa.Connection) -> None:
        if self.fence is not None:
            self.fence(connection)

    @contextmanager
    def _part_of(self, shared: sa.Connection) -> Iterator[sa.Connection]:
        try:
            with passing_failures(self._database), shared.begin_nested():
                yield shared
        except RetryableError as error:
            raise TargetStateError(str(error)) from error
