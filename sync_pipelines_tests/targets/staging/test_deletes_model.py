"""Soft deletes, scope and grace together: for any fetches in a row, both paths leave what a simple model says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.targets.staging.conftest import Syncs, counts
from sync_pipelines_tests.two_speeds import few_and_many

TABLE = "CREATE TABLE things (sku VARCHAR(9) PRIMARY KEY, stock INTEGER, state VARCHAR(9), supplier VARCHAR(9))"
LIVE, DELETED, OTHER = "live", "deleted", "draft"


@dataclass
class Row:
    """A row of the model."""

    stock: int
    state: str | None
    supplier: str | None


@dataclass
class Model:
    """What a sync is to leave."""

    rows: dict[str, Row]
    delete_after: int
    misses: dict[str, int] = field(default_factory=dict)

    def sync(self, fetch: dict[str, int], *, is_whole: bool) -> dict[str, int]:
        outcomes = [self._write(sku, stock) for sku, stock in fetch.items()]
        if is_whole:
            missing = {
                sku
                for sku, row in self.rows.items()
                if sku not in fetch and row.supplier == "acme" and row.state != DELETED
            }
            self.misses = {sku: self.misses.get(sku, 0) + 1 for sku in missing}
            for sku in [sku for sku, count in self.misses.items() if count >= self.delete_after]:
                self.rows[sku].state = DELETED
                outcomes.append("deleted")
        return {each: outcomes.count(each) for each in outcomes}

    def _write(self, sku: str, stock: int) -> str:
        row = self.rows.get(sku)
        if row is None:
            self.rows[sku] = Row(stock, LIVE, "acme")
            return "created"
        before = (row.stock, row.state)
        row.stock = stock
        row.state = LIVE if row.state == DELETED else row.state
        return "unchanged" if before == (row.stock, row.state) else "updated"


skus = st.sampled_from("ABCDEF")
rows = st.builds(Row, st.sampled_from([1, 2]), st.sampled_from([LIVE, DELETED, OTHER, None]),
                 st.sampled_from(["acme", "acme", "zen", None]))  # fmt: skip
fetches = st.lists(
    st.tuples(st.dictionaries(skus, st.sampled_from([1, 2]), min_size=1), st.sampled_from([True, True, True, False])),
    min_size=2,
    max_size=6,
)


def assert_as_the_model_says(
    sync: Syncs, model: Model, given_fetches: list[tuple[dict[str, int], bool]], name: str
) -> None:
    sync.execute("DROP TABLE IF EXISTS things", TABLE)
    if model.rows:
        with sync.database.begin() as connection:
            connection.execute(
                sa.text("INSERT INTO things VALUES (:sku, :stock, :state, :supplier)"),
                [{"sku": sku, **vars(row)} for sku, row in model.rows.items()],
            )
    target = SqlTable(
        table="things", key="sku", columns=["stock"], database=sync.database, scope={"supplier": "acme"},
        soft_delete=SoftDelete("state", deleted=DELETED, live=LIVE),
    )  # fmt: skip
    for fetch, is_whole in given_fetches:
        items = [{"sku": sku, "stock": stock} for sku, stock in fetch.items()]
        options: dict[str, Any] = {} if is_whole else {"limit": 100}
        job = sync.job(items, name=name, target=target, deletes="soft", delete_after=model.delete_after)
        results = run_sync(job, settings=sync.settings, **options)
        assert counts(results) == model.sync(fetch, is_whole=is_whole)
        found = {row[0]: Row(*row[1:]) for row in sync.rows("SELECT sku, stock, state, supplier FROM things")}
        assert found == model.rows


@few_and_many(4, 12)
@pytest.mark.parametrize("in_bulk", [True, False])
def test_any_fetches_in_a_row_leave_what_the_model_says(
    sync: Syncs,
    in_bulk: bool,  # noqa: FBT001 - parametrised
    examples: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows and counts, run after run."""
    if not in_bulk:
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
    tried = 0

    @given(before=st.dictionaries(skus, rows), delete_after=st.sampled_from([1, 2, 3]), given_fetches=fetches)
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    def compare(before: dict[str, Row], delete_after: int, given_fetches: list[tuple[dict[str, int], bool]]) -> None:
        nonlocal tried
        tried += 1  # a name of its own for each: the ledger remembers the misses of a sync
        assert_as_the_model_says(sync, Model(before, delete_after), given_fetches, f"model-{tried}")
        assert in_bulk == (None in sync.paths.answers)
        sync.paths.answers.clear()

    compare()
