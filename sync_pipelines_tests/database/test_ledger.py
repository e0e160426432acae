"""The ledger: its migrations, and what it remembers, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.batches import BATCH, EARLIER, REFUSED, STAGED, Batches, BatchKey, BatchRow
from sync_pipelines.database.connections import create_database
from sync_pipelines.database.inbox import APPLIED, FAILED, Completed, Inbox
from sync_pipelines.database.ledger import ErrorRow, RunRow, open_ledger
from sync_pipelines.database.migrate import HEAD
from sync_pipelines.database.tables import ledger_tables
from sync_pipelines.errors import ConfigurationError, UnavailableError
from sync_pipelines_tests.children import Child
from sync_pipelines_tests.database.migrating import take_back
from sync_pipelines_tests.quick_ledger import migrated_ledgers, quick_ledgers
from sync_pipelines_tests.quick_sqlite import durable_sqlite

REPOSITORY = Path(__file__).parents[2]
AT = datetime(2024, 5, 6, 12, 30, tzinfo=UTC)


def run_row(number: int = 1, **fields: Any) -> RunRow:
    given: dict[str, Any] = {"id": f"run-{number}", "job": "stock", "kind": "full", "dagster_run_id": None}
    return RunRow(**{**given, "options": {}, "started_at": AT + timedelta(minutes=number), **fields})


def differences(database: sa.Engine, metadata: sa.MetaData) -> list[Any]:
    """What Alembic would change in the tables there, to make them those of the model."""

    def include(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name == metadata.schema
        return kind != "table" or (name or "").startswith("sync_") or metadata.schema is not None

    with database.connect() as connection:
        options = {"compare_type": True, "include_schemas": True, "include_name": include}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    version_tables = {"alembic_version", "sync_alembic_version"}
    return [each for each in found if each[0] != "remove_table" or each[1].name not in version_tables]


class TestMigrations:
    @pytest.fixture(autouse=True)
    def _migrated(self) -> Iterator[None]:
        with migrated_ledgers():
            yield

    def test_head_is_the_newest_migration_of_a_single_line(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(REPOSITORY / "sync_pipelines" / "database" / "migrations"))
        config.set_main_option("path_separator", "os")
        assert ScriptDirectory.from_config(config).get_heads() == [HEAD]

    def test_the_migrated_tables_are_those_of_the_model(self, database_url: str, database: sa.Engine) -> None:
        with open_ledger(database_url) as ledger:
            assert differences(database, ledger.tables.metadata) == []

    def test_the_ledgers_that_other_tests_open_have_the_same_tables(self, database_url: str, sqlite_url: str) -> None:
        """Those tests send again what Alembic sent to the first ledger, see `quick_ledger.py`."""
        with quick_ledgers(), open_ledger(f"{sqlite_url}-first"), open_ledger(database_url) as ledger:
            assert differences(ledger.database, ledger.tables.metadata) == []

    def test_on_postgresql_everything_is_in_a_schema_of_its_own(self, postgres_url: str, postgres: sa.Engine) -> None:
        """Dagster puts `runs`, `jobs` and `alembic_version` into `public`."""
        with open_ledger(postgres_url):
            pass
        assert sa.inspect(postgres).get_table_names(schema="public") == []
        tables = sa.inspect(postgres).get_table_names(schema="sync_pipelines")
        ours = [table.name for table in ledger_tables("postgresql").metadata.tables.values()]
        assert sorted(tables) == sorted([*ours, "alembic_version"])
        assert {"runs", "run_errors", "run_batches", "inbox"} <= set(tables)

    def test_on_sqlite_everything_has_a_prefix(self, sqlite_url: str, sqlite: sa.Engine) -> None:
        with open_ledger(sqlite_url):
            pass
        tables = sa.inspect(sqlite).get_table_names()
        assert sorted(tables) == sorted([*ledger_tables("sqlite").metadata.tables, "sync_alembic_version"])
        assert all(name.startswith("sync_") for name in tables)

    def test_it_lives_beside_the_tables_of_others(self, database_url: str, database: sa.Engine) -> None:
        with database.begin() as connection:
            for name in ("runs", "inbox", "alembic_version"):
                connection.exec_driver_sql(f"CREATE TABLE {name} (other TEXT)")
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            assert ledger.run("run-1") is not None
        with database.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 0

    def test_opening_again_keeps_what_is_there(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
        with open_ledger(database_url) as ledger:
            assert ledger.run("run-1") is not None

    def test_processes_that_open_a_fresh_ledger_at_once_wait_for_each_other(
        self, database_url: str, tmp_path: Path
    ) -> None:
        code = (
            "import sys, time; from pathlib import Path\n"
            "from sync_pipelines.database.ledger import open_ledger\n"
            "import alembic.command, alembic.config, alembic.util\n"
            "Path(sys.argv[2]).touch()\n"
            "while not Path(sys.argv[3]).exists(): time.sleep(0.001)\n"
            "with open_ledger(sys.argv[1]) as ledger: ledger.latest_runs('stock')\n"
        )
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath}
        ready, go = [tmp_path / f"ready{number}" for number in range(4)], tmp_path / "go"
        processes = [
            Child(
                [sys.executable, "-c", code, database_url, str(each), str(go)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for each in ready
        ]
        for process, each in zip(processes, ready, strict=True):
            process.wait_until(each.exists, "is not ready")
        go.touch()
        assert [process.finish() for process in processes] == [("", "")] * 4
        assert [process.returncode for process in processes] == [0] * 4

    def test_a_ledger_of_a_newer_version_is_refused(self, database_url: str, database: sa.Engine) -> None:
        with open_ledger(database_url):
            pass
        table = "sync_alembic_version" if database.dialect.name == "sqlite" else "sync_pipelines.alembic_version"
        with database.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET version_num = '9999'")
        with pytest.raises(ConfigurationError, match="has version 9999, which this sync_pipelines does not know"):
            open_ledger(database_url).__enter__()

    def test_a_migration_may_be_taken_back(self, database_url: str, database: sa.Engine) -> None:
        with open_ledger(database_url) as ledger:
            schema = ledger.tables.metadata.schema
            take_back(ledger, "base")
        left = sa.inspect(database).get_table_names(schema=schema)
        assert [name for name in left if "alembic" not in name] == []


class TestWhatCannotBeOpened:
    def test_a_folder_that_cannot_be_made_names_the_setting(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATA_DIR"):
            open_ledger(f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}").__enter__()

    def test_a_file_that_is_no_database_names_the_setting(self, tmp_path: Path) -> None:
        (tmp_path / "ledger.sqlite").write_text("Dear diary, " * 500)
        with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATA_DIR"):
            open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}").__enter__()

    def test_a_folder_where_the_file_should_be_names_the_setting(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATA_DIR"):
            open_ledger(f"sqlite:///{tmp_path}").__enter__()

    def test_a_server_that_is_away_names_the_setting_and_hides_the_password(self, tmp_path: Path) -> None:
        url = f"postgresql://me:hunter22@/db?host={tmp_path}"
        with pytest.raises(UnavailableError, match=r"may work later.*SYNC_PIPELINES_LEDGER_URL") as caught:
            open_ledger(url).__enter__()
        assert "hunter22" not in str(caught.value)

    @pytest.mark.parametrize("url", ["no url", "oracle://x/y", "postgresql://me:pass/word@host/db"])
    def test_a_url_that_makes_no_sense_is_a_configuration_error(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            open_ledger(url).__enter__()
        assert "pass" not in str(caught.value).replace("password", "")


class TestRuns:
    def test_a_run_is_remembered_from_start_to_end(self, database_url: str) -> None:
        berlin = timezone(timedelta(hours=2))
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row(options={"limit": 5, "only": ["Größe"]}, started_at=AT.astimezone(berlin)))
            ledger.save_phase("run-1", "fetch", 12, notes=["one"], dagster_run_id="d-1")
            ledger.save_phase("run-1", "apply", 7, notes=["one", "two"])
            ledger.save_phase("run-1", "fetch", 15)
            ledger.finish_run("run-1", outcome="clean", counts={"fetched": 3}, failure=None, applied_all=True, at=AT)
            assert ledger.run("run-1") == RunRow(
                id="run-1",
                job="stock",
                kind="full",
                dagster_run_id="d-1",
                options={"limit": 5, "only": ["Größe"]},
                started_at=AT,
                completed_at=AT,
                outcome="clean",
                counts={"fetched": 3},
                phase_ms={"fetch": 15, "apply": 7},
                notes=("one", "two"),
                applied_all=True,
            )
            assert ledger.run_of_dagster("d-1") == ledger.run("run-1")
            assert (ledger.run("nobody"), ledger.run_of_dagster("nobody")) == (None, None)

    def test_the_latest_runs_come_first(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            for number in (2, 3, 1):
                ledger.start_run(run_row(number))
            ledger.start_run(run_row(9, job="other"))
            assert [run.id for run in ledger.latest_runs("stock", 2)] == ["run-3", "run-2"]

    def test_applying_begins_once(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            assert [ledger.begin_apply("run-1", AT) for _ in range(3)] == [False, True, True]

    def test_an_attempt_that_goes_on_with_the_applying_leaves_unknown_what_is_applied(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            ledger.begin_apply("run-1", AT)
            ledger.finish_run("run-1", outcome="failed", counts={}, failure="on_complete", applied_all=True, at=AT)
            assert AppliedSince(ledger, "stock").uncertain_since() is None
            ledger.begin_apply("run-1", AT)
            assert AppliedSince(ledger, "stock").uncertain_since() == run_row().started_at

    def test_a_batch_is_noted_with_its_errors_or_not_at_all(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            batches, key = Batches(ledger), BatchKey(number=0)
            batches.save("run-1", key, {"created": 2}, [ErrorRow(5, "A", "ValueError", "no")], AT)
            with pytest.raises(sa.exc.IntegrityError):
                batches.save("run-1", key, {"created": 9}, [ErrorRow(6, "B", "ValueError", "no")], AT)
            assert batches.of_run("run-1") == {key: BatchRow({"created": 2})}
            assert ledger.count_errors("run-1") == 1

    def test_a_batch_that_broke_off_knows_what_is_left_and_counts_on(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            batches, first, second = Batches(ledger), BatchKey(number=0), BatchKey(number=1)
            batches.save("run-1", first, {"created": 2}, [], AT)
            errors = [ErrorRow(5, "A", "E", "x")]
            batches.save("run-1", second, {"created": 3, "failed": 1}, errors, AT, left=[4, 7])
            assert batches.of_run("run-1") == {
                first: BatchRow({"created": 2}),
                second: BatchRow({"created": 3, "failed": 1}, (4, 7)),
            }
            assert batches.of_run("run-1").done() == {0}
            batches.save("run-1", second, {"created": 1}, [], AT, left=[7])
            assert batches.of_run("run-1")[second].left == (7,)
            batches.save("run-1", second, {"updated": 1}, [], AT)
            assert batches.of_run("run-1")[second] == BatchRow({"created": 4, "failed": 1, "updated": 1})
            assert batches.of_run("run-1").done() == {0, 1}
            assert ledger.count_errors("run-1") == 1
            with pytest.raises(sa.exc.IntegrityError):
                batches.save("run-1", second, {"created": 9}, [], AT)

    def test_batches_of_one_number_in_two_parts_are_two(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            batches = Batches(ledger)
            for part in (BATCH, REFUSED):
                batches.save("run-1", BatchKey(part), {"created": 2}, [], AT)
            batches.replace("run-1", BatchKey(STAGED), {"updated": 5}, AT)
            batches.replace("run-1", BatchKey(STAGED), {"updated": 7}, AT)
            found = batches.of_run("run-1")
            assert (found.total(), found.written(), found.written(STAGED)) == ({"created": 4, "updated": 7}, 11, 7)
            assert not found.is_complete
            batches.forget("run-1")
            assert batches.of_run("run-1") == {BatchKey(EARLIER): BatchRow({"recovered": 11})}

    def test_errors_come_in_the_order_of_the_fetch_and_a_repeated_diff_replaces_its_own(
        self, database_url: str
    ) -> None:
        with open_ledger(database_url) as ledger:
            ledger.start_run(run_row())
            errors = [ErrorRow(-1, "gone", "E", "x"), ErrorRow(4, "D", "E", "x")]
            Batches(ledger).save("run-1", BatchKey(), {}, errors, AT)
            for _ in range(2):
                ledger.save_diff_errors("run-1", (ErrorRow(each, None, "E", "Größe") for each in range(2_500, 0, -1)))
            assert ledger.count_errors("run-1") == 2_502
            assert [row.position for row in ledger.errors("run-1", 5)] == [1, 2, 3, 4, 4]
            assert ledger.errors("run-1")[-1] == ErrorRow(-1, "gone", "E", "x")


class TestInbox:
    def test_deliveries_wait_in_their_order_until_they_are_settled(self, database_url: str) -> None:
        with open_ledger(database_url) as ledger:
            inbox = Inbox(ledger)
            first, second, other = (inbox.store(job, '{"a":"ß"}', AT) for job in ("stock", "stock", "other"))
            waiting = inbox.oldest_waiting("stock", 10)
            assert [(each.id, each.item, each.received_at) for each in waiting] == [
                (first, '{"a":"ß"}', AT),
                (second, '{"a":"ß"}', AT),
            ]
            assert [each.id for each in inbox.oldest_waiting("stock", 1)] == [first]
            inbox.complete([Completed(first, "A\x00", "created"), Completed(second, "B", None, "no")], AT)
            assert [inbox.count("stock", state) for state in ("waiting", APPLIED, FAILED)] == [0, 1, 1]
            assert inbox.completed("stock") == [
                Completed(second, "B", None, "no"),
                Completed(first, "A\\x00", "created"),
            ]
            assert [each.id for each in inbox.oldest_waiting("other", 10)] == [other]

    def test_two_processes_may_write_the_ledger_at_once(self, sqlite_url: str) -> None:
        """On SQLite the second one waits, even for a transaction that reads first."""
        from concurrent.futures import ThreadPoolExecutor

        with open_ledger(sqlite_url) as ledger:
            ledger.start_run(run_row())

        def write(number: int) -> None:
            with open_ledger(sqlite_url) as own:
                for each in range(10):
                    own.save_phase("run-1", f"phase-{number}-{each}", each)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        with open_ledger(sqlite_url) as ledger:
            run = ledger.run("run-1")
        assert run is not None
        assert len(run.phase_ms) == 40


class TestConnections:
    def test_a_plain_postgresql_url_means_psycopg_3(self) -> None:
        for url in ("postgresql://me@host/db", "postgres://me@host/db"):
            database = create_database(url)
            assert database.url.drivername == "postgresql+psycopg"
            database.dispose()
        database = create_database("postgresql+psycopg2://me@host/db")
        assert database.url.drivername == "postgresql+psycopg2"
        database.dispose()

    def test_sqlite_enforces_foreign_keys(self, sqlite: sa.Engine) -> None:
        with sqlite.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1

    def test_on_sqlite_a_commit_survives_a_power_cut(self, sqlite_url: str) -> None:
        with durable_sqlite(), open_ledger(sqlite_url) as ledger, ledger.transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"

    def test_the_model_knows_both_dialects(self) -> None:
        assert ledger_tables("sqlite").runs.fullname == "sync_runs"
        assert ledger_tables("postgresql").runs.fullname == "sync_pipelines.runs"
