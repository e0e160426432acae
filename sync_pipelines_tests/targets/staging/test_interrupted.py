"""A run that is interrupted in a process that lives on, say a notebook, leaves the user's engine as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from sync_pipelines import Settings, SqlTable, SyncJob, run_sync
from sync_pipelines.runner.runs.comparing_run import ComparingRun


class StoppedError(BaseException):
    """What Ctrl-C raises, but for the test's own run."""


@contextmanager
def stopped_at(database: sa.Engine, number: int) -> Iterator[None]:
    """Lets the n-th statement or commit, from 0, raise once."""
    left = number

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise StoppedError

    for name in ("before_cursor_execute", "commit"):
        event.listen(database, name, count)
    try:
        yield
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(database, name, count)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_the_next_run_with_the_same_engine_does_its_work(
    database: sa.Engine, step: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ComparingRun, "_is_worth_it", lambda _run, _files: True)
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE variants (sku VARCHAR(20) PRIMARY KEY, stock INTEGER)")
    items = [{"sku": f"A{number}", "stock": number} for number in range(5)]
    target = SqlTable(table="variants", key="sku", columns=["stock"], database=database)
    job = SyncJob[Any, Any](name="stock", fetch_external=lambda: items, target=target, deletes="hard")
    stopped = 0

    while True:
        with database.begin() as connection:
            connection.exec_driver_sql("DELETE FROM variants")
            connection.exec_driver_sql("INSERT INTO variants VALUES ('A1', 0)")
        try:
            with stopped_at(database, stopped):
                run_sync(job, settings=settings)
        except StoppedError:
            assert database.pool.checkedout() == 0  # type: ignore[attr-defined]
        else:
            break
        stopped += step  # what the run before has left behind, this one meets

    assert stopped > 20
    assert run_sync(job, settings=settings).unchanged == 5
