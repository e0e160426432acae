"""The same JSON, however it comes: from a REST interface, a file, a webhook, the command line, or out of the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import sqlalchemy as sa

from sync_pipelines.cli import item as item_command
from sync_pipelines.database.failures import Failures
from sync_pipelines.database.inbox import Inbox
from sync_pipelines.delivery import single_items
from sync_pipelines.delivery.webhook_app import webhook_app
from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.runner.changes.drain import Drain, DrainLimits
from sync_pipelines.runner.changes.retry_failures import retry_failures
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.sources.json_lines import json_lines
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryTarget

PRICE = "12345678901234.567891"
ITEM = '{"id": 7.0, "price": ' + PRICE + ', "name": "Größe", "big": 123456789012345678901234567890, "whole": 1.0}'
EXACT = {
    "id": Decimal("7.0"),
    "price": Decimal(PRICE),
    "name": "Größe",
    "big": 123456789012345678901234567890,
    "whole": Decimal("1.0"),
}

Job = SyncJob[Any, Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None, jobs=())


def rest(body: bytes, content_type: str = "application/json") -> RestSource:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body, headers={"content-type": content_type})

    return RestSource("https://erp.example/items", transport=httpx.MockTransport(answer))


def job_of(target: Any, fetch: Any = list, **fields: Any) -> Job:
    given = {"name": "prices", "fetch_external": fetch, "get_external_id": "id", "target": target, **fields}
    return SyncJob(**given)


def posted(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, job: Job, body: bytes, content_type: str = "application/json"
) -> httpx.Response:
    """Sends a webhook, which is stored."""
    monkeypatch.setattr("sync_pipelines.delivery.webhook_app.find_jobs", lambda _, **_options: {job.name: job})
    app = webhook_app(settings=settings)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver") as client:
            return await client.post("/webhooks/prices", content=body, headers={"content-type": content_type})

    try:
        return anyio.run(send)
    finally:
        app.close()


def drained(settings: Settings, job: Job) -> Any:
    with open_workspace(settings) as workspace:
        return Drain(job, workspace).run(DrainLimits())


def by_rest(_place: Any, settings: Settings, _patch: Any, target: Any) -> None:
    assert run_sync(job_of(target, rest(f"[{ITEM}]".encode())), settings=settings).outcome == "clean"


def by_file(place: Path, settings: Settings, _patch: Any, target: Any) -> None:
    (place / "items.jsonl").write_text(ITEM, encoding="utf-8-sig")
    assert run_sync(job_of(target, json_lines(place / "items.jsonl")), settings=settings).outcome == "clean"


def by_webhook(_place: Any, settings: Settings, patch: pytest.MonkeyPatch, target: Any) -> None:
    job = job_of(target, webhook=Webhook(signature=Unsigned()))
    assert posted(patch, settings, job, ITEM.encode()).status_code == 202
    drained(settings, job)


def by_parse(_place: Any, settings: Settings, patch: pytest.MonkeyPatch, target: Any) -> None:
    """What `parse` can't make out at once is kept as it came, and parsed again."""
    calls: list[int] = []

    def parse(event: Any) -> Any:
        calls.append(1)
        return 1 / (len(calls) - 1) and event.body

    job = job_of(target, webhook=Webhook(signature=Unsigned(), parse=parse))
    assert posted(patch, settings, job, ITEM.encode("utf-16")).status_code == 202
    drained(settings, job)


def by_command(_place: Any, settings: Settings, patch: pytest.MonkeyPatch, target: Any) -> None:
    patch.setattr(single_items, "find_job", lambda _: job_of(target))
    patch.setenv("SYNC_PIPELINES_DATA_DIR", str(settings.data_dir))
    item_command.apply_one("prices", ITEM, as_json=False)


def by_trigger(_place: Any, settings: Settings, patch: pytest.MonkeyPatch, target: Any) -> None:
    job = job_of(target)
    patch.setattr(single_items, "find_job", lambda _: job)
    single_items.trigger_item("prices", dict(EXACT), settings=settings)
    drained(settings, job)


