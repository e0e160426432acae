"""The user's database is somebody else's house: roles, names and tables of every kind, and nothing is left behind."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.write.staged_writer import StagedWriter
from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts

ITEMS: list[Item] = [{"sku": f"S{number}", "n": number} for number in range(20)]
TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER CHECK (n < 100))"
MIXED: list[Item] = [*ITEMS[:15], {"sku": "BAD", "n": 100}, {"sku": "ODD", "n": "many"}, {"sku": "S1", "n": 50}]


def relations(sync: Syncs) -> set[str]:
    """All that is in the user's database."""
    if sync.database.dialect.name == "sqlite":
        return {row[0] for row in sync.rows("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")}
    query = (
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relkind <> 'i'"
    )
    return {row[0] for row in sync.rows(query)}


def four_runs(sync: Syncs, **fields: Any) -> None:
    """Created, some changed and some wrong, nothing to do, and deleted."""
    given = {"columns": ["n"], **fields}
    assert counts(sync(ITEMS, **given)) == {"created": 20}
    results = sync(MIXED, **given)
    assert counts(results) == {"updated": 1, "unchanged": 14, "failed": 2, "duplicate": 1}
    assert [error.external_id for error in results.errors] == ["BAD", "ODD"]
    assert counts(sync([{"sku": "S1", "n": 50}], **given)) == {"unchanged": 1}
    assert counts(sync([{"sku": "S1", "n": 50}], **given, deletes="hard")) == {"unchanged": 1, "deleted": 19}


def test_nothing_of_ours_is_left_behind(sync: Syncs) -> None:
    """But the empty progress table in a schema of our own on PostgreSQL, whatever a run had to do."""
    sync.execute(TABLE)
    own = set() if sync.database.dialect.name == "sqlite" else {"sync_pipelines_work.progress"}
    theirs = relations(sync)
    fields: dict[str, Any] = {"columns": ["n"]}
    for items in (ITEMS, ITEMS, MIXED, [{"sku": "BAD", "n": 100}], [{"sku": "x" * 20, "n": 1}], MIXED[-3:-1]):
        sync(items, **fields)
        assert relations(sync) == theirs | own
    sync(ITEMS[:3], **fields, deletes="hard")
    assert relations(sync) == theirs | own
    if own:
        assert sync.rows("SELECT count(*) FROM sync_pipelines_work.progress") == [(0,)]


def test_another_schema_can_be_chosen(postgres_sync: Syncs, tmp_path: Path) -> None:
    postgres_sync.execute(TABLE)
    postgres_sync.settings = Settings(data_dir=tmp_path / "other", work_schema="Ours_2")
    four_runs(postgres_sync)
    assert relations(postgres_sync) == {"public.things", "Ours_2.progress"}


class BrokeError(RuntimeError):
    """What ends a run half-way."""


def test_leftovers_of_a_dead_run_go_with_the_next(postgres_sync: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres_sync.execute(TABLE)

    def die(*_: Any, **__: Any) -> None:
        raise BrokeError

    with monkeypatch.context() as patch:
        patch.setattr(StagedWriter, "run", die)
        with pytest.raises(BrokeError):
            postgres_sync(ITEMS, columns=["n"])
    assert len(relations(postgres_sync)) > 2
    postgres_sync.paths.answers.clear()
    postgres_sync(ITEMS, columns=["n"])
    assert relations(postgres_sync) == {"public.things", "sync_pipelines_work.progress"}


@pytest.fixture
def limited(postgres: sa.Engine) -> Iterator[Callable[..., sa.Engine]]:
    """Makes connections of a role that may read and write the table, and what else it is given."""
    name = f"role_{postgres.url.database}"
    engines: list[sa.Engine] = []

    def make(*privileges: str) -> sa.Engine:
        with postgres.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}")
            connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {postgres.url.database} FROM PUBLIC")
            for privilege in ("CONNECT", *privileges):
                connection.exec_driver_sql(f"GRANT {privilege} ON DATABASE {postgres.url.database} TO {name}")
        engines.append(sa.create_engine(postgres.url.set(username=name)))
        return engines[0]

    yield make
    for engine in engines:
        engine.dispose()
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
        connection.exec_driver_sql(f"DROP ROLE {name}")


