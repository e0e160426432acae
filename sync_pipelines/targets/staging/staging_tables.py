"""Staging tables: what they have in common on every database. They are caches, and may go at any time."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from sync_pipelines.engine.staged_target import Batch, StagingRequest
from sync_pipelines.targets.types.sqlalchemy_types import NamedType

FAST, SLOW, FAILED, SKIPPED = range(4)
"""Routes of staged items: compared by the database; looked at one by one; failed already; left alone by the job."""

RECORDED = "recorded"
"""The table of what has been written and is not in the ledger yet."""
_TYPES = {
    "sp_n": sa.BigInteger(),  # place in the fetch
    "sp_kept": sa.BigInteger(),  # place of the item that replaces another
    "sp_route": sa.SmallInteger(),
    "sp_what": sa.SmallInteger(),
    "rowid": sa.BigInteger(),
}


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a staging table is: in units of its own, and in rows."""

    units: int
    rows: int

    def batches(self, rows_each: int) -> list[Batch]:
        """Cuts the table into batches of about so many rows."""
        if not self.units or not self.rows:
            return []
        step = max(1, round(self.units * rows_each / self.rows))
        return [Batch(first, min(first + step, self.units)) for first in range(0, self.units, step)]


@dataclass(frozen=True, slots=True)
class Done:
    """A batch of a staging table that has been applied, and what became of its rows."""

    part: str
    batch: Batch
    counts: Mapping[str, int]


class StagingTables(ABC):
    """The staging tables of one run."""

    smallest_units = 1
    """A batch of so many units is not worth halving; its rows are looked at one by one."""
    place = "ctid"
    """The column that says where in a staging table a row lies."""
    has_addresses = False
    """True if a plan can keep the address of a local row."""
    notes_with_rows = True
    """True if what has been applied is noted in the very transaction that writes it."""
    is_unicode = True
    """False if the database can't hold all characters."""
    outlives_session = True
    """False for tables that go with the connection."""
    lost_connections = 0
    """How often the connection was lost and another one took its place."""

    def __init__(self, request: StagingRequest, schema: str | None) -> None:
        self.schema = schema
        self.request = request
        self._sync, self._run = short_sync(request), _short(request.run_id)
        self._progress = sa.Table(
            "progress" if schema else self.full_name("progress"),  # a temporary one must hide no table of the user's
            sa.MetaData(schema=schema),
            sa.Column("run", sa.String(20), primary_key=True),
            sa.Column("part", sa.String(20), primary_key=True),
            sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("past", sa.BigInteger, nullable=False),
            sa.Column("counts", sa.Text, nullable=False),
        )

    @abstractmethod
    def begin(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that sees the staging tables."""

    @abstractmethod
    def create_as(self, connection: sa.Connection, name: str, query: sa.Select[Any], *, empty: bool = False) -> None:
        """Makes a staging table of what a query gives, or of its columns only; an older one is replaced."""

    def forget_attempt(self) -> None:
        """Drops what an attempt that broke off has planned: what follows may break off as well."""
        self.drop("quarantine", "plan", "diffs", "export")

    def make_stage(self, connection: sa.Connection, query: sa.Select[Any]) -> None:
        """Makes the empty staging table with the columns of a query."""
        self.create_as(connection, "stage", query, empty=True)

    def analyze(self, connection: sa.Connection, name: str) -> None:  # noqa: B027 - not every database has a planner
        """Lets the planner know a staging table, where there is a planner that wants to."""

    @abstractmethod
    def load(self, columns: Sequence[str], values: Sequence[Any]) -> None:
        """Appends rows to the staging table, which is given column by column; may go on in the background."""

    @abstractmethod
    def finish_loading(self, key: Sequence[str], *, look_up: bool) -> None:
        """Waits for what is being loaded, and prepares it for joins on the key.

        Args:
            key: The key columns.
            look_up: True if rows will be looked for by their key.
        """

    def allow_more(self, connection: sa.Connection) -> None:  # noqa: B027 - not every database has such limits
        """Lets the queries of this transaction take what a large comparison needs, where the database has limits."""

    @abstractmethod
    def extent(self, connection: sa.Connection, name: str) -> Extent:
        """How large a staging table is."""

    @abstractmethod
    def within(self, table: sa.FromClause, batch: Batch) -> sa.ColumnElement[bool]:
        """The condition that a row of a staging table lies in the batch."""

    @abstractmethod
    def drop(self, *names: str) -> None:
        """Removes staging tables of this run."""

    @abstractmethod
    def is_there(self, name: str, *, has_rows: bool = True) -> bool:
        """True if there is such a staging table of this run, and with rows in it unless they do not matter."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what was held."""

    def full_name(self, name: str) -> str:
        """The name of a staging table of this run: of the sync, so that its leftovers are known, and of the run."""
        return f"{name}_{self._sync}_{self._run}"

    @property
    def lasting_schema(self) -> str | None:
        """Where tables are that all runs of the sync share."""
        return self.schema

    def table(self, name: str, *columns: str) -> sa.Table:
        """A staging table of this run, to build statements with."""
        names = dict.fromkeys([*columns, self.place])
        return sa.Table(
            self.full_name(name),
            sa.MetaData(),
            *(sa.Column(each, _TYPES.get(each, NamedType(""))) for each in names),
            schema=self.schema,
        )

    def address(self, table: sa.Table) -> sa.ColumnElement[Any]:
        """The address of a local row; only where there are any."""
        raise NotImplementedError

    def done(self, connection: sa.Connection) -> list[Done]:
        """What has been applied of this run."""
        table = self._progress
        rows = connection.execute(sa.select(table).where(table.c.run == self._run).order_by(table.c.first))
        return [Done(row.part, Batch(row.first, row.past), json.loads(row.counts)) for row in rows]

    def note_done(self, connection: sa.Connection, done: Done) -> None:
        """Notes that a batch has been applied."""
        values = {"part": done.part, "first": done.batch.first, "past": done.batch.end}
        counts = json.dumps(dict(done.counts))
        connection.execute(sa.insert(self._progress).values(run=self._run, counts=counts, **values))

    def forget_done(self, connection: sa.Connection) -> None:
        """Forgets what has been applied of this run."""
        connection.execute(sa.delete(self._progress).where(self._progress.c.run == self._run))


def lasting_name(request: StagingRequest, name: str) -> str:
    """The name of a table that all runs of the sync share."""
    return f"{name}_{short_sync(request)}"


def short_sync(request: StagingRequest) -> str:
    """The sync in short: that of one ledger."""
    return _short(f"{request.owner}/{request.job}")


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]