WAYS: list[Callable[..., None]] = [by_rest, by_file, by_webhook, by_parse, by_command, by_trigger]


@pytest.mark.parametrize("way", WAYS)
def test_an_item_is_the_same_in_whatever_way_it_comes(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, way: Callable[..., None]
) -> None:
    target = MemoryTarget()
    way(tmp_path, settings, monkeypatch, target)
    (found,) = target.records.values()
    assert {name: repr(value) for name, value in found.items()} == {name: repr(EXACT[name]) for name in EXACT}
    assert list(target.records) == ["7"]


def test_a_price_that_a_webhook_brings_is_not_changed_back_by_the_next_sync(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, postgres: sa.Engine
) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE prices (id int PRIMARY KEY, price numeric(24, 6), name text)")
    target = SqlTable(table="prices", key="id", columns=["price", "name"], database=postgres)
    job = job_of(target, rest(f"[{ITEM}]".encode()), webhook=Webhook(signature=Unsigned()))
    posted(monkeypatch, settings, job, ITEM.encode())
    drained(settings, job)
    with postgres.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM prices").all() == [(7, Decimal(PRICE), "Größe")]
    assert run_sync(job, settings=settings).unchanged == 1


CHARSETS = [
    ("application/json;charset=ISO-8859-1", "utf-8"),
    ('application/json; Charset="windows-1252"', "utf-8"),
    ("application/json; charset=utf-16", "utf-8"),
    ("application/json; charset=ISO-8859-1", "latin-1"),
    ("application/json; charset=nonsense", "utf-8"),
    ("application/json", "utf-8-sig"),
    ("application/json; charset=utf-8", "utf-16"),
    ("application/json", "utf-16-le"),
    ("application/json", "utf-32-be"),
]


@pytest.mark.parametrize(("content_type", "encoding"), CHARSETS)
def test_json_is_utf_8_if_it_can_be_whatever_the_header_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, content_type: str, encoding: str
) -> None:
    ((found,),) = [*rest('[{"id": 1, "name": "Größe"}]'.encode(encoding), content_type)()]
    assert found == {"id": 1, "name": "Größe"}
    job = job_of(MemoryTarget(), webhook=Webhook(signature=Unsigned()))
    assert posted(monkeypatch, settings, job, '{"id": 1, "name": "Größe"}'.encode(encoding), content_type).is_success
    with open_workspace(settings) as workspace:
        (delivery,) = Inbox(workspace.ledger).newest("prices")
    assert decode(delivery.item or "") == found


def test_what_is_in_no_known_encoding_is_told_by_its_place(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(MemoryTarget(), webhook=Webhook(signature=Unsigned()))
    answer = posted(monkeypatch, settings, job, b'{"id": "\xff"}', "application/json; charset=x-own")
    told = "the body is not JSON: it is not UTF-8 at byte 8, nor 'x-own' as it is declared"
    assert (answer.status_code, answer.json()["error"]) == (422, told)


KEPT = r"""{"id": "A", "bad": "no number", "decimal": 1.10, "whole": 1.0, "int": 1, "zero": -0.0, "big": 1e400,
    "text": "a\u0000b", "$": "decimal", "list": [[], {}, null, true, 0.1]}"""


def test_a_failed_item_is_kept_and_tried_again_exactly_as_it_came(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def create(item: Any) -> None:
        taken.append(item)
        if len(taken) == 1:
            raise ValueError("not today")

    job = SyncJob[Any, Any](
        name="prices",
        fetch_external=rest(f"[{KEPT}]".encode()),
        get_external_id="id",
        find_local=lambda _: None,
        create=create,
        update=lambda *_: None,
        webhook=Webhook(signature=Unsigned()),
    )
    assert run_sync(job, settings=settings).error_count == 1
    with open_workspace(settings) as workspace:
        assert Failures(workspace.ledger).of_item("prices", "A") is not None
    retry_failures(job, external_ids=["A"], settings=settings)
    posted(monkeypatch, settings, job, KEPT.encode())
    drained(settings, job)
    first, again, delivered = map(repr, taken)
    assert first == again == delivered == repr(json.loads(KEPT, parse_float=Decimal))
