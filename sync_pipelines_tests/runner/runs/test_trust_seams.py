"""Where guards, deletes, plans, failures and history meet: none of them undoes what another one promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.failures import Failures
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import TooManyFailedError
from sync_pipelines.registry.history import record_history
from sync_pipelines.registry.plans import apply_plan
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.plans.plan_view import open_plan
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs.comparing_run import ComparingRun, SnapshotRef
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete

Item = dict[str, Any]
TIGHT = Guards(few=0, max_delete_share=0.2, max_update_share=0.5, max_shrink_share=None)


def items(numbers: range, stock: int = 1) -> list[Item]:
    return [{"id": str(number), "stock": stock} for number in numbers]


class Shop:
    """A sync into a table whose rows are marked as deleted, and whose key is a number while the source writes texts."""

    def __init__(self, settings: Settings, database: sa.Engine) -> None:
        self.settings = settings
        self.database = database
        self.fetched: list[Item] = []
        self.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, stock INTEGER CHECK (stock >= 0), gone BOOLEAN)")

    def execute(self, statement: str) -> None:
        with self.database.begin() as connection:
            connection.exec_driver_sql(statement)

    def job(self, **fields: Any) -> SyncJob[Any, Any]:
        target = SqlTable(
            table="things",
            key="id",
            columns=["stock"],
            database=self.database,
            soft_delete=SoftDelete("gone", deleted=True, live=False),
        )
        given = {"name": "things", "fetch_external": lambda: self.fetched, "target": target, "deletes": "soft"}
        return SyncJob(**{**given, "guards": None, **fields})

    def sync(self, fetched: list[Item], *, options: dict[str, Any] | None = None, **fields: Any) -> SyncResults:
        self.fetched = fetched
        results = run_sync(self.job(**fields), settings=self.settings, **options or {})
        assert results.accounts_balance, results.summary()
        return results

    def release(self, results: SyncResults, **fields: Any) -> SyncResults:
        job = self.job(**fields)
        released = apply_plan(results.plan_id or "", job=job, settings=self.settings, reason="right")
        assert released.accounts_balance
        return released

    def marked(self) -> set[int]:
        with self.database.connect() as connection:
            return set(connection.scalars(sa.text("SELECT id FROM things WHERE gone")))

    def unresolved(self) -> list[str | None]:
        with open_workspace(self.settings) as workspace:
            parts = Failures(workspace.ledger).unresolved("things", "", workspace.clock())
            return [each.external_id for part in parts for each in part]

    def told(self, external_id: str) -> list[tuple[str, dict[str, Any]]]:
        """Kind and fields of what happened to a record, oldest first."""
        events = reversed(record_history(self.job(), external_id, settings=self.settings))
        return [(e.kind, {name: (c.old, c.new) for name, c in (e.changes or {}).items()}) for e in events]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> sa.Engine:
    """A database of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["in bulk", "page by page"])
