"""A sync in YAML is the job that Python makes of the same fields."""

from __future__ import annotations

import csv as a_module_with_functions
from datetime import timedelta

import pytest

from sync_pipelines import Guards, Retry, SoftDelete, SqlTable, SyncJob, csv_file, sync_intervals
from sync_pipelines_tests.component.projects import job_of, plain, sync_with


def test_a_whole_sync_is_what_python_makes_of_it() -> None:
    job = job_of("""
        name: erp-stock
        source: {csv: {path: stock.csv}}
        target:
          table: shop.stock
          key: [sku, warehouse]
          columns: {sku: number, warehouse: place, quantity: pieces}
          database: postgresql://shop@localhost/shop
          compare: [quantity]
          create_only: []
          soft_delete: {column: state, deleted: gone, live: there}
          scope: {supplier: [acme, 7]}
        get_version: changed_at
        get_external_id: number
        fetch_one: csv.reader
        should_skip: csv.writer
        on_start: csv.list_dialects
        on_complete: csv.get_dialect
        concurrency: 4
        max_calls_per_s: 2.5
        deletes: soft
        delete_after: 3
        guards: {max_delete_share: 0.1, max_deletes: 50, max_update_share: null, few: 2}
        fail_above: 0.05
        fresh_within: 90 minutes
        retry: {attempts: 3, first_wait_s: 5}
        keep_history_days: 0
        schedule: {every: 1 day, at: "05:30", timezone: Europe/Berlin}
        description: What lies where.
        asset_key: shop/stock
        source_asset: erp/stock
        group: shop
        owners: ["team:shop", someone@example.com]
        kinds: [csv, postgres]
        tags: {domain: stock}
        """)

    assert plain(job) == plain(
        SyncJob(
            name="erp-stock",
            fetch_external=csv_file("stock.csv"),
            target=SqlTable(
                table="shop.stock",
                key=["sku", "warehouse"],
                columns={"sku": "number", "warehouse": "place", "quantity": "pieces"},
                database="postgresql://shop@localhost/shop",
                compare=["quantity"],
                create_only=[],
                soft_delete=SoftDelete("state", deleted="gone", live="there"),
                scope={"supplier": ["acme", 7]},
            ),
            get_version="changed_at",
            get_external_id="number",
            fetch_one=a_module_with_functions.reader,
            should_skip=a_module_with_functions.writer,
            on_start=a_module_with_functions.list_dialects,
            on_complete=a_module_with_functions.get_dialect,
            concurrency=4,
            max_calls_per_s=2.5,
            deletes="soft",
            delete_after=3,
            guards=Guards(max_delete_share=0.1, max_deletes=50, max_update_share=None, few=2),
            fail_above=0.05,
            fresh_within=timedelta(minutes=90),
            retry=Retry(attempts=3, first_wait_s=5),
            keep_history_days=0,
            schedule=sync_intervals.days(1, at="05:30", timezone="Europe/Berlin"),
            description="What lies where.",
            asset_key="shop/stock",
            source_asset="erp/stock",
            group="shop",
            owners=["team:shop", "someone@example.com"],
            kinds=["csv", "postgres"],
            tags={"domain": "stock"},
        )
    )


def test_what_is_left_out_has_the_default_of_python() -> None:
    expected = SyncJob(
        name="erp-stock", fetch_external=csv_file("stock.csv"), target=SqlTable(table="stock", key="sku")
    )

    assert plain(sync_with()) == plain(expected)


@pytest.mark.parametrize(
    ("yaml", "interval"),
    [
        ("{every: 30 minutes}", sync_intervals.minutes(30)),
        ("{every: minute}", sync_intervals.minutes(1)),
        ("{every: 1 hour}", sync_intervals.hours(1)),
        ("{every: 5 hours}", sync_intervals.hours(5)),
        ("{every: day}", sync_intervals.days(1)),
        ("{every: 2 weeks, timezone: Europe/Paris}", sync_intervals.days(14, timezone="Europe/Paris")),
        ('{every: 2 days, at: "12:30"}', sync_intervals.days(2, at="12:30")),
        ("30 2 * * mon-fri", sync_intervals.cron("30 2 * * mon-fri")),
        ("{cron: 30 2 * * *, timezone: Europe/Paris}", sync_intervals.cron("30 2 * * *", timezone="Europe/Paris")),
    ],
)
def test_a_schedule_is_the_interval_that_python_makes(yaml: str, interval: object) -> None:
    assert sync_with(schedule=yaml).schedule == interval


@pytest.mark.parametrize("name", ["guards", "retry", "schedule", "fresh_within"])
def test_null_is_none(name: str) -> None:
    assert getattr(sync_with(**{name: "null"}), name) is None


def test_an_off_without_quotes_is_no_false() -> None:
    assert sync_with(deletes="off").deletes == sync_with(deletes='"off"').deletes == "off"


@pytest.mark.parametrize(
    ("yaml", "mark"),
    [
        ("deleted_at", SoftDelete("deleted_at")),
        ("{column: deleted_at}", SoftDelete("deleted_at")),
        ("{column: active, deleted: false}", SoftDelete("active", deleted=False)),
    ],
)
def test_a_soft_delete_is_a_column_or_more(yaml: str, mark: SoftDelete) -> None:
    assert sync_with(target=f"{{table: stock, key: sku, soft_delete: {yaml}}}").target.soft_delete == mark
