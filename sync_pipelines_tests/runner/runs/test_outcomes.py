"""What becomes of each item, and of local records that no item has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import Duplicate, SyncResults
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError, TargetError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.testing import MemoryRecord, MemorySource, MemoryTarget

Make = Callable[..., SyncJob[Any, Any]]
Sync = Callable[..., SyncResults]
Count = Callable[[SyncResults], dict[str, int]]


def item(sku: Any, stock: int = 1, **fields: Any) -> dict[str, Any]:
    return {"sku": sku, "stock": stock, **fields}


def refuse(*skus: str) -> Callable[[Any], Any]:
    def check(each: Any) -> bool:
        if each["sku"] in skus:
            raise ValueError(f"{each['sku']} is not for us")
        return False

    return check


class TestSkippedAndUnchanged:
    def test_skipped_items_are_left_alone_though_they_differ(
        self, sync: Sync, target: MemoryTarget, counts: Count
    ) -> None:
        sync([item("A"), item("B")])
        results = sync([item("A", 2), item("B", 2), item("C")], should_skip=lambda each: each["sku"] != "A")
        assert counts(results) == {"fetched": 3, "updated": 1, "skipped": 2}
        assert {sku: each["stock"] for sku, each in target.records.items()} == {"A": 2, "B": 1}

    def test_a_should_skip_that_raises_fails_its_item(self, sync: Sync, counts: Count) -> None:
        results = sync([item("A"), item("B"), item("C")], should_skip=refuse("B"))
        assert counts(results) == {"fetched": 3, "created": 2, "failed": 1}
        assert results.errors[0].message.startswith("should_skip: ValueError: B is not for us (test_outcomes.py:")

    def test_what_should_skip_answers_is_taken_as_a_truth_value(self, sync: Sync, counts: Count) -> None:
        assert counts(sync([item("A")], should_skip=lambda each: "yes")) == {"fetched": 1, "skipped": 1}
        assert counts(sync([item("A")], should_skip=lambda each: None)) == {"fetched": 1, "created": 1}

    def test_without_has_changed_every_found_record_is_updated(self, settings: Settings, counts: Count) -> None:
        records: dict[str, Any] = {}
        job = SyncJob[Any, Any](
            name="plain",
            fetch_external=lambda: [item("A"), item("B")],
            get_external_id="sku",
            find_local=records.get,
            create=lambda each: records.update({each["sku"]: each}),
            update=lambda each, local: local.update(each),
        )
        assert counts(run_sync(job, settings=settings)) == {"fetched": 2, "created": 2}
        assert counts(run_sync(job, settings=settings)) == {"fetched": 2, "updated": 2}

    def test_has_changed_decides_which_found_records_are_updated(self, settings: Settings, counts: Count) -> None:
        records: dict[str, Any] = {"A": item("A", 5), "B": item("B", 5)}
        asked: list[tuple[Any, Any]] = []

        def has_changed(each: Any, local: Any) -> bool:
            asked.append((dict(each), dict(local)))
            return bool(each["stock"] != local["stock"])

        job = SyncJob[Any, Any](
            name="plain",
            fetch_external=lambda: [item("A", 5), item("B", 6), item("C")],
            get_external_id="sku",
            find_local=records.get,
            create=lambda each: records.update({each["sku"]: each}),
            update=lambda each, local: local.update(each),
            has_changed=has_changed,
        )
        assert counts(run_sync(job, settings=settings)) == {"fetched": 3, "created": 1, "updated": 1, "unchanged": 1}
        assert asked[0] == (item("A", 5), item("A", 5))
        assert not [each for each, _ in asked if each["sku"] == "C"]

    def test_a_job_may_narrow_what_a_target_calls_changed(self, sync: Sync, counts: Count) -> None:
        sync([item("A"), item("B")])
        results = sync([item("A", 2), item("B", 9)], has_changed=lambda each, local: each["stock"] > 5)
        assert counts(results) == {"fetched": 2, "updated": 1, "unchanged": 1}

    def test_a_has_changed_that_raises_fails_its_item(self, sync: Sync, counts: Count) -> None:
        sync([item("A"), item("B")])
        results = sync([item("A", 2), item("B", 2)], has_changed=lambda each, local: refuse("A")(each) or True)
        assert counts(results) == {"fetched": 2, "updated": 1, "failed": 1}

    def test_functions_get_the_item_as_the_source_gave_it(self, settings: Settings) -> None:
        """Through the snapshot and the plan, with its class and all its types."""
        from dataclasses import dataclass
        from decimal import Decimal

        @dataclass(frozen=True, slots=True)
        class Product:
            sku: str
            price: Decimal

        seen: list[Any] = []
        job = SyncJob[Product, Any](
            name="typed",
            fetch_external=lambda: [Product("A", Decimal("1.50"))],
            get_external_id="sku",
            find_local=lambda external_id: None,
            create=seen.append,
            update=lambda each, local: None,
        )
        run_sync(job, settings=settings)
        assert seen == [Product("A", Decimal("1.50"))]


class TestFailures:
    @pytest.mark.parametrize("wide", [True, False])
    def test_a_batch_that_fails_is_narrowed_down_so_that_the_rest_land(
        self,
        sync: Sync,
        counts: Count,
        wide: bool,  # noqa: FBT001 - parametrised
    ) -> None:
        bad = {"A0007": ValueError("seven"), "A0500": KeyError("x"), "A0999": ItemError("no")}
        target = MemoryTarget(fails=bad)
        if not wide:
            target.create_many = None  # type: ignore[method-assign, assignment]
        items = [item(f"A{number:04}") for number in range(1_000)]
        results = sync(items, target=target)
        assert counts(results) == {"fetched": 1_000, "created": 997, "failed": 3}
        assert [(each.external_id, each.position, each.message) for each in results.errors] == [
            ("A0007", 7, "seven"),
            ("A0500", 500, "'x'"),
            ("A0999", 999, "no"),
        ]
        assert len(target.records) == 997
        if wide:
            assert target.calls["create_many"] < 80  # about 2 * log2(1000) for each guilty record

    def test_updates_and_deletes_are_narrowed_down_as_well(
        self, sync: Sync, target: MemoryTarget, counts: Count
    ) -> None:
        sync([item(f"A{number}") for number in range(20)])
        target.fails = {"A3": ValueError("no update"), "A15": ValueError("no delete")}
        results = sync([item(f"A{number}", 2) for number in range(10)], deletes="hard")
        assert counts(results) == {"fetched": 10, "updated": 9, "deleted": 9, "failed": 2}
        assert [(each.external_id, each.position) for each in results.errors] == [("A3", 3), ("A15", -1)]
        assert results.failed_deletes == 1
        assert sorted(target.records) == sorted([*(f"A{number}" for number in range(10)), "A15"])

    def test_a_look_up_that_fails_fails_its_item_only(self, sync: Sync, target: MemoryTarget, counts: Count) -> None:
        target.fails_to_find = {"B": LookupError("two of them")}
        results = sync([item("A"), item("B"), item("C")])
        assert counts(results) == {"fetched": 3, "created": 2, "failed": 1}
        assert results.errors[0].exception_type == "LookupError"

    def test_a_target_that_only_looks_up_many_fails_those_it_was_asked_for(self, settings: Settings) -> None:
        class Bulk(MemoryTarget):
            find_local = None  # type: ignore[assignment]

        target = Bulk(fails_to_find={"B": LookupError("two of them")})
        job = SyncJob[Any, Any](
            name="bulk", fetch_external=lambda: [item("A"), item("B")], get_external_id="sku", target=target
        )
        results = run_sync(job, settings=settings)
        assert (results.error_count, results.accounts_balance) == (2, True)

    def test_what_vanishes_between_diff_and_apply_is_created_and_what_appears_is_an_error(
        self, sync: Sync, target: MemoryTarget, counts: Count
    ) -> None:
        """Apply decides once more against what is there now."""
        sync([item("A"), item("B")])

        def meddle(progress: Any) -> None:
            if progress.phase == "diff":
                target.records.pop("A", None)
                target.records["B"] = item("B", 2)
                target.records["C"] = item("C", 9)

        results = sync([item("A", 2), item("B", 2), item("C", 2)], on_progress=meddle)
        assert counts(results) == {"fetched": 3, "created": 1, "unchanged": 1, "failed": 1}
        assert "already" in results.errors[0].message

    def test_a_target_that_lacks_a_method_is_a_configuration_error(self, sync: Sync) -> None:
        class NoList(MemoryTarget):
            list_local = None  # type: ignore[assignment]

        class NoUpdate(MemoryTarget):
            update = update_many = None  # type: ignore[assignment]

        for target, missing in ((NoList(), "list_local"), (NoUpdate(), "update")):
            with pytest.raises(ConfigurationError, match=f"stock: target: .* has no {missing}"):
                sync([item("A")], target=target, deletes="hard")
            assert target.writes == 0


class TestDeletes:
    def test_records_that_a_complete_fetch_lacks_are_deleted(
        self, sync: Sync, target: MemoryTarget, counts: Count
    ) -> None:
        sync([item("A"), item("B"), item("C")])
        assert counts(sync([item("A")], deletes="hard")) == {"fetched": 1, "unchanged": 1, "deleted": 2}
        assert sorted(target.records) == ["A"]

    def test_without_being_asked_nothing_is_deleted(self, sync: Sync, target: MemoryTarget) -> None:
        sync([item("A"), item("B")])
        assert sync([item("A")]).deleted == 0
        assert sorted(target.records) == ["A", "B"]

    @pytest.mark.parametrize(
        ("items", "options", "reason"),
        [
            ([], {}, "guarded: the source gave no items at all; the last good fetches had 2"),
            ([item("A")], {"limit": 1}, "no deletes: the run was limited"),
            ([item("A")], {"limit": 100}, "no deletes: the run was limited"),
            ([item("A")], {"only": ["A"]}, "no deletes: the run was limited"),
            ([item("A"), item(None)], {}, "no deletes: 1 items had no readable external id"),
        ],
    )
    def test_deletes_are_withheld_with_the_reason(
        self, sync: Sync, target: MemoryTarget, items: list[Any], options: dict[str, Any], reason: str
    ) -> None:
        sync([item("A"), item("B")])
        results = sync(items, deletes="hard", **options)
        assert results.deleted == 0
        assert any(note.startswith(reason) for note in results.notes), results.notes
        assert results.no_deletes is not reason.startswith("guarded")
        assert sorted(target.records) == ["A", "B"]

    def test_a_fetch_that_breaks_off_deletes_nothing(self, sync: Sync, target: MemoryTarget) -> None:
        sync([item("A"), item("B")])
        with pytest.raises(FetchError):
            sync(MemorySource([item("A")], breaks_after=1), deletes="hard")
        assert sorted(target.records) == ["A", "B"]

    def test_failed_skipped_and_duplicate_items_are_not_missing(
        self, sync: Sync, target: MemoryTarget, counts: Count
    ) -> None:
        """Seen in the fetch and applied well are two different things; deletes go by the first."""
        before = ["failing", "skipped", "unfit", "twice", "gone"]
        sync([item(sku) for sku in before])
        target.fails = {"failing": ValueError("no")}
        results = sync(
            [item("failing", 2), item("skipped", 2), item("unfit", x=object()), item("twice", 2), item("twice")],
            deletes="hard",
            should_skip=lambda each: each["sku"] == "skipped",
        )
        expected = {"fetched": 5, "unchanged": 1, "skipped": 1, "duplicate": 1, "failed": 2, "deleted": 1}
        assert counts(results) == expected
        assert sorted(target.records) == sorted(before[:4])

    def test_an_item_whose_id_can_not_be_converted_just_now_withholds_deletes(self, sync: Sync) -> None:
        """An id that does not convert is no record's id; an id whose conversion broke down may be any record's."""

        class Moody(MemoryTarget):
            def canonical_id(self, external_id: str) -> str:
                if external_id == "broken":
                    raise ConnectionError("the id service is away")
                if external_id == "garbage":
                    raise ItemError("no id of ours")
                return external_id

        target = Moody()
        sync([item("A"), item("B")], target=target)
        withheld = sync([item("A"), item("broken")], target=target, deletes="hard")
        assert (withheld.deleted, withheld.error_count) == (0, 1)
        assert withheld.notes == (
            "no deletes: 1 items had no readable external id and may be any of the missing records",
        )
        done = sync([item("A"), item("garbage")], target=target, deletes="hard")
        assert (done.deleted, done.error_count) == (1, 1)

    def test_a_record_that_is_listed_twice_is_deleted_once(self, sync: Sync, counts: Count) -> None:
        class Stutter(MemoryTarget):
            def list_local(self) -> Any:
                for _ in range(3):
                    yield from list(self.records)

        target = Stutter()
        sync([item(f"A{number:04}") for number in range(700)], target=target)
        assert counts(sync([item("A0000")], target=target, deletes="hard")) == {
            "fetched": 1,
            "unchanged": 1,
            "deleted": 699,
        }

    def test_a_record_that_no_item_can_mean_is_left_alone(self, sync: Sync, sqlite: sa.Engine) -> None:
        """A row whose key is the empty text is no item's row; it must not stop the deletes either."""
        with sqlite.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE variants (sku TEXT PRIMARY KEY, stock INTEGER)")
            connection.exec_driver_sql("INSERT INTO variants VALUES ('', 1), ('A', 1), ('gone', 1)")
        target = SqlTable(table="variants", key="sku", columns=["stock"], database=sqlite)
        results = sync([item("A")], target=target, deletes="hard")
        assert (results.deleted, results.error_count) == (1, 0)
        with sqlite.connect() as connection:
            assert sorted(connection.exec_driver_sql("SELECT sku FROM variants").scalars()) == ["", "A"]

    def test_per_record_functions_delete_what_they_list(self, settings: Settings, counts: Count) -> None:
        records: dict[str, Any] = {"1": item(1), "2": item(2), "3": item(3)}

        async def list_local() -> list[Any]:
            return [1, 2.0, "3"]

        def delete(local: Any) -> None:
            if local["sku"] == 3:
                raise PermissionError("not that one")
            del records[str(local["sku"])]

        job = SyncJob[Any, Any](
            name="plain",
            fetch_external=lambda: [item(1)],
            get_external_id="sku",
            find_local=records.get,
            create=lambda each: None,
            update=lambda each, local: None,
            has_changed=lambda each, local: False,
            delete=delete,
            list_local=list_local,
            deletes="hard",
        )
        results = run_sync(job, settings=settings)
        assert counts(results) == {"fetched": 1, "unchanged": 1, "deleted": 1, "failed": 1}
        assert (results.failed_deletes, results.accounts_balance) == (1, True)
        assert sorted(records) == ["1", "3"]

    def test_a_list_of_records_instead_of_ids_is_told_instead_of_deleting_nothing_for_ever(
        self, settings: Settings
    ) -> None:
        records: dict[str, Any] = {"1": item(1), "2": item(2)}
        job = SyncJob[Any, Any](
            name="plain",
            fetch_external=lambda: [item(1)],
            get_external_id="sku",
            find_local=records.get,
            create=lambda each: None,
            update=lambda each, local: None,
            delete=lambda local: None,
            list_local=lambda: list(records.values()),
            deletes="hard",
        )
        with pytest.raises(ConfigurationError, match=r"plain: list_local: gives a dict; let it give external ids"):
            run_sync(job, settings=settings)

    def test_a_list_that_breaks_off_deletes_nothing(self, sync: Sync, no_waits: None) -> None:
        from sync_pipelines.errors import RetryableError

        class Shaky(MemoryTarget):
            def list_local(self) -> Any:
                yield "A"
                raise RetryableError("connection lost")

        target = Shaky({"A": item("A"), "B": item("B")})
        with pytest.raises(TargetError, match="does not answer: connection lost"):
            sync([item("C")], target=target, deletes="hard")
        assert target.writes == 0

    def test_a_record_that_is_gone_already_is_neither_deleted_nor_an_error(self, sync: Sync, counts: Count) -> None:
        target = MemoryTarget({"A": item("A"), "B": item("B")})

        def meddle(progress: Any) -> None:
            if progress.phase == "diff":
                target.records.pop("B", None)

        target.list_local = lambda: iter(["A", "B"])  # type: ignore[method-assign]
        results = sync([item("A")], target=target, deletes="hard", on_progress=meddle)
        assert counts(results) == {"fetched": 1, "unchanged": 1}


