"""What a run says of an error in a function of one's own, whichever function it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.failures import Failures
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import FetchError, HookError
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable

ITEMS = [{"sku": f"S{number}", "cost": number} for number in range(1_200)]
PLACE = r" \(test_places\.py:\d+, in price_of\)"


def price_of(item: Any, *_: Any) -> Any:
    return item["price"]


def cost_of(item: Any) -> Any:
    return item["costs"]


@pytest.fixture
def table(sqlite: sa.Engine) -> Callable[..., SqlTable]:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (sku TEXT PRIMARY KEY, price INTEGER, cost INTEGER)")
    return lambda columns: SqlTable(table="things", key="sku", columns=columns, database=sqlite)


@pytest.mark.parametrize("from_items", [0, 10**9], ids=["in bulk", "page by page"])
def test_an_error_in_a_column_function_names_column_function_file_and_line(
    table: Callable[..., SqlTable], settings: Settings, from_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing_run, "FROM_ITEMS", from_items)
    job = SyncJob(name="things", fetch_external=lambda: ITEMS, target=table({"price": price_of}))

    results = run_sync(job, settings=settings)

    assert re.fullmatch(rf"column 'price': KeyError: 'price'{PLACE}", results.errors[0].message)
    [cause] = results.causes
    assert cause.count == len(ITEMS)
    with open_workspace(settings) as workspace:
        failure = Failures(workspace.ledger).of_item("things", "S7")
    assert failure is not None
    assert failure.trace is not None
    assert 'return item["price"]' in failure.trace


def test_two_bugs_are_two_causes(table: Callable[..., SqlTable], settings: Settings) -> None:
    columns = {"cost": lambda item: cost_of(item) if item["cost"] % 2 else price_of(item)}
    job = SyncJob(name="things", fetch_external=lambda: ITEMS[:20], target=table(columns))

    results = run_sync(job, settings=settings)

    assert sorted(cause.template.rpartition("in ")[2] for cause in results.causes) == ["cost_of)", "price_of)"]


def test_a_function_of_the_whole_item_is_named_columns(table: Callable[..., SqlTable], settings: Settings) -> None:
    job = SyncJob(name="things", fetch_external=lambda: ITEMS[:2], target=table(lambda item: {"price": price_of(item)}))

    assert re.fullmatch(rf"columns: KeyError: 'price'{PLACE}", run_sync(job, settings=settings).errors[0].message)


@pytest.mark.parametrize("name", ["create", "update", "find_local", "has_changed", "should_skip", "get_external_id",
                                  "get_version", "delete"])  # fmt: skip
def test_an_error_in_any_function_of_a_job_names_it_and_its_place(name: str, settings: Settings) -> None:
    given: dict[str, Any] = {
        "find_local": lambda _sku: {} if name in {"update", "has_changed", "delete"} else None,
        "create": lambda _item: None,
        "update": lambda _item, _local: None,
        "delete": lambda _local: None,
        "list_local": lambda: ["gone"],
        "get_external_id": "sku",
        "deletes": "hard" if name == "delete" else "off",
        "guards": None,
    }
    fails = (lambda sku: price_of({"sku": sku})) if name == "find_local" else price_of
    job = SyncJob(name="things", fetch_external=lambda: ITEMS[:2], **{**given, name: fails})

    results = run_sync(job, settings=settings)

    assert re.fullmatch(rf"{name}: KeyError: 'price'{PLACE}", results.errors[-1].message)
    assert "price_of" in results.errors[-1].trace or name == "get_external_id"


def test_the_source_and_the_hooks_say_where_they_broke_off(settings: Settings) -> None:
    given: dict[str, Any] = {
        "name": "things",
        "get_external_id": "sku",
        "find_local": str,
        "create": str,
        "update": max,
    }

    with pytest.raises(FetchError, match=rf"KeyError: 'price'{PLACE}"):
        run_sync(SyncJob(fetch_external=lambda: [price_of({})], **given), settings=settings)
    with pytest.raises(HookError, match=rf"on_start failed, nothing was fetched: KeyError: 'price'{PLACE}"):
        run_sync(SyncJob(fetch_external=list, on_start=lambda: price_of({}), **given), settings=settings)
    with pytest.raises(HookError, match=rf"on_complete failed .*: KeyError: 'price'{PLACE}"):
        run_sync(SyncJob(fetch_external=list, on_complete=lambda _: price_of({}), **given), settings=settings)
