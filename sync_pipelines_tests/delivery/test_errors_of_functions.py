"""Whatever function of the user's own raises an error: an operator reads which one, where, and what."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import sqlalchemy as sa

from sync_pipelines.database.inbox_storing import NewDelivery
from sync_pipelines.engine.changes import Refetch
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.declaration_checks import require_callable_as_declared
from sync_pipelines.engine.plan import FieldChange
from sync_pipelines.engine.redaction import described
from sync_pipelines.engine.webhook_handshakes import Handshake
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.runner.runs import comparing_run
from sync_pipelines.settings.model import Settings
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_paging import PageNumberPaging
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.webhooks.conftest import receiving

ITEMS = [{"sku": "A", "n": 1}, {"sku": "B", "n": 2}]
SAID = "no luck with password=hunter22 at https://me:s3cr3t-t0ken@erp.example/items"
READ = "no luck with password=*** at https://me:***@erp.example/items"


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that lets nobody set anything."""

    said: str

    def __str__(self) -> str:
        return self.said


ERRORS = [ValueError, StopIteration, FrozenError, TimeoutError]


class Broken:
    """Makes functions that raise an error."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def plain(self, *_: Any) -> Any:
        raise self.kind(SAID)

    async def later(self, *_: Any) -> Any:
        raise self.kind(SAID)

    def pages(self, *_: Any) -> Iterator[Any]:
        yield ITEMS[:1]
        self.plain()

    async def pages_later(self, *_: Any) -> AsyncIterator[Any]:
        yield ITEMS[:1]
        self.plain()


@pytest.fixture(params=ERRORS)
def broken(request: pytest.FixtureRequest) -> Broken:
    return Broken(request.param)


@pytest.fixture
def read(settings: Settings, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Runs something of a job, and gives all that an operator reads of it."""
    caplog.set_level(logging.INFO)

    def run(job: SyncJob[Any, Any], act: Callable[[SyncJob[Any, Any]], Any] | None = None) -> str:
        caplog.clear()
        raised = ""
        try:
            act(job) if act is not None else run_sync(job, settings=settings)
        except Exception as error:  # noqa: BLE001 - whatever it raises is read
            raised = described(error)
        return "\n".join([raised, *(each.getMessage() for each in caplog.records)])

    return run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)


def require_told(text: str, what: str, function: str = "plain") -> None:
    """The job, the function, its place and its message are there, and no secret."""
    assert "things" in text
    parts = [what, re.escape(READ), rf"test_errors_of_functions\.py:\d+, in {function}\b"]
    assert any(all(re.search(part, line) for part in parts) for line in text.splitlines()), text
    assert "hunter22" not in text
    assert "s3cr3t" not in text


def functions_job(**fields: Any) -> SyncJob[Any, Any]:
    given: dict[str, Any] = {
        "find_local": {"A": {"sku": "A"}}.get,
        "create": lambda _item: None,
        "update": lambda _item, _local: None,
        "delete": lambda _local: None,
        "list_local": lambda: ["A", "gone"],
        "get_external_id": "sku",
        "deletes": "hard",
        "guards": None,
    }
    return SyncJob(**{"name": "things", "fetch_external": lambda: ITEMS, **given, **fields})


OF_A_JOB = [
    "create",
    "update",
    "find_local",
    "list_local",
    "has_changed",
    "should_skip",
    "get_external_id",
    "get_version",
]


@pytest.mark.parametrize("how", ["plain", "later"])
@pytest.mark.parametrize("name", [*OF_A_JOB, "delete", "on_start", "on_complete"])
def test_a_function_of_a_job(read: Callable[..., str], broken: Broken, name: str, how: str) -> None:
    fields: dict[str, Any] = {name: getattr(broken, how)}
    if name == "delete":
        fields["find_local"] = lambda sku: {"sku": sku}
    if broken.kind is StopIteration and (how == "later" or name == "list_local"):
        pytest.skip("Python itself makes a RuntimeError of it")
    if broken.kind is FrozenError and name == "list_local":
        pytest.skip("Python's own context managers fail on it")
    require_told(read(functions_job(**fields)), name, how)


