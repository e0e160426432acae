"""What SQLite really answers in each state of the table, not what we believe that it does."""

from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.database.faults import SQLITE, State, state_of
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.database.provoked import Provoked

PROVOKED: Provoked[int, Path] = Provoked()
"""Code -> what makes SQLite say it, with a file in a folder of its own."""
_DISK = "the disk would have to fail; CORRUPT and FULL are provoked"
NOT_PROVOKED = {
    sqlite3.SQLITE_PERM: "no version in use says it",
    sqlite3.SQLITE_ABORT: "a statement that goes on over a rollback; Python's module resets it first",
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_IOERR_NOMEM: _DISK,
    sqlite3.SQLITE_IOERR_CORRUPTFS: _DISK,
    sqlite3.SQLITE_IOERR_DATA: _DISK,
    sqlite3.SQLITE_CANTOPEN_ISDIR: "only of journals; a folder in the place of the file is CANTOPEN",
    sqlite3.SQLITE_PROTOCOL: "a race of two that recover a write-ahead log",
    sqlite3.SQLITE_SCHEMA: "SQLite prepares the statement again by itself, up to 50 times",
    sqlite3.SQLITE_NOLFS: "systems without large files",
    sqlite3.SQLITE_ERROR_RETRY: "inside of SQLite only",
    sqlite3.SQLITE_ERROR_SNAPSHOT: "an interface that Python's module does not have",
}


def opened(file: Path | str, *statements: str, **options: Any) -> sqlite3.Connection:
    """Opens a connection that is closed when nobody has it any more, and carries out statements."""
    connection = sqlite3.connect(file, isolation_level=None, **{"timeout": 0, **options})
    for each in statements:
        connection.execute(each)
    return connection


@PROVOKED.by(sqlite3.SQLITE_BUSY)
def a_file_that_somebody_writes_to(file: Path) -> None:
    first = opened(file, "CREATE TABLE t (n)", "BEGIN IMMEDIATE")
    try:
        opened(file, "BEGIN IMMEDIATE")
    finally:
        first.close()


@PROVOKED.by(sqlite3.SQLITE_LOCKED)
def a_table_that_is_being_read(file: Path) -> None:
    connection = opened(file, "CREATE TABLE t (n)", "INSERT INTO t VALUES (1), (2)")
    reading = connection.execute("SELECT n FROM t")
    reading.fetchone()
    connection.execute("DROP TABLE t")


@PROVOKED.by(sqlite3.SQLITE_READONLY)
def a_file_that_may_only_be_read(file: Path) -> None:
    opened(file, "CREATE TABLE t (n)").close()
    opened(f"file:{file}?mode=ro", "INSERT INTO t VALUES (1)", uri=True)


@PROVOKED.by(sqlite3.SQLITE_INTERRUPT)
def a_statement_that_somebody_stops(file: Path) -> None:
    connection = opened(file)
    connection.set_progress_handler(lambda: 1, 1)
    connection.execute("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c")


@PROVOKED.by(sqlite3.SQLITE_CORRUPT)
def a_file_that_is_damaged(file: Path) -> None:
    rows = (
        "INSERT INTO t SELECT value FROM json_each('[' || rtrim(replace(hex(zeroblob(9000)), '0', '1,'), ',') || ']')"
    )
    opened(file, "CREATE TABLE t (n)", rows).close()
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * 4096 * 3)
    opened(file, "SELECT count(*) FROM t")


@PROVOKED.by(sqlite3.SQLITE_FULL)
def a_file_that_may_grow_no_more(file: Path) -> None:
    opened(file, "PRAGMA max_page_count = 3", "CREATE TABLE t (n)", "INSERT INTO t VALUES (zeroblob(50000))")


@PROVOKED.by(sqlite3.SQLITE_CANTOPEN)
def a_folder_that_is_not_there(file: Path) -> None:
    opened(file.parent / "nowhere" / "file")


@PROVOKED.by(sqlite3.SQLITE_AUTH)
def a_statement_that_is_not_allowed(file: Path) -> None:
    connection = opened(file)
    connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    connection.execute("CREATE TABLE t (n)")


@PROVOKED.by(sqlite3.SQLITE_NOTADB)
def a_file_of_something_else(file: Path) -> None:
    file.write_bytes(b"no database " * 1000)
    opened(file, "SELECT * FROM sqlite_master")


@PROVOKED.by(sqlite3.SQLITE_ERROR_MISSING_COLLSEQ)
def a_collation_that_nobody_has_made(file: Path) -> None:
    opened(file, "CREATE TABLE t (n TEXT)", "SELECT * FROM t ORDER BY n COLLATE nowhere")


@PROVOKED.by(sqlite3.SQLITE_NOMEM)
def memory_that_runs_out(file: Path) -> None:
    """In a process of its own: the limit is the process's, and SQLite never raises it again."""
    said = file.with_suffix(".error")
    assert exit_code(fork(_run_out_of_memory, file, said)) == 0
    raise pickle.loads(said.read_bytes())


def _run_out_of_memory(file: Path, said: Path) -> None:
    connection = opened(file, "PRAGMA hard_heap_limit = 3000000")
    try:
        connection.execute(
            "SELECT length(group_concat(hex(zeroblob(200000)))) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)"
        )
    except (sqlite3.Error, MemoryError) as error:
        said.write_bytes(pickle.dumps(error))


def test_each_code_is_provoked_or_has_a_reason_why_not() -> None:
    assert PROVOKED.keys() | NOT_PROVOKED.keys() == SQLITE.keys()
    assert not PROVOKED.keys() & NOT_PROVOKED.keys()


@pytest.mark.parametrize(("code", "state"), [(code, SQLITE[code]) for code in PROVOKED])
def test_sqlite_says_this_code_in_this_state(tmp_path: Path, code: int, state: State) -> None:
    with pytest.raises((sqlite3.Error, MemoryError)) as caught:
        PROVOKED[code](tmp_path / "file")
    assert getattr(caught.value, "sqlite_errorcode", sqlite3.SQLITE_NOMEM) in {code, code & 0xFF}
    assert state_of(caught.value) is state