@pytest.mark.parametrize("table", ["things", "progress"])
def test_temporary_tables_serve_a_role_that_may_make_no_schema(
    postgres_sync: Syncs, limited: Callable[..., sa.Engine], table: str
) -> None:
    """Also for a table that has the name of one of ours."""
    postgres_sync.execute(TABLE.replace("things", table))
    database = limited("TEMP")
    four_runs(postgres_sync, database=database, table=table)
    assert relations(postgres_sync) == {f"public.{table}"}
    assert postgres_sync.rows("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]


def test_a_role_that_may_make_no_tables_is_served_page_by_page(
    postgres_sync: Syncs, limited: Callable[..., sa.Engine]
) -> None:
    postgres_sync.execute(TABLE)
    four_runs(postgres_sync, database=limited(), pages="neither a schema nor temporary tables")
    assert relations(postgres_sync) == {"public.things"}


def test_the_schema_of_another_role_is_left_to_it(postgres_sync: Syncs, limited: Callable[..., sa.Engine]) -> None:
    postgres_sync.execute(TABLE)
    postgres_sync(ITEMS[:1], columns=["n"])
    postgres_sync.execute("DELETE FROM things")
    four_runs(postgres_sync, database=limited("TEMP", "CREATE"))


def test_an_engine_with_another_driver_serves(postgres_sync: Syncs) -> None:
    other = sa.create_engine(postgres_sync.database.url.set(drivername="postgresql+psycopg2"))
    postgres_sync.execute(TABLE.replace("n < 100", "n < 100 AND n % 1000 <> 777 AND sku NOT LIKE 'a%'"))
    four_runs(postgres_sync, database=other)
    other.dispose()


def test_an_engine_with_few_connections_serves(postgres_sync: Syncs) -> None:
    """A run needs two at a time: one that keeps the staging tables, and one to look at rows."""
    other = sa.create_engine(postgres_sync.database.url, pool_size=2, max_overflow=0, pool_timeout=1)
    postgres_sync.execute(TABLE)
    four_runs(postgres_sync, database=other)
    other.dispose()


def test_two_syncs_write_to_one_database_at_the_same_time(postgres_sync: Syncs, tmp_path: Path) -> None:
    """Even to a fresh one, where both make the schema, and to the same table."""
    postgres_sync.execute(TABLE, TABLE.replace("things", "others"))
    errors: list[BaseException] = []

    def run(name: str, table: str, items: list[Item]) -> None:
        settings = Settings(data_dir=tmp_path / name)
        try:
            for number in range(3):
                changed = [{**item, "n": item["n"] + number} for item in items]
                job = postgres_sync.job(changed, name=name, table=table, columns=["n"])
                assert run_sync(job, settings=settings).error_count == 0
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    parts = [("one", "things", ITEMS[:10]), ("two", "others", ITEMS), ("three", "things", ITEMS[10:])]
    for name, _, _ in parts:
        with open_workspace(Settings(data_dir=tmp_path / name)):
            pass  # makes the ledger, which threads can't at the same time
    threads = [threading.Thread(target=run, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert relations(postgres_sync) == {"public.things", "public.others", "sync_pipelines_work.progress"}
    assert postgres_sync.rows("SELECT count(*), sum(n) FROM things") == [(20, sum(range(20)) + 40)]


ODD = 'shop "x" 1'


def test_names_may_be_odd(sync: Syncs) -> None:
    """Quotes, blanks, percent signs, colons, reserved words, capitals, and the names of our own columns."""
    quoted = [f'"{name}"' for name in ("Sku id", "n%", "sp_n", "select", "a:b", 'q""uote', "(x)", "stage", "sp_what")]
    columns = ", ".join(f"{name} INTEGER" for name in quoted[1:])
    checks = 'CHECK ("n%" % 7 <> 6 AND \'a:b%c\' LIKE \'%:b%%\'), CHECK ("sp_n" < 100), CHECK ("q""uote" <> 5)'
    is_sqlite = sync.database.dialect.name == "sqlite"
    where = "" if is_sqlite else '"shop ""x"" 1".'
    if not is_sqlite:
        sync.execute('CREATE SCHEMA "shop ""x"" 1"')
    sync.execute(f'CREATE TABLE {where}"Order % lines" ({quoted[0]} TEXT PRIMARY KEY, {columns}, {checks})')
    names = [name[1:-1].replace('""', '"') for name in quoted]
    table = sa.Table("Order % lines", sa.MetaData(), schema=None if is_sqlite else ODD)
    fields: dict[str, Any] = {"table": table, "key": names[0], "get_external_id": names[0], "columns": names[1:]}
    items = [{names[0]: f"S{n}", **dict.fromkeys(names[1:], n)} for n in range(20)]
    good = [item for item in items if item["n%"] % 7 != 6 and item["n%"] != 5]
    for again in range(3):
        changed = [{**item, "a:b": -again} for item in items]
        results = sync(changed, **fields, deletes="hard")
        assert counts(results) == {"updated" if again else "created": len(good), "failed": len(items) - len(good)}
        assert len({error.message for error in results.errors}) > 1
    assert counts(sync(good[:-1], **fields, deletes="hard")) == {"updated": len(good) - 1, "deleted": 1}


def test_identity_and_generated_columns_are_left_to_the_database(postgres_sync: Syncs) -> None:
    postgres_sync.execute(
        "CREATE TABLE things (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sku TEXT UNIQUE NOT NULL, n INT, "
        "twice INT GENERATED ALWAYS AS (n * 2) STORED, made TIMESTAMPTZ DEFAULT now(), serial SERIAL)"
    )
    items = [{**item, "id": 999, "twice": 0} for item in ITEMS]
    assert counts(postgres_sync(items)) == {"created": 20}
    assert counts(postgres_sync(items)) == {"unchanged": 20}
    assert postgres_sync.rows("SELECT count(DISTINCT id), sum(twice), count(made) FROM things") == [(20, 380, 20)]


def declared(**columns: sa.Column[Any]) -> sa.Table:
    """The application's own declaration of the table, with some columns declared otherwise."""
    usual = {"sku": sa.Column("sku", sa.String(9), primary_key=True), "n": sa.Column("n", sa.Integer)}
    return sa.Table("things", sa.MetaData(), *(usual | columns).values())


NOTED = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, note TEXT)"


def test_defaults_that_are_values_are_written_in_bulk(sync: Syncs) -> None:
    """Scalar defaults on create, and on update what the application declares for updates."""
    table = declared(note=sa.Column("note", sa.Text, default="made", onupdate="changed"))
    sync.execute(NOTED)
    sync(ITEMS, table=table, columns=["n"])
    sync([{**ITEMS[0], "n": 50}, *ITEMS[1:]], table=table, columns=["n"])
    assert dict(sync.rows("SELECT note, count(*) FROM things GROUP BY note")) == {"made": 19, "changed": 1}  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["default", "onupdate"])
def test_defaults_that_are_calls_are_made_row_by_row(sync: Syncs, when: str) -> None:
    """Each row gets a value of its own, so the rows are written page by page."""
    numbers = itertools.count()
    call: dict[str, Any] = {when: lambda: f"call {next(numbers)}"}
    table = declared(note=sa.Column("note", sa.Text, **call))
    sync.execute(NOTED)
    reason = "made in Python"
    sync(ITEMS, table=table, columns=["n"], pages=reason)
    sync([{**item, "n": -1} for item in ITEMS], table=table, columns=["n"], pages=reason)
    assert sync.rows("SELECT count(DISTINCT note) FROM things") == [(20,)]


def test_an_onupdate_of_a_column_that_is_written_on_create_only(sync: Syncs) -> None:
    """The update does not write it, so its call is made row by row."""
    numbers = itertools.count()
    table = declared(note=sa.Column("note", sa.Text, onupdate=lambda: f"call {next(numbers)}"))
    sync.execute(NOTED)
    items = [{**item, "note": "new"} for item in ITEMS]
    fields: dict[str, Any] = {"table": table, "columns": ["n", "note"], "create_only": ["note"], "pages": "in Python"}
    sync(items, **fields)
    sync([{**item, "n": -1} for item in items], **fields)
    assert sync.rows("SELECT count(DISTINCT note) FROM things") == [(20,)]


def test_a_key_may_have_a_collation_of_its_own(postgres_sync: Syncs) -> None:
    """Not the database's: the staging tables take it over, or the key's index would be of no use."""
    postgres_sync.execute('CREATE TABLE things (sku TEXT COLLATE "C" PRIMARY KEY, n TEXT, m TEXT COLLATE "POSIX")')
    items: list[Item] = [
        {"sku": sku, "n": "a", "m": sku} for sku in ("a", "A", "\u00e4", "z", "-", "e\u0301", "\u00e9")
    ]
    assert counts(postgres_sync(items, columns=["n", "m"])) == {"created": 7}
    louder = [{**item, "n": "A"} for item in items[:3]]
    assert counts(postgres_sync(louder, columns=["n", "m"], deletes="hard")) == {"updated": 3, "deleted": 4}
    assert counts(postgres_sync(louder, columns=["n", "m"], deletes="hard")) == {"unchanged": 3}


def test_records_that_no_item_can_mean_are_not_deleted(sync: Syncs) -> None:
    """Rows without a key, or with one that is blank."""
    sync.execute(
        "CREATE TABLE things (sku VARCHAR(9) UNIQUE, n INTEGER)",
        "INSERT INTO things VALUES (NULL, 1), ('', 2), ('  ', 3), ('\u3000', 4), ('\t', 5), ('gone', 6)",
    )
    assert counts(sync(ITEMS[:1], columns=["n"], deletes="hard")) == {"created": 1, "deleted": 1}
    assert sync.rows("SELECT count(*) FROM things") == [(6,)]


@pytest.mark.parametrize(
    ("kind", "ids", "strange"),
    [
        ("INTEGER", ["7", "8"], ["'seven'", "7.5", "x'00'"]),
        ("TEXT", ["7", "8"], ["x'3700'"]),
        ("NUMERIC(10, 2)", ["7.5", "8"], ["'seven'"]),
        ("DATE", ["2024-01-01", "2024-01-02"], ["'2024-01-01T00:00:00'", "'yesterday'", "20240101"]),
        ("TIMESTAMP", ["2024-01-01T00:00:00", "2024-01-02"], ["'2024-01-01T00:00:00Z'", "'2024-01-01 00:00:00'"]),
    ],
)
def test_rows_of_sqlite_whose_key_is_in_a_form_of_its_own_are_not_deleted(
    sqlite_sync: Syncs, kind: str, ids: list[str], strange: list[str]
) -> None:
    """SQLite keeps whatever it is given; what no look-up finds can't be said to be missing from the source."""
    values = ", ".join(f"({key}, 1)" for key in strange)
    sqlite_sync.execute(f"CREATE TABLE things (sku {kind} UNIQUE, n INTEGER)", f"INSERT INTO things VALUES {values}")
    items = [{"sku": each, "n": 1} for each in ids]
    assert counts(sqlite_sync(items, columns=["n"], deletes="hard")) == {"created": 2}
    assert counts(sqlite_sync(items[:1], columns=["n"], deletes="hard")) == {"unchanged": 1, "deleted": 1}
    assert sqlite_sync.rows("SELECT count(*) FROM things") == [(len(strange) + 1,)]


def test_a_number_that_is_none_is_no_key(postgres_sync: Syncs) -> None:
    postgres_sync.execute(
        "CREATE TABLE things (sku NUMERIC UNIQUE, n INT)", "INSERT INTO things VALUES ('NaN', 1), (2, 2)"
    )
    assert counts(postgres_sync([{"sku": "1", "n": 1}], columns=["n"], deletes="hard")) == {"created": 1, "deleted": 1}
    assert postgres_sync.rows("SELECT count(*) FROM things") == [(2,)]


def test_rows_of_children_of_a_table_are_found_and_written(postgres_sync: Syncs) -> None:
    """A table that others inherit from has rows without addresses of its own."""
    postgres_sync.execute(TABLE, "CREATE TABLE more (CHECK (n < 50)) INHERITS (things)")
    postgres_sync.execute("INSERT INTO more VALUES ('S1', 7), ('X', 1)")
    assert counts(postgres_sync(ITEMS, columns=["n"], deletes="hard")) == {"created": 19, "updated": 1, "deleted": 1}
    assert counts(postgres_sync(ITEMS, columns=["n"], deletes="hard")) == {"unchanged": 20}


def test_rows_move_between_partitions(postgres_sync: Syncs) -> None:
    postgres_sync.execute(
        "CREATE TABLE things (sku TEXT PRIMARY KEY, n INT) PARTITION BY HASH (sku)",
        "CREATE TABLE things_0 PARTITION OF things FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE things_1 PARTITION OF things FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    items = ITEMS
    assert counts(postgres_sync(items, columns=["n"])) == {"created": 20}
    assert counts(postgres_sync([{**each, "n": -1} for each in items[5:]], columns=["n"], deletes="hard")) == {
        "updated": 15,
        "deleted": 5,
    }


def test_a_run_whose_table_has_gone_says_so_and_leaves_nothing(postgres_sync: Syncs) -> None:
    postgres_sync.execute(TABLE)

    def fetch() -> list[Item]:
        postgres_sync.execute("DROP TABLE things")
        return ITEMS

    with pytest.raises(ConfigurationError, match="no table"):
        postgres_sync.run(fetch, columns=["n"])
    assert relations(postgres_sync) == set()
