"""Keeps the ledger: what runs did, how far they got, which items failed."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, delete, event, func, insert, select, update

from sync_pipelines.database.connections import SQLITE_BUSY_TIMEOUT_S, Limits, create_database, database_url, file_of
from sync_pipelines.database.ledger_faults import ledger_failures
from sync_pipelines.database.migrate import migrate
from sync_pipelines.database.private_files import make_private_file, make_private_folder
from sync_pipelines.database.tables import LedgerTables, ledger_tables
from sync_pipelines.errors import ConfigurationError

_INSERT_ROWS = 1_000
_BETWEEN_ATTEMPTS_S = 0.01


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Holds one failed item as the ledger keeps it."""

    position: int
    external_id: str | None
    exception_type: str
    message: str
    trace: str | None = None


def error_row_of(row: Row[Any]) -> ErrorRow:
    """Returns a failed item out of its row."""
    return ErrorRow(row.position, row.external_id, row.exception_type, row.message, row.trace)


@dataclass(frozen=True, slots=True)
class RunRow:
    """Holds one run as the ledger keeps it. Times are aware."""

    id: str
    job: str
    kind: str
    dagster_run_id: str | None
    options: Mapping[str, Any]
    started_at: datetime
    apply_started_at: datetime | None = None
    completed_at: datetime | None = None
    outcome: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    phase_ms: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: str | None = None
    applied_all: bool = False
    no_deletes: bool = False
    completeness: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """Reads and writes the ledger's tables; each method is one transaction.

    Args:
        database: The ledger's database, migrated.
    """

    def __init__(self, database: Engine) -> None:
        self.database = database
        self.tables: LedgerTables = ledger_tables(database.dialect.name)
        self._open = threading.local()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Makes one transaction of all that this thread does with the ledger in the block, which must be quick."""
        with self.transaction() as connection:
            outer = getattr(self._open, "connection", None)
            self._open.connection = connection
            try:
                yield
            finally:
                self._open.connection = outer

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Opens a transaction, or goes on in that of `together`; fails the run clearly if the ledger does not answer.

        Raises:
            UnavailableError: The ledger does not answer just now.
            RunError: It can't be used until a person acts.
        """
        together = getattr(self._open, "connection", None)
        if together is not None:
            yield together
            return
        with ledger_failures(self.database), self.database.begin() as connection:
            yield connection

    @contextmanager
    def impatient(self, wait_s: float) -> Iterator[Connection]:
        """Opens a transaction as `transaction` does, which waits no longer than that for somebody else's lock.

        Raises:
            LedgerLockedError: Somebody else has the lock still.
        """
        if getattr(self._open, "connection", None) is not None or self.database.dialect.name == "postgresql":
            with self.transaction() as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(wait_s * 1000)}")
                yield connection
            return
        with ledger_failures(self.database), self.database.connect() as connection:  # in SQLite it is for all of it
            raw: Any = connection.connection.driver_connection
            before = raw.execute("PRAGMA busy_timeout").fetchone()[0]
            raw.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}").close()
            try:
                with connection.begin():
                    yield connection
            finally:
                if not connection.invalidated:  # which whatever ends the process does
                    raw.execute(f"PRAGMA busy_timeout = {before}").close()

    def is_in(self, connection: Connection) -> bool:
        """True if the connection is to the PostgreSQL that has the ledger, as the same role."""
        own, other = (each.url.set(password=None, drivername="p") for each in (self.database, connection.engine))
        return connection.dialect.name == "postgresql" and own == other

    def jobs_having(self, table: Table, *conditions: ColumnElement[bool]) -> list[str]:
        """Returns the jobs of which a table has such a row; looks once into its index for each job that it knows.

        Args:
            conditions: What the row must be like, of columns of the table.
        """
        jobs = select(func.min(table.c.job).label("job")).cte("jobs", recursive=True)
        following = select(func.min(table.c.job)).where(table.c.job > jobs.c.job).scalar_subquery()
        jobs = jobs.union_all(select(following).where(jobs.c.job.is_not(None)))
        has_one = select(1).select_from(table).where(table.c.job == jobs.c.job, *conditions).exists()
        with self.transaction() as connection:
            return list(connection.scalars(select(jobs.c.job).where(jobs.c.job.is_not(None), has_one)))

    def start_run(self, run: RunRow) -> None:
        """Notes that a run has begun."""
        with self.transaction() as connection:
            connection.execute(
                insert(self.tables.runs).values(
                    id=run.id,
                    job=run.job,
                    kind=run.kind,
                    dagster_run_id=run.dagster_run_id,
                    options=dict(run.options),
                    started_at=run.started_at,
                )
            )

    def run(self, run_id: str) -> RunRow | None:
        """Returns the run of that id."""
        return next(iter(self.find_runs(self.tables.runs.c.id == run_id, 1)), None)

    def latest_runs(self, job: str, limit: int = 20) -> list[RunRow]:
        """Returns the newest runs of a sync job, newest first."""
        return self.find_runs(self.tables.runs.c.job == job, limit)

    def run_of_dagster(self, dagster_run_id: str, job: str | None = None) -> RunRow | None:
        """Returns the newest run (of that job) that the Dagster run carried out, or went on with."""
        runs = self.tables.runs
        condition = runs.c.dagster_run_id == dagster_run_id
        return next(iter(self.find_runs(condition if job is None else condition & (runs.c.job == job), 1)), None)

    def find_runs(self, condition: ColumnElement[bool], limit: int) -> list[RunRow]:
        """Returns the runs of which a condition holds, newest first."""
        runs = self.tables.runs
        query = select(runs).where(condition).order_by(runs.c.started_at.desc(), runs.c.id).limit(limit)
        with self.transaction() as connection:
            return [_run_row(row) for row in connection.execute(query)]

    def forget_runs(self, before: datetime) -> int:
        """Forgets runs that began before that time, with their errors, except the newest of each sync job.

        Returns:
            How many runs were forgotten.
        """
        runs = self.tables.runs
        others = runs.alias("others")
        newest = select(func.max(others.c.started_at)).where(others.c.job == runs.c.job).scalar_subquery()
        with self.transaction() as connection:
            old = select(runs.c.id).where(runs.c.started_at < before, runs.c.started_at < newest)
            ids = connection.scalars(old).all()
            for start in range(0, len(ids), _INSERT_ROWS):
                part = ids[start : start + _INSERT_ROWS]
                for table in (self.tables.run_errors, self.tables.run_batches, self.tables.run_causes):
                    connection.execute(delete(table).where(table.c.run_id.in_(part)))
                connection.execute(delete(runs).where(runs.c.id.in_(part)))
        return len(ids)

    def save_phase(  # noqa: PLR0913 - one row
        self,
        run_id: str,
        phase: str,
        duration_ms: int,
        *,
        notes: Sequence[str] = (),
        dagster_run_id: str | None = None,
        completeness: Mapping[str, Any] | None = None,
    ) -> RunRow:
        """Notes how long a phase took and what a person should know of it. A repeated phase counts anew.

        Args:
            completeness: What the source of the run said of its end; None to leave it.

        Returns:
            The run as it is now.
        """
        runs = self.tables.runs
        with self.transaction() as connection:
            run = _run_row(connection.execute(select(runs).where(runs.c.id == run_id)).one())
            run = replace(
                run,
                phase_ms={**run.phase_ms, phase: duration_ms},
                notes=(*run.notes, *(note for note in notes if note not in run.notes)),
                dagster_run_id=dagster_run_id or run.dagster_run_id,
                completeness=run.completeness if completeness is None else dict(completeness),
            )
            values = {"phase_ms": run.phase_ms, "notes": list(run.notes), "dagster_run_id": run.dagster_run_id}
            values["completeness"] = run.completeness
            connection.execute(update(runs).where(runs.c.id == run_id).values(values))
        return run

    def begin_apply(self, run_id: str, at: datetime) -> bool:
        """Notes that applying begins. True if an earlier attempt had begun and may have been broken off."""
        runs = self.tables.runs
        begins = update(runs).where(runs.c.id == run_id, runs.c.apply_started_at.is_(None)).values(apply_started_at=at)
        with self.transaction() as connection:
            has_begun = connection.execute(begins).rowcount == 0
            if has_begun:  # until it ends again, nobody knows what it has applied
                connection.execute(update(runs).where(runs.c.id == run_id).values(applied_all=False))
            return has_begun

    def save_diff_errors(self, run_id: str, errors: Iterable[ErrorRow], *, no_deletes: bool = False) -> None:
        """Keeps what a diff has found, in place of what an earlier attempt had.

        Args:
            no_deletes: True if it was to find deletes, and could not tell which records are missing.
        """
        table, runs = self.tables.run_errors, self.tables.runs
        noted = update(runs).where(runs.c.id == run_id).values(no_deletes=no_deletes)
        with self.transaction() as connection:
            connection.execute(noted)
            connection.execute(delete(table).where(table.c.run_id == run_id, table.c.phase == "diff"))
            self.insert_errors(connection, run_id, "diff", errors)

    def insert_errors(self, connection: Connection, run_id: str, phase: str, errors: Iterable[ErrorRow]) -> None:
        """Keeps items that failed in a phase of a run."""
        stream = iter(errors)
        while rows := [
            {
                "run_id": run_id,
                "phase": phase,
                "position": each.position,
                "external_id": storable(each.external_id),
                "exception_type": each.exception_type,
                "message": each.message,
                "trace": each.trace or None,
            }
            for each in islice(stream, _INSERT_ROWS)
        ]:
            connection.execute(insert(self.tables.run_errors), rows)

    def errors(self, run_id: str, limit: int | None = None) -> list[ErrorRow]:
        """Returns the errors of a run in the order of the fetch; those of deletes, which have none, come last."""
        table = self.tables.run_errors
        query = select(table).where(table.c.run_id == run_id)
        query = query.order_by(table.c.position < 0, table.c.position, table.c.id)
        with self.transaction() as connection:
            found = connection.execute(query.limit(limit) if limit is not None else query)
            return list(map(error_row_of, found))

    def count_errors(self, run_id: str) -> int:
        """Returns how many errors the ledger has of a run."""
        table = self.tables.run_errors
        with self.transaction() as connection:
            return int(connection.scalar(select(func.count()).where(table.c.run_id == run_id)) or 0)

    def finish_run(  # noqa: PLR0913 - one row
        self,
        run_id: str,
        *,
        outcome: str,
        counts: Mapping[str, int],
        failure: str | None,
        applied_all: bool,
        at: datetime,
    ) -> None:
        """Notes how a run ended.

        Args:
            applied_all: True if everything that it was to write is written; it may have failed all the same.
        """
        values = {"outcome": outcome, "counts": dict(counts), "failure": failure, "completed_at": at}
        with self.transaction() as connection:
            ended = update(self.tables.runs).where(self.tables.runs.c.id == run_id)
            connection.execute(ended.values(**values, applied_all=applied_all))


