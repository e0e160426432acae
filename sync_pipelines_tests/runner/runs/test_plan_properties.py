"""For any mix of items, records and refused rows: a dry run and its plan applied do what a plain run does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.plans.plan_view import Plan, open_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.two_speeds import few_and_many

Rows = dict[str, tuple[Any, ...]]
COLUMNS = ("stock", "price", "note")
skus = st.sampled_from([*"ABCDEF", None, "ü"])
stocks = st.integers(-1, 3)  # a negative one is refused by the table
prices = st.sampled_from([None, "1.50", "2.00", "no price"])  # a text fails its item
notes = st.sampled_from([None, "", "x", "null"])
items_ = st.fixed_dictionaries({"sku": skus, "stock": stocks, "price": prices, "note": notes})
fetches = st.lists(items_, min_size=1, max_size=12)  # guards withhold what an empty one would delete
records = st.dictionaries(
    st.sampled_from("ABCDXY"), st.tuples(st.integers(0, 3), st.sampled_from([None, 1.5, 2]), notes), max_size=5
)


class Pair:
    """Two tables alike: one for plain runs, one for plans."""

    def __init__(self, database: sa.Engine) -> None:
        self.database = database
        for name in ("plain", "planned"):
            self._do(
                f"CREATE TABLE {name} (sku VARCHAR(9) PRIMARY KEY, stock INTEGER CHECK (stock >= 0), "
                "price NUMERIC(9, 2), note TEXT)"
            )

    def _do(self, statement: str, *rows: dict[str, Any]) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text(statement), *([list(rows)] if rows else []))

    def fill(self, before: Rows) -> None:
        rows = [{"sku": sku, **dict(zip(COLUMNS, values, strict=True))} for sku, values in before.items()]
        for name in ("plain", "planned"):
            self._do(f"DELETE FROM {name}")
            if rows:
                self._do(f"INSERT INTO {name} VALUES (:sku, :stock, :price, :note)", *rows)

    def rows(self, name: str) -> Rows:
        statement = f"SELECT sku, stock, price, note FROM {name}"
        with self.database.connect() as connection:
            found = connection.execute(sa.text(statement)).all()
        return {row.sku: (row.stock, None if row.price is None else float(row.price), row.note) for row in found}

    def job(self, name: str, items: list[dict[str, Any]], deletes: str) -> SyncJob[Any, Any]:
        target = SqlTable(table=name, key="sku", columns=list(COLUMNS), database=self.database)
        return SyncJob(name=name, fetch_external=lambda: items, target=target, deletes=deletes)


def as_shown(plan: Plan, before: Rows, failed: set[str | None]) -> Rows:
    """What the target is to be after the plan, going by nothing but what it shows."""
    rows = {sku: dict(zip(COLUMNS, values, strict=True)) for sku, values in before.items()}
    for entry in plan.entries():
        if entry.external_id in failed:
            continue
        if entry.action is Action.DELETE:
            assert {name: change.old for name, change in entry.changes.items() if name != "sku"} == rows.pop(
                entry.external_id
            )
        else:
            row = rows.setdefault(entry.external_id, {})
            assert all(row.get(name) == change.old for name, change in entry.changes.items())
            row.update({name: change.new for name, change in entry.changes.items() if name != "sku"})
    return {sku: tuple(row[name] for name in COLUMNS) for sku, row in rows.items()}


def told(results: SyncResults) -> Any:
    """Without the messages, in which the database names the table."""
    errors = [(each.external_id, each.exception_type, each.position) for each in results.errors]
    return results.counts(), results.outcome, errors


@few_and_many(10, 35)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_dry_run_and_its_plan_applied_do_what_a_plain_run_does(
    kind: str, examples: int, request: pytest.FixtureRequest
) -> None:
    """Promise 12, for anything: it writes nothing, shows what will be, and that is what becomes of it."""
    pair = Pair(request.getfixturevalue("sqlite" if kind == "sqlite" else "postgres"))
    _all_cases(pair, examples)


def _all_cases(pair: Pair, examples: int) -> None:
    @hypothesis_settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(fetches, records, st.sampled_from(["off", "hard"]))
    def check(items: list[dict[str, Any]], before: Rows, deletes: str) -> None:
        with TemporaryDirectory() as folder:
            _check(pair, Settings(data_dir=Path(folder)), items, before, deletes)

    check()


def _check(pair: Pair, settings: Settings, items: list[dict[str, Any]], before: Rows, deletes: str) -> None:
    pair.fill(before)
    plain = run_sync(pair.job("plain", items, deletes), settings=settings)
    start = pair.rows("planned")
    job = pair.job("planned", items, deletes)

    planned = run_sync(job, settings=settings, dry_run=True)

    assert pair.rows("planned") == start
    assert planned.accounts_balance
    plan = open_plan(planned.plan_id or "", settings=settings)
    applied = apply_plan(plan.id, job=job, settings=settings)
    assert pair.rows("planned") == pair.rows("plain")
    assert pair.rows("planned") == as_shown(plan, start, {error.external_id for error in applied.errors})
    assert told(applied) == told(plain)
