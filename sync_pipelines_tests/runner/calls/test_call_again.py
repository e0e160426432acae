"""Whatever of a job may read or write is called again when it says `RetryableError`, and once only if it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stamina

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import RetryableError, TargetError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings

FUNCTIONS = (
    *("fetch_external", "get_external_id", "find_local", "create", "update", "delete", "list_local"),
    *("should_skip", "has_changed", "on_start", "on_complete"),
)


class Shop:
    """The functions of a job, of which some raise `RetryableError` so often, the listing after its first record."""

    def __init__(self, *shaky: str, times: int = 1) -> None:
        self.records: dict[str, dict[str, Any]] = {name: {"sku": name, "stock": 0} for name in ("A", "B", "GONE")}
        self.left = dict.fromkeys(shaky, times)

    def shaken(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self.shake(name)
            return function(*arguments)

        return called

    def shake(self, name: str) -> None:
        if self.left.get(name):
            self.left[name] -= 1
            raise RetryableError(f"{name}: busy")

    def list_local(self) -> Iterator[str]:
        for name in list(self.records):
            yield name
            self.shake("list_local")

    def job(self) -> SyncJob[Any, Any]:
        items = [{"sku": name, "stock": 1} for name in ("A", "B", "NEW")]
        functions: dict[str, Callable[..., Any]] = {
            "fetch_external": lambda: items,
            "get_external_id": lambda item: item["sku"],
            "find_local": self.records.get,
            "create": lambda item: self.records.update({item["sku"]: item}),
            "update": lambda item, _: self.records.update({item["sku"]: item}),
            "delete": lambda local: self.records.pop(local["sku"]),
            "should_skip": lambda _: False,
            "has_changed": lambda item, local: item != local,
            "on_start": lambda: None,
            "on_complete": lambda _: None,
        }
        given = {name: self.shaken(name, function) for name, function in functions.items()}
        return SyncJob(**{"name": "shop", "list_local": self.list_local, "deletes": "hard", "guards": None, **given})


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    stamina.set_testing(True)
    yield
    stamina.set_testing(False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_is_busy_once_is_called_again(name: str, settings: Settings) -> None:
    shop = Shop(name)
    results = run_sync(shop.job(), settings=settings)
    assert (results.created, results.updated, results.deleted, results.error_count) == (1, 2, 1, 0)
    assert shop.left[name] == 0
    assert sorted(shop.records) == ["A", "B", "NEW"]


def test_all_of_them_may_be_busy_in_one_run(settings: Settings) -> None:
    results = run_sync(Shop(*FUNCTIONS, times=2).job(), settings=settings)
    assert (results.outcome, results.fetched, results.deleted) == ("clean", 3, 1)


def test_a_listing_that_never_ends_well_deletes_nothing(settings: Settings) -> None:
    """Half a listing is no listing."""
    shop = Shop("list_local", times=100)
    with pytest.raises(TargetError, match="list_local: busy"):
        run_sync(shop.job(), settings=settings)
    assert "GONE" in shop.records
