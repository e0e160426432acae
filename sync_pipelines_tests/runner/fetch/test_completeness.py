"""A fetch that was not told to be complete: nothing is taken for missing, and the run says why, with figures."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from sync_pipelines import tell_incomplete
from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines.engine.completeness import BY_CONTRACT, Completeness
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import FetchError
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.snapshots.durable_files import read_json, write_json
from sync_pipelines.snapshots.snapshot import Snapshot
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_paging import (
    CursorPaging,
    LinkHeaderPaging,
    NextUrlPaging,
    OffsetPaging,
    PageNumberPaging,
)
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryTarget

Item = dict[str, Any]
Sync = Callable[..., SyncResults]
SIZE = 2


def items(count: int) -> list[Item]:
    return [{"sku": f"A{number}", "stock": 1} for number in range(count)]


class Api:
    """A server with pages of two items.

    Args:
        total: How many items it says that there are.
        gives: How many items it gives.
    """

    def __init__(self, gives: int = 10, total: int | None = None) -> None:
        self.gives, self.total = gives, total

    def source(self, paging: Any, **options: Any) -> RestSource:
        transport = httpx.MockTransport(self._answer)
        return RestSource("http://api.test/items", paging=paging, transport=transport, attempts=1, **options)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        start = int(asked.get("offset") or asked.get("cursor") or SIZE * (int(asked.get("page", 1)) - 1))
        end = min(start + SIZE, self.gives)
        following = f"http://api.test/items?cursor={end}" if end < self.gives else None
        body = {
            "value": items(self.gives)[start:end],
            "@odata.nextLink": following,
            "cursor": end if following else None,
        }
        if self.total is not None:
            body["total"] = self.total
        link = {"Link": f'<{following}>; title="page; 2, or so"; rel="next"'} if following else {}
        return httpx.Response(200, json=body, headers=link)


@pytest.fixture
def stock(target: MemoryTarget, sync: Sync) -> MemoryTarget:
    """The target after a good fetch of ten items."""
    sync(items(10))
    return target


@pytest.mark.parametrize(
    "paging",
    [
        NextUrlPaging("@odata.nextLink"),
        LinkHeaderPaging(),
        OffsetPaging(total_path="total"),
        CursorPaging("cursor"),
        PageNumberPaging(),
    ],
)
def test_complete_fetch_of_every_paging_deletes_what_is_gone(stock: MemoryTarget, sync: Sync, paging: Any) -> None:
    results = sync(Api(gives=9, total=9).source(paging, items_path="value"), deletes="hard")
    assert (results.fetched, results.deleted, results.notes) == (9, 1, ())
    assert len(stock.records) == 9


def test_odata_next_links_are_followed_and_nothing_is_deleted(stock: MemoryTarget, sync: Sync) -> None:
    results = sync(Api().source(NextUrlPaging("@odata.nextLink"), items_path="value"), deletes="hard")
    assert (results.fetched, results.unchanged, results.deleted) == (10, 10, 0)


@pytest.mark.parametrize("deletes", ["hard", "off"])
def test_misspelt_path_deletes_nothing_and_is_told(stock: MemoryTarget, sync: Sync, deletes: str) -> None:
    results = sync(Api().source(NextUrlPaging("@odata.nextlink"), items_path="value"), deletes=deletes)
    assert (results.fetched, results.deleted, len(stock.records)) == (2, 0, 10)
    told = "\n".join(results.notes)
    assert "1 page; nothing at '@odata.nextlink'; the answer has: value, @odata.nextLink, cursor" in told
    assert (
        "no deletes: the fetch may not be complete" if deletes == "hard" else "the fetch may not be complete"
    ) in told


def test_empty_page_before_the_total_is_an_error_and_deletes_nothing(stock: MemoryTarget, sync: Sync) -> None:
    with pytest.raises(FetchError, match="8 of 10 items"):
        sync(Api(gives=8, total=10).source(OffsetPaging(total_path="total"), items_path="value"), deletes="hard")
    assert len(stock.records) == 10


@pytest.mark.parametrize("paging", [PageNumberPaging(), OffsetPaging(), CursorPaging("cursor"), LinkHeaderPaging()])
def test_pages_that_end_before_the_total_delete_nothing(stock: MemoryTarget, sync: Sync, paging: Any) -> None:
    results = sync(Api(gives=8, total=10).source(paging, items_path="value"), deletes="hard")
    assert (results.fetched, results.deleted, len(stock.records)) == (8, 0, 10)
    assert "8 of 10 items came" in results.notes[-1]


def test_in_the_database_nothing_is_deleted_either(database: sa.Engine, settings: Settings) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE variants (sku VARCHAR(20) PRIMARY KEY, stock INTEGER)")
    for gives, total, left in ((10, 10, 10), (8, 10, 10), (9, 9, 9)):
        job = SyncJob[Any, Any](
            name="stock",
            fetch_external=Api(gives, total).source(PageNumberPaging(), items_path="value"),
            target=SqlTable(table="variants", key="sku", columns=["stock"], database=database),
            deletes="hard",
            guards=None,
        )
        assert run_sync(job, settings=settings).outcome == "clean"
        with database.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM variants")) == left


@pytest.mark.parametrize("paging", [PageNumberPaging(), OffsetPaging(), OffsetPaging(total_path="total")])
@pytest.mark.parametrize("how", ["items", "parts"])
def test_items_that_come_twice_do_not_fill_up_a_total(stock: MemoryTarget, sync: Sync, paging: Any, how: str) -> None:
    """One item was put in before the third page: A5 comes again in another form, and A9 never."""
    shown = [[0, 1], [2, 3], [4, 5], [6, 5], [7, 8], []]

    def answer(request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        number = int(asked["page"]) - 1 if "page" in asked else int(asked["offset"]) // SIZE
        given = [{"sku": f"A{each}", "stock": 1, "seen_on": number} for each in shown[number]]
        return httpx.Response(200, json={"value": given, "total": 10})

    api = RestSource("http://api.test/items", items_path="value", paging=paging, transport=httpx.MockTransport(answer))

    def fetch() -> Iterator[Item]:
        for page in api():
            for item in page:
                yield from (item, {**item, "sku": f"{item['sku']}-part"})

    results = sync(api if how == "items" else fetch, deletes="hard")
    if how == "parts":
        assert results.deleted == 1  # of the items that a function makes of others the source says no number
        return
    assert results.deleted == 0
    assert "the total is 10 and 9 different items came, 1 came again" in "\n".join(results.notes)
    assert len(results.duplicates) == 1


@pytest.mark.parametrize("from_items", [0, 10**9], ids=["in bulk", "in pages"])
def test_in_the_database_they_do_not_either(
    database: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, from_items: int
) -> None:
    monkeypatch.setattr(comparing_run, "FROM_ITEMS", from_items)
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE variants (sku VARCHAR(20) PRIMARY KEY, stock INTEGER)")
        connection.exec_driver_sql("INSERT INTO variants VALUES ('A0', 1), ('A1', 1), ('A2', 1), ('A3', 1)")
    pages = [[0, 1], [1, 2], []]
    replies = [{"value": [{"sku": f"A{each}", "stock": 2} for each in shown], "total": 4} for shown in pages]
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, json=replies[int(request.url.params["page"]) - 1])
    )
    job = SyncJob[Any, Any](
        name="stock",
        fetch_external=RestSource(
            "http://api.test/", items_path="value", paging=PageNumberPaging(), transport=transport
        ),
        target=SqlTable(table="variants", key="sku", columns=["stock"], database=database),
        deletes="hard",
        guards=None,
    )
    results = run_sync(job, settings=settings)
    assert (results.updated, results.deleted) == (3, 0)
    assert "the total is 4 and 3 different items came" in "\n".join(results.notes)


def test_items_that_two_sources_give_are_no_reason_to_doubt(stock: MemoryTarget, sync: Sync) -> None:
    source = Api(gives=9, total=9).source(PageNumberPaging(), items_path="value")

    def fetch() -> Iterator[list[Item]]:
        yield from source()
        yield from source()

    assert sync(fetch, deletes="hard").deleted == 1


def partial(count: int) -> Callable[[], Iterator[Item]]:
    def fetch() -> Iterator[Item]:
        yield from items(count)
        tell_incomplete("the export says partial: true")

    return fetch


def test_source_of_ones_own_says_that_it_is_not_complete(stock: MemoryTarget, sync: Sync) -> None:
    results = sync(partial(9), deletes="hard")
    assert (results.deleted, len(stock.records)) == (0, 10)
    assert results.notes == ("no deletes: the fetch may not be complete: the export says partial: true",)


def test_missed_fetches_are_not_counted(stock: MemoryTarget, sync: Sync) -> None:
    for fetch, deleted in ((items(9), 0), (partial(9), 0), (partial(9), 0), (items(9), 1)):
        assert sync(fetch, deletes="hard", delete_after=2).deleted == deleted


def test_failure_whose_item_did_not_come_has_not_vanished(target: MemoryTarget, sync: Sync, settings: Settings) -> None:
    target.fails["A9"] = ValueError("no")
    sync(items(10))

    def state() -> str:
        with open_workspace(settings) as workspace:
            failure = workspace.failures.of_item("stock", "A9")
            assert failure is not None
            return failure.state

    sync(partial(9))
    assert state() == "open"
    sync(items(9))
    assert state() == "resolved"


def test_causes_of_errors_are_not_gone(target: MemoryTarget, sync: Sync) -> None:
    target.fails["A9"] = ValueError("no")
    sync(items(10))
    assert sync(partial(9)).gone_causes == ()
    assert len(sync(items(9)).gone_causes) == 1


def test_next_fetches_are_not_measured_by_it(target: MemoryTarget, sync: Sync, workspace: Workspace) -> None:
    sync(items(10))
    sync(partial(3))
    assert RunQueries(workspace.ledger).last_fetched("stock", ()) == [10]
    good_at = RunQueries(workspace.ledger).last_good_at("stock")
    assert good_at == workspace.ledger.latest_runs("stock")[1].completed_at


def test_guards_look_at_it_all_the_same(stock: MemoryTarget, sync: Sync) -> None:
    guards = Guards(max_update_share=0.1, few=0)

    def changed() -> Iterator[Item]:
        yield from ({**item, "stock": 2} for item in items(9))
        tell_incomplete("who knows")

    results = sync(changed, guards=guards)
    assert (results.outcome, results.updated, results.withheld.update) == ("guarded", 0, 9)


@pytest.mark.parametrize("how", ["items one by one", "async", "swallowed", "a thread", "comprehension"])
def test_what_a_source_says_is_heard_whatever_is_made_of_its_items(stock: MemoryTarget, sync: Sync, how: str) -> None:
    source = Api(gives=8, total=10).source(PageNumberPaging(), items_path="value")

    def one_by_one() -> Iterator[Item]:
        for page in source():
            yield from ({**item} for item in page)

    async def in_loop() -> AsyncIterator[Item]:
        for item in one_by_one():
            yield item

    def swallowing() -> Iterator[Item]:
        try:
            yield from Api(gives=8, total=10).source(OffsetPaging(total_path="total"), items_path="value")()
        except Exception:  # noqa: BLE001 - that is what is tried
            return

    def in_thread() -> list[Item]:
        found: list[Item] = []
        thread = threading.Thread(target=lambda: found.extend(one_by_one()))
        thread.start()
        thread.join()
        return found

    ways: dict[str, Callable[[], Any]] = {
        "items one by one": one_by_one,
        "async": in_loop,
        "swallowed": swallowing,
        "a thread": in_thread,
        "comprehension": lambda: [item for page in source() for item in page],
    }
    results = sync(ways[how], deletes="hard")
    assert (results.fetched, results.deleted, len(stock.records)) == (8, 0, 10)
    assert "8 of 10 items" in results.notes[-1]


def test_source_that_is_left_before_its_end_deletes_nothing(stock: MemoryTarget, sync: Sync) -> None:
    def first_pages() -> Iterator[list[Item]]:
        for number, page in enumerate(Api().source(PageNumberPaging(), items_path="value")()):
            if number == 3:
                return
            yield page

    results = sync(first_pages, deletes="hard")
    assert (results.fetched, results.deleted) == (6, 0)
    assert "was not read to its end" in results.notes[-1]


def test_plain_iterable_that_ends_without_an_error_is_complete(stock: MemoryTarget, sync: Sync) -> None:
    for fetch in (items(9), lambda: iter(items(8)), lambda: [items(4), items(7)[4:]]):
        assert sync(fetch, deletes="hard").deleted == 1


def test_one_fetch_does_not_hear_of_another(stock: MemoryTarget, sync: Sync) -> None:
    sync(partial(9), deletes="hard")
    assert sync(items(9), deletes="hard").deleted == 1


def test_snapshot_and_ledger_keep_what_was_said(job: Callable[..., SyncJob[Any, Any]], workspace: Workspace) -> None:
    names = iter("abcdefgh")

    def kept(fetch: Any, **options: Any) -> Completeness:
        run_id = SyncRun(job(fetch, name=next(names)), workspace).fetch(**options).run_id
        run = workspace.ledger.run(run_id)
        completeness = Snapshot(workspace.store.files_of(run_id).folder).completeness()
        assert run is not None
        assert run.completeness == completeness.to_manifest()
        return completeness

    assert kept(items(3)) == Completeness()
    assert kept(items(3)).ended_by == (BY_CONTRACT,)
    ended_by = "http://api.test/items: 10 items in 6 pages; page 6 is empty"
    assert kept(Api().source(PageNumberPaging(), items_path="value")).ended_by == (ended_by,)
    assert kept(partial(3)).doubts == ("the export says partial: true",)
    limited = kept(items(3), limit=1)
    assert (limited.took_all, limited.is_complete) == (False, False)


def test_manifest_of_an_earlier_version_is_read(
    target: MemoryTarget, job: Callable[..., SyncJob[Any, Any]], workspace: Workspace
) -> None:
    target.records["gone"] = {"sku": "gone"}
    run = SyncRun(job(items(3), deletes="hard"), workspace)
    reference = run.fetch()
    manifest = workspace.store.files_of(reference.run_id).folder / "snapshot.json"
    written = read_json(manifest)
    write_json(manifest, {name: written[name] for name in ("items", "complete", "parts")})
    assert run.apply(run.diff(reference)).deleted == 1
    assert not Completeness.from_manifest({"items": 1, "complete": False}).took_all


def test_limited_run_has_no_note_of_where_it_left_the_source(stock: MemoryTarget, sync: Sync) -> None:
    source = Api().source(PageNumberPaging(), items_path="value")
    assert sync(source, limit=3).notes == ()
    assert sync(source, limit=3, deletes="hard").notes == (
        "no deletes: the run was limited to some items (limit, only)",
    )