@pytest.mark.parametrize("how", ["plain", "later", "pages", "pages_later"])
def test_a_source(read: Callable[..., str], broken: Broken, how: str) -> None:
    if broken.kind is StopIteration:
        pytest.skip("Python itself makes a RuntimeError of it")
    require_told(
        read(functions_job(fetch_external=getattr(broken, how))), "the source", "later" if how == "later" else "plain"
    )


def test_the_paging_of_a_source(read: Callable[..., str], broken: Broken) -> None:
    if broken.kind in {StopIteration, FrozenError}:
        pytest.skip("Python itself makes another error of it")

    class Paging(PageNumberPaging):
        def first(self, *_: Any, **__: Any) -> Any:
            return broken.plain()

        next = first

    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=ITEMS))
    source = RestSource("https://erp.example/items", paging=Paging(), transport=transport)
    require_told(read(functions_job(fetch_external=source)), "the source")


def table_job(target: Any, **fields: Any) -> SyncJob[Any, Any]:
    given = {"name": "things", "fetch_external": lambda: ITEMS, "get_external_id": "sku", "guards": None}
    return SyncJob(**{**given, "target": target, **fields})


@pytest.mark.parametrize("from_items", [0, 10**9], ids=["in bulk", "page by page"])
@pytest.mark.parametrize(
    "name", ["column 'n'", "columns", "has_changed", "should_skip", "get_external_id", "get_version"]
)
def test_a_job_with_a_table(
    read: Callable[..., str], broken: Broken, sqlite: sa.Engine, name: str, from_items: int
) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (sku TEXT PRIMARY KEY, n INTEGER)")
        connection.exec_driver_sql("INSERT INTO things VALUES ('A', 5)")
    columns: Any = {"column 'n'": {"n": broken.plain}, "columns": broken.plain}.get(name, ["n"])
    fields: dict[str, Any] = {} if name.startswith("column") else {name: broken.plain}
    target = SqlTable(table="things", key="sku", columns=columns, database=sqlite)
    with patch.object(comparing_run, "FROM_ITEMS", from_items):
        require_told(read(table_job(target, **fields)), name)


class Own:
    """A target of one's own, which does nothing."""

    def find_many(self, external_ids: Any) -> dict[str, Any]:
        return {"A": {"sku": "A"}} if "A" in external_ids else {}

    def canonical_id(self, external_id: str) -> str:
        return external_id

    def changes(self, _item: Any, local: Any) -> dict[str, Any]:
        return {"n": FieldChange(None, 1)} if local else {}

    def create_many(self, items: Any) -> None:
        """Takes them."""

    update_many = create_many
    find_local = create = update = create_many


@pytest.mark.parametrize("name", ["find_many", "create_many", "update_many", "canonical_id", "changes"])
def test_a_target_of_ones_own(
    read: Callable[..., str], broken: Broken, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Own, name, broken.plain)
    if name == "find_many":
        monkeypatch.delattr(Own, "find_local")
        monkeypatch.setattr(Own, "open", lambda self, _identify: nullcontext(self), raising=False)
    require_told(read(table_job(Own())), name)


@pytest.mark.parametrize("how", ["single", "drain"])
def test_fetch_one(read: Callable[..., str], broken: Broken, settings: Settings, how: str) -> None:
    if broken.kind is TimeoutError:
        pytest.skip("an outage, which is told of another way")

    def drain(job: SyncJob[Any, Any]) -> None:
        with open_workspace(settings) as workspace:
            from sync_pipelines.database.inbox_storing import NewDelivery

            now = workspace.clock()
            workspace.inbox.store_many([NewDelivery(job="things", kind="refetch", external_id="A", received_at=now)])
            Drain(job, workspace).run(DrainLimits(idle_wait_s=0))

    job = functions_job(fetch_one=broken.plain)
    act = drain if how == "drain" else lambda each: sync_single_item(each, Refetch("A"), settings=settings)
    text = read(job, act)
    require_told(f"things {text}", "fetch_one")


