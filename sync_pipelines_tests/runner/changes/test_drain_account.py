"""The full account: whatever fails or is killed, every delivery has its end, and the newest state is there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.inbox import APPLIED, FAILED, WAITING, Delivery, Inbox
from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.changes import Delete, Upsert
from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.retry import Retry
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook, WebhookEvent
from sync_pipelines.errors import FetchError, RetryableError, TargetError
from sync_pipelines.runner.changes.drain import Drain
from sync_pipelines.runner.changes.drain_batch import DrainBatch
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.decide.stale_check import StaleCheck
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing import MemoryTarget
from sync_pipelines_tests.runner.crash_child import killed_at
from sync_pipelines_tests.runner.desk import AT_ONCE, Clock, Desk

pytestmark = pytest.mark.usefixtures("no_waits")

SKUS = [str(number) for number in range(6)]
BAD = ["100", "101"]
"""Ids that the target never takes."""
ENDS = {"created", "updated", "unchanged", "deleted", "skipped", "duplicate"}


class KilledError(BaseException):
    """Stands for a process that ends there and then."""


class Target(MemoryTarget):
    """Takes any spelling of a number as the id; some records fail now and then, or the whole target does."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(columns=["stock"])
        self._rng = rng
        self.is_calm = False

    def canonical_id(self, external_id: str) -> str:
        return str(int(external_id))

    def _id_of(self, each: Any) -> str:
        return self.canonical_id(super()._id_of(each))

    def stir(self) -> None:
        """Decides what fails from now on."""
        share = 0.0 if self.is_calm else 0.25
        flaky = [sku for sku in SKUS if self._rng.random() < share]
        self.fails = dict.fromkeys(BAD, ValueError("never")) | dict.fromkeys(flaky, ValueError("not now"))
        away = not self.is_calm and self._rng.random() < 0.1
        self.fails_to_find = dict.fromkeys(SKUS, RetryableError("no route to host")) if away else {}


@contextmanager
def killed_some_time(rng: random.Random) -> Iterator[None]:
    """Ends the run before or after some step of it, half of the times."""
    steps: list[tuple[Any, str]] = [
        (DrainBatch, "decide_deliveries"),
        (MemoryTarget, "create_many"),
        (MemoryTarget, "update_many"),
        (MemoryTarget, "delete_many"),
        (StaleCheck, "keep_written"),
        (Inbox, "complete"),
        (Batches, "save"),
        (Ledger, "finish_run"),
    ]
    owner, name = rng.choice(steps)
    number, after = rng.randint(1, 3), rng.random() < 0.5

    def killed() -> None:
        raise KilledError

    if rng.random() < 0.5:
        yield
        return
    with (
        patch("sync_pipelines_tests.runner.crash_child.killed", killed),
        patch.object(owner, name, killed_at(getattr(owner, name), number, after=after)),
    ):
        yield


def drain(job: SyncJob[Any, Any], desk: Desk, rng: random.Random) -> None:
    """Drains as far as it gets."""
    with patch("sync_pipelines.runner.changes.drain.BATCH_SIZE", rng.choice([1, 3, 50])), killed_some_time(rng):
        try:
            results = Drain(job, desk.workspace).run(AT_ONCE)
        except (KilledError, TargetError, FetchError):
            return
    assert results.accounts_balance


def settled(desk: Desk) -> list[Delivery]:
    """All deliveries. Each is applied or failed, and says how."""
    deliveries = sorted(desk.workspace.inbox.newest(limit=100_000), key=lambda each: each.id)
    for each in deliveries:
        assert each.state != WAITING
        assert each.finished_at is not None
        assert (each.state == APPLIED) == (each.action in ENDS)
        assert (each.state == FAILED) == ((each.message or "").endswith("ValueError: never"))
    return deliveries


