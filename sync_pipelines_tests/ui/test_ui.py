"""What an operator reads in Dagster's UI: runs that changed things, an item that failed, a fetch that broke off."""

from __future__ import annotations

import pytest

from sync_pipelines_tests.ui.conftest import History, Reader

pytestmark = pytest.mark.ui

HERE = "/locations/sync_pipelines"
BOTH_GROUPS = "expanded=global%40global%3Aerp%2Cglobal%40global%3Ashop"
REPORT_ONLY = "levels=critical%7Cerror%7Cinfo%7Cwarning"
"""What the button "Levels" makes of the address when "event" is taken out: the sync's own lines remain."""


def test_the_list_of_jobs_has_each_sync_and_its_single_items(reader: Reader) -> None:
    reader.opens("/jobs", "jobs", "erp_inventory", "erp_inventory_items", "erp_products", "erp_products_items")


def test_the_job_page_says_what_it_does_how_often_and_to_which_table(reader: Reader) -> None:
    reader.opens(
        f"{HERE}/jobs/erp_inventory",
        "job",
        "Every hour",
        "Syncs erp-inventory whole: fetch, diff, apply.",
        "How much of each product lies in each warehouse, by the moves that are done.",
        "shop/stock_levels",
        "sync: erp-inventory",
    )


def test_the_launchpad_has_limit_and_only_filled_in(reader: Reader) -> None:
    shown = reader.opens(
        f"{HERE}/jobs/erp_inventory/playground", "launchpad", "limit: null", "only: []", "No errors", "Launch Run"
    )

    assert "sync: erp-inventory" in shown, "the launchpad shows the tags that the run will have"


def test_the_page_of_the_single_items_job_says_what_starts_it(reader: Reader) -> None:
    reader.opens(
        f"{HERE}/jobs/erp_inventory_items",
        "job-items",
        "Applies the single items of erp-inventory that wait in the inbox. A sensor starts it.",
        "sync_inbox_sensor",
    )


def test_the_log_of_a_run_reads_as_a_report(reader: Reader, history: History) -> None:
    created = len(history.changes.created)
    shown = reader.opens(
        f"/runs/{history.updated}?{REPORT_ONLY}",
        "run",
        "fetch: asking the source of erp-products",
        "fetch: 255 items",
        "unchanged, 0 skipped, 0 duplicates, 0 failed",
        f"erp-products: clean: 255 fetched = {created} created,",
        "2 assets",
        "6 checks",
        "Success",
    )

    assert "WARNING" not in shown


def test_the_log_shows_the_item_that_failed_with_its_id_and_reason(reader: Reader, history: History) -> None:
    reader.opens(
        f"/runs/{history.drained}?{REPORT_ONLY}",
        "run-items",
        "Success",
        "WARNING",
        "BROKEN",
        "NOT NULL constraint failed: stock_levels.quantity",
        "erp-inventory: partial: 1 fetched = 1 failed",
    )


def test_a_run_whose_fetch_broke_off_says_so_in_a_clear_sentence(reader: Reader, history: History) -> None:
    reader.page.set_viewport_size({"width": 1300, "height": 1700})  # the log shows only rows near what is in view
    shown = reader.opens(
        f"/runs/{history.broken}",
        "run-failed",
        "Failure",
        "STEP_FAILURE",
        "the source broke off after 0 items, nothing was applied",
        f"Tryton at {history.erp_url} did not answer",
        "Errored (1)",
    )

    assert "Errored (1) shop__products.fetch" in shown, "the step that failed is named"


def test_the_list_of_runs_shows_sync_kind_and_outcome(reader: Reader, history: History) -> None:
    shown = reader.opens(
        "/runs", "runs", history.broken[:8], history.drained[:8], "sync: erp-products", "sync: erp-inventory"
    )

    for run_id, kind, outcome in ((history.broken, "full", "failed"), (history.drained, "drain", "partial")):
        row = shown.split(run_id[:8])[1].split("View all tags")[0]
        assert f"sync/kind: {kind}" in row
        assert f"sync/outcome: {outcome}" in row