def posted(job: SyncJob[Any, Any], url: str, method: str = "POST", **scope: Any) -> int:
    with receiving(url, job) as client:
        if method == "GET":
            return client.send("GET", "/webhooks/hook", query_string=b"challenge=abc", **scope).status
        return client.post("hook", ITEMS[0]).status


@pytest.mark.parametrize("name", ["parse", "parse that yields", "delivery_id", "get_external_id", "answer"])
def test_a_function_of_a_webhook(read: Callable[..., str], broken: Broken, sqlite_url: str, name: str) -> None:
    given: dict[str, Any] = {"signature": Unsigned(), "name": "hook"}
    given |= {"delivery_id": broken.plain} if name == "delivery_id" else {}
    given |= {"parse": broken.plain} if name == "parse" else {"parse": broken.pages} if "yields" in name else {}
    if name == "answer":
        given["handshakes"] = replace(Handshake.dropbox(), answer=broken.plain)
    fields = {"get_external_id": broken.plain} if name == "get_external_id" else {}
    if broken.kind is StopIteration and name in {"parse that yields", "get_external_id", "answer"}:
        pytest.skip("Python itself makes a RuntimeError of it")
    job = functions_job(webhook=Webhook(**given), **fields)
    statuses: list[int] = []
    method = "GET" if name == "answer" else "POST"
    text = read(job, lambda each: statuses.append(posted(each, sqlite_url, method)))
    require_told(text, name.split(maxsplit=1)[0])
    assert statuses == [{"get_external_id": 422, "answer": 503}.get(name, 202)]


@pytest.mark.parametrize("kind", ["event", "several"])
def test_parse_in_a_drain(read: Callable[..., str], broken: Broken, settings: Settings, kind: str) -> None:

    if broken.kind is StopIteration and kind == "several":
        pytest.skip("Python itself makes a RuntimeError of it")

    def drain(job: SyncJob[Any, Any]) -> None:
        with open_workspace(settings) as workspace:
            new = NewDelivery(job="things", kind="event", payload="{}", received_at=workspace.clock())
            workspace.inbox.store_many([new])
            Drain(job, workspace).run(DrainLimits(idle_wait_s=0))

    parse = broken.plain if kind == "event" else broken.pages
    require_told(read(functions_job(webhook=Webhook(signature=Unsigned(), parse=parse)), drain), "parse")


def two(_one: Any, _two: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("get_external_id", {"get_external_id": two}),
        ("get_version", {"get_version": two}),
        ("webhook: parse", {"webhook": Webhook(signature=Unsigned(), parse=two)}),
        ("webhook: delivery_id", {"webhook": Webhook(signature=Unsigned(), delivery_id=two)}),
        (
            "webhook: handshakes: answer",
            {"webhook": Webhook(signature=Unsigned(), handshakes=replace(Handshake.dropbox(), answer=two))},
        ),
    ],
)
def test_functions_that_take_another_number_of_arguments_are_found(named: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"'things': {named}: .*two.* is called with one argument"):
        require_callable_as_declared(functions_job(**fields))


@pytest.mark.parametrize(("named", "columns"), [("column 'n'", {"n": two}), ("columns", two)])
def test_functions_of_a_table_that_take_another_number_are_found(named: str, columns: Any) -> None:
    table = SqlTable(table="things", key="sku", columns=columns, database="sqlite://")
    job: SyncJob[Any, Any] = SyncJob(name="things", fetch_external=list, target=table)
    with pytest.raises(ConfigurationError, match=rf"'things': target: {named}: .*two.* is called with one argument"):
        require_callable_as_declared(job)


async def later(_: Any) -> Any:
    return None


def test_what_nobody_waits_for_may_not_be_async() -> None:
    with pytest.raises(ConfigurationError, match="'things': webhook: delivery_id: is async"):
        functions_job(webhook=Webhook(signature=Unsigned(), delivery_id=later))
    handshake = replace(Handshake.dropbox(), answer=later)
    with pytest.raises(ConfigurationError, match="'things': webhook: handshakes: answer: is async"):
        functions_job(webhook=Webhook(signature=Unsigned(), handshakes=handshake))
