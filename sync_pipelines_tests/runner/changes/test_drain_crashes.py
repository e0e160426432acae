"""A drain that is killed at any instant loses nothing; in one PostgreSQL, rows and settled deliveries go together."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.database.inbox import Delivery
from sync_pipelines.engine.codec import decode
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines_tests.children import exit_code, fork
from sync_pipelines_tests.runner import drain_child as child
from sync_pipelines_tests.runner.desk import Desk

pytestmark = pytest.mark.each_database

SKUS = 24
DELIVERIES = 70


class Place:
    """A table, and a ledger that is in the same database or not.

    Args:
        folder: Of the settings.
        url: Of the table's database.
        ledger: The URL of the ledger's database, None for a file in the folder.
    """

    def __init__(self, folder: Path, url: str, ledger: str | None) -> None:
        self.folder, self.url, self.ledger = folder, url, ledger
        child.make_table(url)

    @property
    def is_one_database(self) -> bool:
        return self.url == self.ledger

    def deliver(self, seed: int) -> None:
        """Many items, some deletes, some items that the table refuses, in any order of their versions."""
        rng = random.Random(seed)
        with open_workspace(child.settings_of(self.folder, self.ledger)) as workspace:
            desk = Desk(workspace)
            for version in rng.sample(range(1, 1_000), DELIVERIES):
                sku = rng.randrange(SKUS)
                if version % 17 == 0:
                    desk.upsert({"sku": SKUS + sku, "stock": child.BAD_STOCK, "version": version})
                elif version % 9 == 0:
                    desk.delete(f"{sku:03}")
                else:
                    desk.upsert({"sku": rng.choice([sku, f"{sku:03}"]), "stock": version, "version": version})

    def killed(self, function: Callable[..., None], *given: Any) -> bool:
        """Drains in a process of its own. True if it was killed, False if it came to its end."""
        code = exit_code(fork(function, self.folder, self.url, self.ledger, *given))
        assert code in {0, -signal.SIGKILL}
        return code != 0

    def finish(self) -> None:
        """Drains what is left."""
        with open_workspace(child.settings_of(self.folder, self.ledger)) as workspace, child.small_batches():
            Desk(workspace).drain(child.job(self.url))

    def rows(self) -> dict[int, int]:
        database = create_database(self.url)
        try:
            with database.begin() as connection:
                found = connection.execute(sa.text("SELECT sku, stock FROM variants")).all()
        finally:
            database.dispose()
        return {row[0]: row[1] for row in found}

    def deliveries(self) -> list[Delivery]:
        with open_workspace(child.settings_of(self.folder, self.ledger)) as workspace:
            return sorted(workspace.inbox.newest(limit=10_000), key=lambda each: each.id)

    def counted(self) -> Counter[str]:
        """The counts of all runs."""
        total: Counter[str] = Counter()
        with open_workspace(child.settings_of(self.folder, self.ledger)) as workspace:
            for run in workspace.ledger.latest_runs("stock", 1_000):
                total.update(workspace.batches.of_run(run.id).total())
        return Counter({name: count for name, count in total.items() if count})

    def assert_together(self) -> None:
        """What is settled is in the table, what is in the table is settled, and the ledger has counted just that."""
        deliveries = self.deliveries()
        tried = [each for each in deliveries if each.attempts]
        assert self.rows() == model(tried)
        actions = Counter(each.action or "failed" for each in tried)
        assert self.counted() == actions

    def assert_accounted(self) -> None:
        """Every delivery has an end, or waits with its reason; the table is what they say."""
        deliveries = self.deliveries()
        assert len(deliveries) == DELIVERIES
        for each in deliveries:
            assert each.action is not None or (each.attempts == 1 and "stock" in str(each.message).lower())
        assert self.rows() == model(deliveries)


def model(deliveries: list[Delivery]) -> dict[int, int]:
    """What the table has when each delivery is applied as it came, those that the table refuses aside."""
    rows = {0: 100_000, 1: 100_001}
    versions: dict[int, int] = {}
    for each in deliveries:
        sku = int(each.external_id or "")
        if each.kind == "delete":
            rows.pop(sku, None)
            continue
        item: Any = decode(each.item or "")
        if item["version"] < versions.get(sku, 0):
            continue
        versions[sku] = item["version"]
        if item["stock"] != child.BAD_STOCK:
            rows[sku] = item["stock"]
    return rows


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, ledger elsewhere"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return Place(tmp_path / "data", url, url if request.param == "postgresql" else None)


@pytest.fixture
def one_database(tmp_path: Path, postgres_url: str) -> Place:
    return Place(tmp_path / "data", postgres_url, postgres_url)


INSTANTS = ["before decide", "before write", "after write", "after versions", "before settle", "after settle"]
INSTANTS += ["before chunk", "after chunk", "after commit", "before finish"]


@pytest.mark.parametrize("instant", INSTANTS)
def test_after_a_kill_in_one_database_all_is_there_together_or_not_at_all(one_database: Place, instant: str) -> None:
    number = 1 if instant == "before finish" else 2
    one_database.deliver(seed=7)
    assert one_database.killed(child.drain_and_be_killed, instant, number)
    one_database.assert_together()
    one_database.finish()
    one_database.assert_together()
    one_database.assert_accounted()


@pytest.mark.parametrize("instant", ["after write", "before settle", "after settle"])
def test_after_a_kill_nothing_is_lost_wherever_the_ledger_is(place: Place, instant: str) -> None:
    place.deliver(seed=8)
    assert place.killed(child.drain_and_be_killed, instant, 2)
    place.finish()
    place.assert_accounted()


def test_after_kills_at_random_instants_all_is_there_together_or_not_at_all(one_database: Place) -> None:
    one_database.deliver(seed=9)
    for seed in range(8):
        one_database.killed(child.drain_and_be_killed_some_time, seed, 0.4)
        one_database.assert_together()
    one_database.finish()
    one_database.assert_together()
    one_database.assert_accounted()
