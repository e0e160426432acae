"""What every target must do, as tests that a test class inherits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sync_pipelines.engine.calls import call
from sync_pipelines.engine.changes import Delete
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.plan import Action
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.errors import FetchError, ItemError
from sync_pipelines.runner.calls.target_driver import TargetDriver, Work, open_target
from sync_pipelines.runner.changes.single_item import sync_single_item
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.testing.memory import MemorySource

Item = dict[str, Any]
Error = TypeVar("Error", bound=Exception)

_BERLIN = timezone(timedelta(hours=2))
_NOON = datetime(2024, 5, 6, 12, 30, 15, 250_000, tzinfo=UTC)
_TEXTS = ("Größe", "日本語", "🧦", "שלום", "e\u0301", "a'b\"c\\d", "100 %", "line\nbreak", " blanks ", "x" * 5_000)


class TargetContract:
    """The contract of a target. Inherit it, say where the records live, and pytest runs the tests.

    The target holds records with these fields: `sku` (the external id, text), `name` (text), `quantity` (whole number),
    `price` (decimal with two places), `active` (truth value), `changed_at` (moment with time zone). All but `sku` may
    be null. It is empty when a test starts, and must refuse to write the record `REFUSED`, say by a CHECK constraint.

        class TestMyTarget(TargetContract):
            @pytest.fixture(autouse=True)
            def empty_shelf(self):
                self.shelf = Shelf()

            def declared(self):
                return {"target": self.shelf}

            def records(self):
                return {record.sku: vars(record) for record in self.shelf}
    """

    REFUSED: ClassVar[str] = "REFUSED"
    """The external id that the target refuses."""
    can_delete: ClassVar[bool] = True
    """False for a target without deletes; its tests of deletes pass without looking."""

    def declared(self) -> Mapping[str, Any]:
        """Returns the fields of `SyncJob` that say where records live: `target`, or the per-record functions."""
        raise NotImplementedError

    def marking(self) -> Mapping[str, Any] | None:
        """Returns the same for a target that marks deleted records instead of removing them; None if there is none."""
        return None

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns all local records now, by external id, with at least the fields of the contract that were written."""
        raise NotImplementedError

    # What the tests are written with

    def item(self, sku: str, **fields: Any) -> Item:
        """Makes an item with every field filled, unless `fields` says otherwise."""
        filled = {"name": f"Name of {sku}", "quantity": 3, "price": Decimal("10.50"), "active": True}
        return {"sku": sku, **filled, "changed_at": _NOON, **fields}

    def job(self, fetch_external: Callable[[], Any], **fields: Any) -> SyncJob[Any, Any]:
        """Declares a sync of that source into the target."""
        identity = {"name": "target-contract", "get_external_id": "sku"}
        return SyncJob(**{**identity, "fetch_external": fetch_external, **self.declared(), **fields})

    def sync(self, folder: Path, items: Iterable[Item], **fields: Any) -> SyncResults:
        """Runs the sync once, and checks that its accounts balance."""
        results = run_sync(self.job(MemorySource(items, page_size=400), **fields), settings=Settings(data_dir=folder))
        assert results.accounts_balance, results.summary()
        return results

    def assert_holds(self, items: Iterable[Item]) -> None:
        """Checks that the records are exactly these items."""
        records, wanted = self.records(), {item["sku"]: item for item in items}
        assert sorted(records) == sorted(wanted)
        for sku, item in wanted.items():
            assert {name: records[sku][name] for name in item} == item

    def assert_stable(self, folder: Path, items: list[Item]) -> None:
        """Checks that the records are these items, and that a further run changes nothing."""
        self.assert_holds(items)
        again = self.sync(folder, items)
        assert _counts(again) == {"fetched": len(items), "unchanged": len(items)}, again.summary()

    # The contract

    def test_new_items_are_created_and_a_second_run_changes_nothing(self, tmp_path: Path) -> None:
        """New items are created; the same items again are all unchanged."""
        items = [self.item("A"), self.item("B", quantity=0, active=False, price=Decimal("-0.01"))]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 2, "created": 2}
        self.assert_stable(tmp_path, items)

    def test_only_what_has_changed_is_updated(self, tmp_path: Path) -> None:
        """A changed item updates its record and no other."""
        self.sync(tmp_path, [self.item("A"), self.item("B")])
        items = [self.item("A"), self.item("B", quantity=4)]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 2, "updated": 1, "unchanged": 1}
        self.assert_stable(tmp_path, items)

    def test_of_a_duplicate_id_the_last_item_counts(self, tmp_path: Path) -> None:
        """Earlier items of the same id are counted as duplicates and not written."""
        items = [self.item("A", quantity=1), self.item("B"), self.item("A", quantity=2)]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 3, "created": 2, "duplicate": 1}
        self.assert_holds(items[1:])

    def test_an_item_without_an_id_fails_alone(self, tmp_path: Path) -> None:
        """A missing, null or empty id fails its item; the others land."""
        good = self.item("B")
        missing = {name: value for name, value in good.items() if name != "sku"}
        results = self.sync(tmp_path, [missing, {**good, "sku": None}, {**good, "sku": " "}, good])
        assert _counts(results) == {"fetched": 4, "created": 1, "failed": 3}
        assert [error.position for error in results.errors] == [0, 1, 2]
        self.assert_holds([good])

    def test_null_in_every_field_is_written_and_compared(self, tmp_path: Path) -> None:
        """From nothing to null, from null to a value, and back to null."""
        nulls = dict.fromkeys(("name", "quantity", "price", "active", "changed_at"))
        empty, filled = [self.item("A", **nulls)], [self.item("A")]
        for items, action in ((empty, "created"), (filled, "updated"), (empty, "updated")):
            assert _counts(self.sync(tmp_path, items)) == {"fetched": 1, action: 1}
            self.assert_stable(tmp_path, items)

    def test_an_empty_text_is_not_null(self, tmp_path: Path) -> None:
        """Null, zero, false and the empty text are four different things."""
        items = [self.item("A", name=None, quantity=None, active=None)]
        self.sync(tmp_path, items)
        items = [self.item("A", name="", quantity=0, active=False)]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 1, "updated": 1}
        self.assert_stable(tmp_path, items)

    def test_the_same_moment_in_another_time_zone_is_no_change(self, tmp_path: Path) -> None:
        """Moments are compared as moments; another moment at the same wall clock is a change."""
        self.sync(tmp_path, [self.item("A")])
        elsewhere = [self.item("A", changed_at=_NOON.astimezone(_BERLIN))]
        self.assert_stable(tmp_path, elsewhere)
        later = [self.item("A", changed_at=_NOON.replace(tzinfo=_BERLIN))]
        assert _counts(self.sync(tmp_path, later)) == {"fetched": 1, "updated": 1}
        self.assert_stable(tmp_path, later)

    def test_decimals_are_exact_and_compared_by_value(self, tmp_path: Path) -> None:
        """10.5 is 10.50; a cent of difference in a large amount is a change."""
        self.sync(tmp_path, [self.item("A", price=Decimal("1234567890.10"))])
        self.assert_stable(tmp_path, [self.item("A", price=Decimal("1234567890.1"))])
        items = [self.item("A", price=Decimal("1234567890.11"))]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 1, "updated": 1}
        self.assert_stable(tmp_path, items)

    def test_unicode_comes_back_as_it_went(self, tmp_path: Path) -> None:
        """Texts and ids of any script, with quotes, line breaks and combining marks."""
        items = [self.item(f"A{number}", name=text) for number, text in enumerate(_TEXTS)]
        items += [self.item(text) for text in _TEXTS[:7]]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": len(items), "created": len(items)}
        self.assert_stable(tmp_path, items)

    def test_ids_that_look_alike_are_different_records(self, tmp_path: Path) -> None:
        """Ids that differ in leading zeros, case or combining marks are different."""
        items = [self.item(sku) for sku in ("7", "007", "7.0", "a", "A", "\u00e9", "e\u0301", "None", "-7")]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 9, "created": 9}
        self.assert_stable(tmp_path, items)

    def test_an_empty_source_changes_nothing(self, tmp_path: Path) -> None:
        """A source without any items looks broken: nothing is deleted, even if the job deletes."""
        items = [self.item("A")]
        self.sync(tmp_path, items)
        deletes = {"deletes": "hard"} if self.can_delete else {}
        assert _counts(self.sync(tmp_path, [], **deletes)) == {}
        self.assert_stable(tmp_path, items)

    def test_a_source_that_breaks_off_changes_nothing(self, tmp_path: Path) -> None:
        """Items that came before the source broke off are not applied."""
        source = MemorySource([self.item("A"), self.item("B")], breaks_after=1)
        error = _raised(FetchError, lambda: run_sync(self.job(source), settings=Settings(data_dir=tmp_path)))
        assert error.items_fetched == 1
        self.assert_holds([])

    def test_a_record_may_be_deleted_and_created_again(self, tmp_path: Path) -> None:
        """What a complete fetch no longer has is deleted; when it comes back it is created."""
        if not self.can_delete:
            return
        both = [self.item("A"), self.item("B")]
        self.sync(tmp_path, both, deletes="hard")
        gone = self.sync(tmp_path, both[:1], deletes="hard")
        assert _counts(gone) == {"fetched": 1, "unchanged": 1, "deleted": 1}
        self.assert_holds(both[:1])
        assert _counts(self.sync(tmp_path, both, deletes="hard")) == {"fetched": 2, "unchanged": 1, "created": 1}
        self.assert_stable(tmp_path, both)

    def test_a_record_may_be_marked_and_restored(self, tmp_path: Path) -> None:
        """What a complete fetch no longer has is marked, once; when it comes back it is an update."""
        marking = self.marking()
        if marking is None:
            return
        fields = {**marking, "deletes": "soft"}
        both = [self.item("A"), self.item("B")]
        assert _counts(self.sync(tmp_path, both, **fields)) == {"fetched": 2, "created": 2}
        gone = self.sync(tmp_path, both[:1], **fields)
        assert _counts(gone) == {"fetched": 1, "unchanged": 1, "deleted": 1}
        assert _counts(self.sync(tmp_path, both[:1], **fields)) == {"fetched": 1, "unchanged": 1}
        with open_target(self.job(list, **fields)) as driver:
            found, _broken = driver.find(["A", "B"])
            assert {key: driver.is_marked(local) for key, local in found.items()} == {"A": False, "B": True}
            assert list(driver.list_ids()) == ["A"]
        assert _counts(self.sync(tmp_path, both, **fields)) == {"fetched": 2, "unchanged": 1, "updated": 1}
        assert _counts(self.sync(tmp_path, both, **fields)) == {"fetched": 2, "unchanged": 2}

    def test_a_marked_record_is_deleted_once_by_single_items(self) -> None:
        """An explicit delete marks; of a marked record it changes nothing; the item restores it."""
        marking = self.marking()
        if marking is None:
            return
        job = self.job(list, **marking)
        item = self.item("A")
        changes = [item, Delete("A"), Delete("A"), item, item]
        actions = [sync_single_item(job, change).action for change in changes]
        assert actions == ["created", "deleted", "unchanged", "updated", "unchanged"]

    def test_a_refused_record_stops_no_other(self, tmp_path: Path) -> None:
        """Of many items the target refuses one: it fails with the target's own words, all others land."""
        items = [self.item(f"A{number:03}") for number in range(60)]
        results = self.sync(tmp_path, [*items[:41], self.item(self.REFUSED), *items[41:]])
        assert _counts(results) == {"fetched": 61, "created": 60, "failed": 1}
        assert [(error.external_id, error.position) for error in results.errors] == [(self.REFUSED, 41)]
        assert results.errors[0].message
        self.assert_stable(tmp_path, items)

    def test_a_batch_lands_as_a_whole_or_not_at_all(self) -> None:
        """`create_many` of a good and a refused record writes neither."""
        good, refused = self.item("A"), self.item(self.REFUSED)
        with open_target(self.job(list)) as driver:
            create_many = getattr(driver.target, "create_many", None)
            if create_many is None:
                return
            _raised(Exception, lambda: call(create_many, [good, refused]))
            assert _ids_of_those_found(driver, ["A", self.REFUSED]) == []
        self.assert_holds([])

    def test_a_look_up_gives_the_records_that_exist(self, tmp_path: Path) -> None:
        """Looking up many ids, also twice the same, gives those that exist by their ids."""
        self.sync(tmp_path, [self.item("A"), self.item("B")])
        with open_target(self.job(list)) as driver:
            assert _ids_of_those_found(driver, ["B", "nobody", "A"]) == ["A", "B"]
            assert _ids_of_those_found(driver, ["nobody"]) == []
            if self.can_delete:
                assert sorted(driver.list_ids()) == ["A", "B"]

    def test_many_items_go_through_in_pages(self, tmp_path: Path) -> None:
        """More items than a page or a statement's parameters hold."""
        items = [self.item(f"A{number:05}", quantity=number) for number in range(2_500)]
        assert _counts(self.sync(tmp_path, items)) == {"fetched": 2_500, "created": 2_500}
        changed = [{**item, "quantity": item["quantity"] + item["quantity"] % 2} for item in items]
        assert _counts(self.sync(tmp_path, changed)) == {"fetched": 2_500, "updated": 1_250, "unchanged": 1_250}
        self.assert_stable(tmp_path, changed)

    def test_a_single_item_takes_the_same_path(self, tmp_path: Path) -> None:
        """`sync_single_item` creates, leaves alone, updates and fails as a run does."""
        job = self.job(list)
        assert sync_single_item(job, self.item("A")).action == "created"
        assert sync_single_item(job, self.item("A")).action == "unchanged"
        assert sync_single_item(job, self.item("A", quantity=9)).action == "updated"
        error = _raised(ItemError, lambda: sync_single_item(job, self.item(self.REFUSED)))
        assert error.external_id == self.REFUSED
        self.assert_stable(tmp_path, [self.item("A", quantity=9)])

    def test_an_update_that_is_repeated_does_no_harm(self, tmp_path: Path) -> None:
        """After a crash the engine writes what it can't know to be written: the second write changes nothing."""
        self.sync(tmp_path, [self.item("A")])
        item = self.item("A", quantity=5)
        with open_target(self.job(list)) as driver:
            for _ in range(2):
                found, _broken = driver.find(["A"])
                assert driver.write(Action.UPDATE, [Work("A", item, found["A"])]) == [None]
        self.assert_stable(tmp_path, [item])


def _counts(results: SyncResults) -> dict[str, int]:
    return {name: count for name, count in results.counts().items() if count}


def _raised(kind: type[Error], action: Callable[[], Any]) -> Error:
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} should have been raised")


def _ids_of_those_found(driver: TargetDriver, external_ids: list[str]) -> list[str]:
    found, broken = driver.find(external_ids)
    assert not broken, broken
    return sorted(found)