def one_by_one(said: Sequence[tuple[str, str, int]]) -> dict[str, int]:
    """What is there in the end if each change is applied as it comes."""
    stock: dict[str, int] = {}
    newest: dict[str, int] = {}
    for kind, sku, version in said:
        if kind == "delete":
            stock.pop(sku, None)
        elif version >= newest.get(sku, 0):
            stock[sku] = newest[sku] = version
            if kind == "numbered":
                del stock[sku]
    return stock


@pytest.fixture
def open_desk(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Desk]]:
    opened: list[Any] = []

    def open_one() -> Desk:
        settings = Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)
        opened.append(open_workspace(settings, clock))
        workspace: Workspace = opened[-1].__enter__()
        return Desk(replace(workspace, retries=Retry(attempts=25)))

    yield open_one
    for each in opened:
        each.__exit__(None, None, None)


def spelt(rng: random.Random, sku: str) -> str:
    return rng.choice([sku, f"0{sku}", f"00{sku}"])


def finish(job: SyncJob[Any, Any], desk: Desk, target: Target, clock: Clock) -> None:
    """Lets everything go well until nothing waits."""
    target.is_calm = True
    target.stir()
    for _ in range(30):
        if not desk.workspace.inbox.count("stock"):
            return
        clock.advance(7 * 3_600)
        desk.drain(job)


@pytest.mark.parametrize("seed", range(6))
def test_with_versions_the_newest_state_is_there_whatever_went_wrong(
    open_desk: Callable[[], Desk], clock: Clock, seed: int
) -> None:
    rng = random.Random(seed)
    desk, target = open_desk(), Target(rng)
    job: SyncJob[Any, Any] = SyncJob(
        name="stock", fetch_external=list, get_external_id="sku", target=target, get_version="stock"
    )
    said: list[tuple[str, str, int]] = []
    for _ in range(25):
        for _ in range(rng.randrange(6)):
            sku = rng.choice([*SKUS, *SKUS, *BAD])
            if rng.random() < 0.2 and sku not in BAD:
                said.append(("delete", sku, 0))
                desk.delete(spelt(rng, sku))
                continue
            version = rng.randint(1, 60)
            if rng.random() < 0.2 and sku not in BAD:
                said.append(("numbered", sku, version))
                desk.store("delete", external_id=spelt(rng, sku), item=encode({"version": version}))
            else:
                said.append(("upsert", sku, version))
                known = rng.choice([None, spelt(rng, sku)])
                desk.upsert({"sku": spelt(rng, sku), "stock": version}, external_id=known)
        target.stir()
        drain(job, desk, rng)
        clock.advance(rng.choice([0, 1, 10, 100, 1_000]))
    finish(job, desk, target, clock)
    deliveries = settled(desk)
    assert len(deliveries) == len(said)
    assert {each.external_id for each in deliveries if each.state == FAILED} <= set(BAD)
    expected = one_by_one([each for each in said if each[1] not in BAD])
    assert {sku: record["stock"] for sku, record in target.records.items()} == expected