def shop(
    request: pytest.FixtureRequest, settings: Settings, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    """A shop that is synced in either way."""
    if request.param == "page by page":
        monkeypatch.setattr(ComparingRun, "_is_worth_it", lambda _self, _files: False)
    return Shop(settings, database)


def deliver(shop: Shop, *given: Item) -> None:
    with open_workspace(shop.settings) as workspace:
        for each in given:
            workspace.inbox.store("things", encode(each), workspace.clock())
        Drain(shop.job(), workspace).run(DrainLimits(idle_wait_s=0))


class Killed(BaseException):
    """The process dies here."""


def dying(real: Callable[..., Any]) -> Callable[..., Any]:
    """Dies when it is called for the second time."""
    calls: list[int] = []

    def save(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return real(*args, **options)

    return save


def apply_until_killed(shop: Shop, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> SnapshotRef:
    """A run of the job, which dies when it has applied something."""
    run = SyncRun(shop.job(guards=TIGHT), workspace)
    snapshot = run.fetch()
    plan = run.diff(snapshot)
    with monkeypatch.context() as patched:
        for name in ("save", "replace"):
            patched.setattr(Batches, name, dying(getattr(Batches, name)))
        with pytest.raises(Killed):
            run.apply(plan)
    return snapshot


def test_what_guards_withhold_stays_withheld_when_the_diff_is_made_again_after_a_kill(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was created until then makes the share of the deletes and updates look small."""
    shop.sync(items(range(1_000)))
    shop.fetched = [*items(range(700), stock=2), *items(range(2_000, 5_000))]
    with open_workspace(shop.settings) as workspace:
        snapshot = apply_until_killed(shop, workspace, monkeypatch)
        run = SyncRun(shop.job(guards=TIGHT), workspace)

        results = run.apply(run.diff(snapshot))

    assert (results.outcome, results.deleted, results.updated) == ("guarded", 0, 0)
    assert (results.withheld.delete, results.withheld.update) == (300, 700)
    assert shop.marked() == set()
    released = shop.release(results, guards=TIGHT)
    assert (released.deleted, released.updated) == (300, 700)


def test_a_withheld_update_leaves_the_failure_of_its_item_open_however_the_source_writes_its_id(shop: Shop) -> None:
    others = [*items(range(1, 7)), *items(range(8, 30))]
    shop.sync([*others, {"id": "7", "stock": 1}])
    shop.sync([*others, {"id": "007", "stock": -1}])
    assert shop.unresolved() == ["7"]

    changed = [{**each, "stock": 2} for each in [*others, {"id": "007"}]]
    guarded = shop.sync(changed, guards=TIGHT)

    assert guarded.withheld.update == 29
    assert shop.unresolved() == ["7"]
    assert shop.release(guarded, guards=TIGHT).updated == 29
    assert shop.unresolved() == []


def test_a_plan_is_applied_even_if_more_of_it_failed_than_the_job_allows(shop: Shop) -> None:
    shop.sync(items(range(30)))
    guarded = shop.sync(items(range(10)), guards=TIGHT)
    shop.execute("UPDATE things SET stock = 9 WHERE id = 20")

    with pytest.raises(TooManyFailedError):
        shop.release(guarded, guards=TIGHT, fail_above=0)

    assert shop.marked() == set(range(10, 30)) - {20}
    assert open_plan(guarded.plan_id or "", settings=shop.settings).state == "applied"


@pytest.mark.parametrize("kept", [True, False])
def test_a_plan_deletes_nothing_that_a_newer_whole_run_has_found(shop: Shop, *, kept: bool) -> None:
    """Whether the items of that run are kept or not."""
    shop.sync(items(range(10)))
    planned = shop.sync(items(range(8)), options={"dry_run": True})
    shop.fetched = items(range(9))
    with open_workspace(shop.settings) as workspace:
        run = SyncRun(shop.job(), workspace)
        results = run.apply(run.diff(run.fetch()))
        if not kept:
            workspace.store.files_of(results.run_id).remove()

    released = shop.release(planned)

    assert (released.deleted, released.failed_deletes) == (0, 1)  # the other one had been deleted by then
    assert shop.marked() == {9}


def test_a_plan_deletes_nothing_that_a_run_for_certain_items_has_found_since(shop: Shop) -> None:
    shop.sync(items(range(30)))
    guarded = shop.sync(items(range(10)), guards=TIGHT)
    shop.sync([*items(range(30)), {"id": "0020", "stock": 1}], options={"only": ["0020"]})

    released = shop.release(guarded, guards=TIGHT)

    assert (released.deleted, released.failed_deletes) == (19, 1)
    assert shop.marked() == set(range(10, 30)) - {20}


def test_a_plan_deletes_nothing_that_a_retry_has_found_in_the_source_since(shop: Shop) -> None:
    source = {"fetch_one": lambda external_id: {"id": external_id, "stock": 1}}
    shop.sync(items(range(30)))
    shop.sync([*items(range(29)), {"id": "29", "stock": -1}])
    guarded = shop.sync(items(range(10)), guards=TIGHT, **source)
    assert retry_failures(shop.job(**source), external_ids=["29"], settings=shop.settings).unchanged == 1

    released = shop.release(guarded, guards=TIGHT, **source)

    assert (released.deleted, released.failed_deletes) == (19, 1)
    assert shop.marked() == set(range(10, 29))


def test_the_history_of_a_marked_record_says_what_was_written_of_it(shop: Shop) -> None:
    shop.sync(items(range(1, 5)))
    shop.sync(items(range(1, 4)))
    shop.sync(items(range(1, 5)))
    shop.sync(items(range(1, 4)))
    shop.sync([*items(range(1, 4)), {"id": "4", "stock": 3}])

    assert shop.told("4")[1:] == [
        ("deleted", {"gone": (False, True)}),
        ("updated", {"gone": (True, False)}),
        ("deleted", {"gone": (False, True)}),
        ("updated", {"stock": (1, 3), "gone": (True, False)}),
    ]


def test_the_error_of_a_row_that_the_database_refuses_does_not_tell_its_values(shop: Shop) -> None:
    """They have no names there, by which a password among them could be known."""
    shop.execute("ALTER TABLE things ADD COLUMN password TEXT")
    target = SqlTable(table="things", key="id", columns=["stock", "password"], database=shop.database)

    results = shop.sync([{"id": "1", "stock": -1, "password": "hunter2"}], target=target, deletes="hard")

    assert "hunter2" not in results.errors[0].message
    assert "stock" in results.errors[0].message


def test_the_grace_of_a_record_begins_anew_when_its_item_comes_by_itself(shop: Shop) -> None:
    """Whether it was spared until then, or deleted already."""
    for numbers in (range(5), range(4), range(3)):
        shop.sync(items(numbers), delete_after=2)
    assert shop.marked() == {4}
    deliver(shop, *items(range(3, 5)))

    planned = shop.sync(items(range(3)), delete_after=2, options={"dry_run": True})
    first = shop.sync(items(range(3)), delete_after=2)
    second = shop.sync(items(range(3)), delete_after=2)

    assert planned.planned is not None
    assert (planned.planned.delete, first.deleted, second.deleted) == (0, 0, 2)
    assert shop.marked() == {3, 4}