class TestConvertedIds:
    @pytest.fixture
    def variants(self, database: sa.Engine) -> SqlTable:
        with database.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE variants (id INTEGER PRIMARY KEY, stock INTEGER)")
        return SqlTable(table="variants", key="id", columns={"stock": "stock"}, database=database)

    def test_ids_that_the_key_column_makes_equal_are_duplicates(
        self, sync: Sync, variants: SqlTable, counts: Count
    ) -> None:
        results = sync([item("007", 1), item(7, 2), item("abc"), item("8"), item(7.0, 3)], target=variants)
        assert counts(results) == {"fetched": 5, "created": 2, "failed": 1, "duplicate": 2}
        assert results.duplicates == (Duplicate("7", 0, 4), Duplicate("7", 1, 4))
        assert (results.errors[0].external_id, results.errors[0].position) == ("abc", 2)
        assert counts(sync([item("7", 3), item("08", 1)], target=variants, deletes="hard")) == {
            "fetched": 2,
            "unchanged": 2,
        }

    def test_an_id_that_does_not_convert_does_not_withhold_deletes(self, sync: Sync, variants: SqlTable) -> None:
        sync([item(1), item(2)], target=variants)
        results = sync([item("0001"), item("abc")], target=variants, deletes="hard")
        assert (results.deleted, results.error_count) == (1, 1)


def test_the_memory_target_hands_out_copies() -> None:
    """What a target gave must not change under the engine's hands."""
    target = MemoryTarget({"A": item("A")})
    with target.open(lambda each: str(each["sku"])) as opened:
        local = opened.find_local("A")
        assert local == MemoryRecord("A", item("A"))
        opened.update(item("A", 2), local)
        assert local.fields["stock"] == 1