def test_runs_can_be_filtered_by_their_outcome(reader: Reader, history: History) -> None:
    shown = reader.opens("/runs?q[0]=tag%3Async%2Foutcome%3Dpartial", "runs-partial", history.drained[:8])

    assert history.broken[:8] not in shown


def test_the_asset_page_shows_rows_columns_counts_and_errors(reader: Reader) -> None:
    reader.page.set_viewport_size({"width": 1300, "height": 1700})
    reader.opens(
        "/assets/shop/stock_levels?view=overview",
        "asset-table",
        "Row count",
        "498",
        "How much of each product lies in each warehouse",
        "warehouse",
        "NUMERIC(14, 4)",
        "outcome",
        "partial",
        "single items fetched",
        "single items failed",
        "NOT NULL constraint failed: stock_levels.quantity",
        "erp / stock",
        "Every hour",
    )


def test_the_asset_page_plots_counts_and_durations(reader: Reader, history: History) -> None:
    reader.page.set_viewport_size({"width": 1300, "height": 1900})
    reader.opens("/assets/shop/products?view=overview", "asset-before", "Row count", "255", "Metadata")
    reader.page.get_by_text("Plots", exact=True).first.click()
    names = (
        "created",
        "updated",
        "unchanged",
        "failed",
        "fetched",
        "fetch (s)",
        "diff (s)",
        "apply (s)",
        "duration (s)",
    )

    shown = reader.sees("asset", *names)

    assert reader.page.locator("canvas").count() >= len(names)
    assert f"Failed in {history.broken[:8]}" in shown


def test_the_history_of_an_asset_has_the_counts_of_each_run(reader: Reader) -> None:
    reader.opens("/assets/shop/stock_levels?view=events", "asset-events", "Materialized in run", "dagster/row_count")


def test_the_checks_page_warns_of_failed_items_and_lists_them(reader: Reader) -> None:
    reader.opens(
        "/assets/shop/stock_levels?view=checks&checkDetail=items_failed",
        "checks",
        "items_failed",
        "accounts_balance",
        "changes_withheld",
        "is_fresh",
        "Warns when items of the last run failed, or earlier and have not succeeded since. All others are applied.",
        "1 of 1 items failed.",
        "BROKEN",
        "NOT NULL constraint failed: stock_levels.quantity",
    )


def test_the_lineage_leads_from_the_erp_to_the_shop(reader: Reader) -> None:
    shown = reader.opens(f"/asset-groups?{BOTH_GROUPS}", "lineage", "stock_levels", "Source", "Materialized", "tryton")

    assert shown.count("products") == 2, "the ERP's and the shop's"
    nearest = reader.opens("/assets/shop/products?view=lineage", "lineage-products", "Nearest Neighbors", "Source")
    assert "erp" in nearest.split("Graph depth")[1]


def test_the_page_of_the_source_says_what_reads_it(reader: Reader) -> None:
    reader.opens("/assets/erp/stock", "source", "read by the sync erp-inventory", "shop / stock_levels")


def test_the_schedule_runs_and_says_when(reader: Reader) -> None:
    reader.opens(
        f"{HERE}/schedules/erp_products_daily_at_0530",
        "schedule",
        "Runs erp-products every day at 05:30 Europe/Berlin.",
        "Next tick",
        "Running",
    )
    assert reader.page.get_by_role("switch", checked=True).or_(reader.page.locator("input:checked")).count() == 1


def test_the_sensor_runs_and_says_what_it_waits_for(reader: Reader) -> None:
    reader.opens(
        f"{HERE}/sensors/sync_inbox_sensor",
        "sensor",
        "Starts the job that applies single items, of each sync that has some waiting in the inbox.",
        "Running",
        "~5 sec",
    )
    assert reader.page.get_by_role("switch", checked=True).or_(reader.page.locator("input:checked")).count() == 1


def test_all_schedules_and_sensors_stand_on_one_page(reader: Reader) -> None:
    reader.opens(
        "/automation",
        "automation",
        "erp_inventory_every_hour",
        "erp_products_daily_at_0530",
        "sync_inbox_sensor",
    )