@contextmanager
def open_ledger(url: str, *, answers_within_s: float | None = None, limits: Limits | None = None) -> Iterator[Ledger]:
    """Opens the ledger, creating or upgrading its tables if need be.

    Args:
        url: The URL of the ledger's database, `sqlite:///...` or `postgresql://...`.
        answers_within_s: How long to wait for its answers, in seconds; by default as long as they take.
        limits: How long to wait for a connection, and for locks; by default as `Limits` says.

    Raises:
        ConfigurationError: The ledger can't be used until a person acts.
        UnavailableError: It does not answer just now.
    """
    parsed = database_url(url)
    if (file := file_of(parsed)) is not None:
        _make_file(file)
    database = create_database(parsed, answers_within_s=answers_within_s, limits=limits)
    if database.dialect.name == "sqlite":
        event.listen(database, "connect", _leave_transactions_to_us)
        event.listen(database, "begin", _begin_immediate)
    try:
        migrate(database)
        yield Ledger(database)
    finally:
        database.dispose()


def _make_file(file: Path) -> None:
    try:
        make_private_folder(file.parent)
        make_private_file(file)
    except OSError as error:
        raise ConfigurationError(
            f"the file {file} of the ledger can't be made: {error.strerror}. "
            "Check SYNC_PIPELINES_DATA_DIR and SYNC_PIPELINES_LEDGER_URL."
        ) from error


def storable(text: str | None) -> str | None:
    """Returns the text with its NUL characters, which PostgreSQL can't keep, written as an escape."""
    return text.replace("\x00", "\\x00") if text else text


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL").close()  # some builds of SQLite forget the last commits otherwise


def _write_ahead(connection: Any) -> None:
    """Sets the journal mode. Of processes that do so at once on a fresh file SQLite refuses all but one, unwaited."""
    give_up_at_s = time.monotonic() + SQLITE_BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at_s:
                raise
            time.sleep(_BETWEEN_ATTEMPTS_S)
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    # a transaction that first reads and then writes would otherwise fail, not wait, when another one writes
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _run_row(row: Row[Any]) -> RunRow:
    return RunRow(
        id=row.id,
        job=row.job,
        kind=row.kind,
        dagster_run_id=row.dagster_run_id,
        options=row.options,
        started_at=row.started_at,
        apply_started_at=row.apply_started_at,
        completed_at=row.completed_at,
        outcome=row.outcome,
        counts=row.counts or {},
        phase_ms=row.phase_ms or {},
        notes=tuple(row.notes or ()),
        failure=row.failure,
        applied_all=row.applied_all,
        no_deletes=row.no_deletes,
        completeness=row.completeness or {},
    )
