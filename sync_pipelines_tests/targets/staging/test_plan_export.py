"""The plan of a dry run comes out of the staging tables, and nothing of them is left behind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.plan import PlanCounts
from sync_pipelines.runner.decide import staged_diff
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.staging.staged_table import StagedTable
from sync_pipelines_tests.targets.staging.conftest import Item, Paths, Syncs, counts

TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, n INTEGER, note VARCHAR(9) DEFAULT 'ours')"
OURS: list[Item] = [{"sku": f"S{number:03}", "n": number} for number in range(300)]
CHANGED: list[Item] = [{"sku": "NEW", "n": 5}, *({**item, "n": item["n"] + 1} for item in reversed(OURS[40:]))]
FIELDS: dict[str, Any] = {"columns": ["n"], "deletes": "hard"}


@pytest.fixture
def synced(sync: Syncs) -> Syncs:
    """A table that has been synced once, with items in some other order than they come in next."""
    sync.execute(TABLE)
    sync(OURS, **FIELDS)
    return sync


@pytest.fixture
def tiny_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan comes in many pieces."""
    monkeypatch.setattr("sync_pipelines.targets.staging.plan_export._ROWS_AT_ONCE", 7)


@pytest.mark.usefixtures("tiny_pieces")
def test_lines_come_as_their_items_were_fetched_and_deletes_last(synced: Syncs) -> None:
    results, rows = synced.dry_run(CHANGED, **FIELDS)
    synced.paths.assert_bulk()
    assert results.planned == PlanCounts(1, 260, 40)
    assert [row.position for row in rows] == [*range(261), *[-1] * 40]
    assert [row.external_id for row in rows[1:261]] == [item["sku"] for item in CHANGED[1:]]
    assert [row.external_id for row in rows[261:]] == [item["sku"] for item in OURS[:40]]
    assert decode(rows[0].changes or "") == {"sku": [None, "NEW"], "n": [None, 5]}
    assert decode(rows[1].changes or "") == {"n": [299, 300]}
    assert decode(rows[261].changes or "") == {"sku": ["S000", None], "n": [0, None]}


def test_a_first_load_is_planned_as_well(sync: Syncs) -> None:
    sync.execute(TABLE)
    results, rows = sync.dry_run([*OURS, OURS[3]], **FIELDS)
    sync.paths.assert_bulk()
    assert results.planned == PlanCounts(create=300)
    assert [row.position for row in rows] == [*range(3), *range(4, 301)]
    assert counts(sync(OURS, **FIELDS)) == {"created": 300}


def test_nothing_is_left_behind(synced: Syncs) -> None:
    """Neither in the database nor among the working files; a table of staged rows would be large."""
    synced.execute(*(["DROP SCHEMA sync_pipelines_work CASCADE"] if synced.is_postgresql else []))
    before = everything(synced)
    results, _ = synced.dry_run(CHANGED, **FIELDS)
    synced.paths.assert_bulk()
    assert everything(synced) == before
    assert not list((synced.settings.work_dir() / results.run_id).glob("*"))


@pytest.mark.parametrize("schema", ["is there", "is not there"])
def test_a_dry_run_that_fails_leaves_nothing_behind(
    postgres_sync: Syncs,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sync = postgres_sync
    sync.execute(TABLE)
    sync(OURS, **FIELDS)
    if schema == "is not there":
        sync.execute("DROP SCHEMA sync_pipelines_work CASCADE")
    before = everything(sync)
    monkeypatch.setattr(staged_diff, "write_findings", broken)
    monkeypatch.setattr(staged_diff, "rows_of", broken)
    monkeypatch.setattr(staged_diff.PlanPages, "flush", broken)
    with pytest.raises(ZeroDivisionError):
        sync.dry_run(CHANGED, **FIELDS)
    assert everything(sync) == before


def broken(*_: Any) -> None:
    raise ZeroDivisionError


def everything(sync: Syncs) -> list[Any]:
    """All schemas and tables of the database, and the rows of the one that is synced."""
    names = sa.inspect(sync.database)
    found = {schema: sorted(names.get_table_names(schema)) for schema in names.get_schema_names()}
    return [found, sync.rows("SELECT * FROM things ORDER BY sku")]


def test_a_record_that_is_written_during_the_diff_is_looked_at_again(
    synced: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has become up to date, one is gone, one has a third value, and a record to be deleted is gone."""
    export = StagedTable.export

    def later(self: StagedTable, actions: Any) -> Iterator[Any]:
        synced.execute(
            "UPDATE things SET n = 101 WHERE sku = 'S100'",
            "UPDATE things SET n = -7 WHERE sku = 'S101'",
            "DELETE FROM things WHERE sku IN ('S102', 'S003')",
        )
        return export(self, actions)

    monkeypatch.setattr(StagedTable, "export", later)
    results, rows = synced.dry_run(CHANGED, **FIELDS)
    synced.paths.assert_bulk()
    entries = {row.external_id: (row.action, decode(row.changes or "")) for row in rows}
    assert results.planned == PlanCounts(2, 258, 40)
    assert results.unchanged == 1
    assert "S100" not in entries
    assert entries["S101"] == ("update", {"n": [-7, 102]})
    assert entries["S102"] == ("create", {"sku": [None, "S102"], "n": [None, 103]})
    assert entries["S003"] == ("delete", {})


@pytest.fixture
def poor_sync(
    postgres: sa.Engine, postgres_admin: sa.Engine, settings: Settings, paths: Paths
) -> Iterator[tuple[Syncs, sa.Engine, str]]:
    """Syncs as a role that may do little, and the connections of one that may do all."""
    name = f"poor_{uuid.uuid4().hex[:12]}"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
    database = create_database(postgres.url.set(username=name))
    yield Syncs(database, settings, paths), postgres, name
    database.dispose()
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP ROLE {name}")


def test_a_role_that_may_only_read_makes_plans_page_by_page(poor_sync: tuple[Syncs, sa.Engine, str]) -> None:
    """And one that may make temporary tables has the database compare."""
    sync, owner, name = poor_sync
    with owner.begin() as connection:
        connection.exec_driver_sql(f"{TABLE}; INSERT INTO things VALUES ('S001', 7)")
        connection.exec_driver_sql(f"GRANT SELECT ON things TO {name}")
    in_bulk = sync.dry_run(OURS[:3], **FIELDS)[1]
    sync.paths.assert_bulk()
    with owner.begin() as connection:
        connection.exec_driver_sql(f"REVOKE TEMP ON DATABASE {owner.url.database} FROM PUBLIC")
    by_pages = sync.dry_run(OURS[:3], **FIELDS)[1]
    sync.paths.assert_pages("the role may make neither a schema nor temporary tables")
    assert in_bulk == by_pages


def test_a_session_that_only_reads_makes_plans_page_by_page(postgres_sync: Syncs) -> None:
    """As on a replica."""
    sync = postgres_sync
    sync.execute(TABLE, f"ALTER DATABASE {sync.database.url.database} SET default_transaction_read_only = on")
    sync.database.dispose()
    assert sync.dry_run(OURS[:3], **FIELDS)[0].planned == PlanCounts(create=3)
    sync.paths.assert_pages("neither")
