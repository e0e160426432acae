"""The ledger's history: kept once, found by any id, forgotten by each job's own days."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from sync_pipelines.database import history as module
from sync_pipelines.database.history import BlockRow, History, Writer, Written
from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.engine.history import HistoryEvent, blocks_of, history_line, json_of_id
from sync_pipelines.engine.plan import FieldChange, Outcome
from sync_pipelines.registry.history import events_of_record

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUN = Writer("stock", "run-1", "full")


@pytest.fixture
def ledger(database_url: str, tmp_path: Path) -> Iterator[Ledger]:
    del tmp_path
    with open_ledger(database_url) as opened:
        yield opened


@pytest.fixture
def history(ledger: Ledger) -> History:
    return History(ledger)


def keep(history: History, external_id: str, stock: int, at: datetime = NOW, writer: Writer = RUN) -> None:
    history.keep(writer, [Written(external_id, "updated", f'{{"stock":[{stock - 1},{stock}]}}')], at)


def keep_block(history: History, *external_ids: str, at: datetime = NOW, job: str = "stock") -> None:
    lines = [history_line(json_of_id(each), Outcome.CREATED, '{"stock":[null,1]}') for each in external_ids]
    history.keep_blocks(job, "full", block_rows(lines, at))


def block_rows(lines: Iterable[str], at: datetime = NOW) -> list[BlockRow]:
    return [BlockRow(**asdict(block)) for block in blocks_of(lines, "run-0", at)]


def found(history: History, external_id: str, limit: int = 100) -> list[HistoryEvent]:
    return events_of_record(history, "stock", [external_id], limit)


def test_what_was_written_is_told_newest_first(history: History) -> None:
    keep_block(history, "A-1", "A-2", at=NOW - timedelta(days=1))
    for day in (1, 3, 2):
        keep(history, "A-1", day, NOW + timedelta(days=day))
    assert [(each.kind, each.via, each.changes) for each in found(history, "A-1")] == [
        *(("updated", "full", {"stock": FieldChange(day - 1, day)}) for day in (3, 2, 1)),
        ("created", "full", {"stock": FieldChange(None, 1)}),
    ]
    assert [each.run_id for each in found(history, "A-1", 1)] == ["run-1"]


def test_records_and_jobs_are_told_apart(history: History) -> None:
    keep(history, "A-1", 1)
    keep(history, "A-1", 1, writer=Writer("prices", None, "single"))
    keep_block(history, "A-0", "A-3", job="prices")
    assert (len(found(history, "A-1")), found(history, "A-3"), found(history, "A")) == (1, [], [])


@pytest.mark.parametrize("external_id", ["x" * 5_000, "ünï\tcode", "a\x00b", '["a", 7]', 'say "no"'])
def test_any_id_will_do(history: History, external_id: str) -> None:
    keep(history, external_id, 1)
    keep_block(history, "0", external_id, "zz", at=NOW - timedelta(days=1))
    assert [each.kind for each in found(history, external_id)] == ["updated", "created"]
    assert found(history, external_id + "x") == []


def test_a_block_that_comes_twice_is_kept_once(history: History) -> None:
    blocks = block_rows([history_line('"A-1"', Outcome.CREATED, "")])
    history.keep_blocks("stock", "full", blocks)
    history.keep_blocks("stock", "full", blocks)
    assert [each.changes for each in found(history, "A-1")] == [None]


def test_old_history_of_a_job_is_forgotten_and_that_of_others_stays(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    for day in range(7):
        keep(history, "A-1", day, NOW - timedelta(days=day))
        keep_block(history, "A-1", at=NOW - timedelta(days=day))
    keep(history, "A-1", 1, NOW - timedelta(days=6), Writer("prices", None, "single"))
    assert [history.purge("stock", NOW - timedelta(days=2)) for _ in range(3)] == [True, True, False]
    assert len(found(history, "A-1")) == 6
    assert len(events_of_record(history, "prices", ["A-1"], 10)) == 1


def test_a_look_up_goes_by_an_index(history: History, ledger: Ledger) -> None:
    """Of rows, blocks, failures and deliveries: the ledger may have millions of each."""
    statements: list[tuple[str, Any]] = []
    lines = (history_line(f'"B-{number:05}"', Outcome.CREATED, "x" * 60_000) for number in range(400))
    history.keep_blocks("stock", "full", block_rows(lines))

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    event.listen(ledger.database, "before_cursor_execute", note)
    found(history, "A-1")
    event.remove(ledger.database, "before_cursor_execute", note)
    queries = [each for each in statements if each[0].lstrip().startswith("SELECT")]
    assert len(queries) == 4
    on_sqlite = ledger.database.dialect.name == "sqlite"
    for statement, parameters in queries:
        with ledger.database.begin() as connection:
            if not on_sqlite:
                connection.exec_driver_sql("ANALYZE sync_pipelines.history_blocks")
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = "EXPLAIN QUERY PLAN " if on_sqlite else "EXPLAIN "
            told = "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, parameters))
        names = ("history_record", "history_blocks_ids", "run_errors_external_id", "inbox_external_id")
        assert any(name in told for name in names), told