class Source:
    """A system that tells of its changes in several ways; it fails now and then, and so does `parse`."""

    def __init__(self, rng: random.Random, desk: Desk) -> None:
        self.stock: dict[str, int] = {}
        self.is_calm = False
        self.told = 0
        self._rng = rng
        self._desk = desk

    def job(self, target: Target) -> SyncJob[Any, Any]:
        """The sync of this source."""
        return SyncJob(
            name="stock",
            fetch_external=lambda: [self._item(sku) for sku in self.stock],
            get_external_id="sku",
            target=target,
            fetch_one=self._fetch_one,
            webhook=Webhook(signature=Unsigned(), parse=self._parse),
        )

    def change(self) -> None:
        """Changes or deletes an item, and tells of it; or several, and tells of them at once."""
        if self._rng.random() < 0.2:
            changes = [self._changed() for _ in range(self._rng.randint(0, 4))]
            self._desk.event(changes)
            self.told += not changes  # it is a delivery all the same
            return
        sku, gone = self._rng.choice(SKUS), self._rng.random() < 0.25
        self.stock.pop(sku, None)
        self.told += 1
        if not gone:
            self.stock[sku] = self.told
        id_ = spelt(self._rng, sku)
        kind = self._rng.choice(["whole", "thin", "event"])
        if kind == "thin":
            self._desk.refetch(id_)
        elif kind == "event":
            self._desk.event({"sku": id_, "item": None if gone else self._item(sku)})
        elif gone:
            self._desk.delete(id_)
        else:
            self._desk.upsert(self._item(sku), external_id=id_)

    def _changed(self) -> dict[str, Any]:
        """Changes or deletes an item; gives what is told of it."""
        sku = self._rng.choice(SKUS)
        self.told += 1
        self.stock[sku] = self.told
        if self._rng.random() < 0.25:
            del self.stock[sku]
        return {"sku": spelt(self._rng, sku), "item": self._item(sku) if sku in self.stock else None}

    def _item(self, sku: str) -> dict[str, Any]:
        return {"sku": sku, "stock": self.stock[sku]}

    def _fetch_one(self, external_id: str) -> Any:
        if not self.is_calm and self._rng.random() < 0.1:
            raise self._rng.choice([ValueError("not now"), RetryableError("503")])
        sku = str(int(external_id))
        return self._item(sku) if sku in self.stock else None

    def _parse(self, event: WebhookEvent) -> Any:
        if not self.is_calm and self._rng.random() < 0.3:
            raise KeyError("colour")
        several = event.body if isinstance(event.body, list) else [event.body]
        return [Upsert(each["item"]) if each["item"] is not None else Delete(each["sku"]) for each in several]


@pytest.mark.parametrize("seed", range(6))
def test_without_versions_the_source_is_asked_and_the_target_equals_it(
    open_desk: Callable[[], Desk], clock: Clock, seed: int
) -> None:
    """Items, deletes, thin events and events whose parse fails at first, with full syncs in between."""
    rng = random.Random(seed)
    desk, target = open_desk(), Target(rng)
    source = Source(rng, desk)
    job = source.job(target)
    for _ in range(25):
        for _ in range(rng.randrange(6)):
            source.change()
            clock.advance(rng.choice([0, 1]))
        target.stir()
        if rng.random() < 0.2:
            full_sync(job, desk)
        else:
            drain(job, desk, rng)
        clock.advance(rng.choice([1, 10, 100, 1_000]))
    source.is_calm = True
    finish(job, desk, target, clock)
    assert len(settled(desk)) == source.told
    assert {sku: record["stock"] for sku, record in target.records.items()} == source.stock


def full_sync(job: SyncJob[Any, Any], desk: Desk) -> None:
    run = SyncRun(job, desk.workspace)
    with suppress(TargetError):
        run.apply(run.diff(run.fetch()))


def test_the_counts_of_all_runs_are_those_of_the_deliveries(open_desk: Callable[[], Desk], clock: Clock) -> None:
    """Without kills: each attempt is counted once, in the run that made it."""
    rng = random.Random(1)
    desk, target = open_desk(), Target(rng)
    job: SyncJob[Any, Any] = SyncJob(name="stock", fetch_external=list, get_external_id="sku", target=target)
    counted: Counter[str] = Counter()
    for step in range(20):
        for _ in range(rng.randrange(6)):
            desk.upsert({"sku": rng.choice([*SKUS, *BAD]), "stock": step})
        target.stir()
        target.fails_to_find = {}
        results = desk.drain(job)
        counted.update({"attempts": results.fetched, "failed": results.error_count})
        clock.advance(rng.choice([1, 10, 100]))
    deliveries = desk.workspace.inbox.newest(limit=1_000)
    assert sum(each.attempts for each in deliveries) == counted["attempts"]
    assert counted["failed"] > 0
