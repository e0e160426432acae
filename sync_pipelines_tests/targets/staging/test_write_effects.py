"""What a database does to other rows, or to the key, when one is written is seen: conflict rules and triggers."""

from __future__ import annotations

from typing import Any

import pytest

from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts

THINGS = "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, ean VARCHAR(20), stock INTEGER)"


@pytest.fixture(params=["bulk", "pages"], autouse=True)
def each_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs once in bulk and once page by page."""
    if request.param == "pages":
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
    return str(request.param)


def run(sync: Syncs, *rows: tuple[str, str | None, int], **fields: Any) -> tuple[dict[str, int], dict[str, str]]:
    """One run with those items; what it counts, and the messages of what failed."""
    items: list[Item] = [{"sku": sku, "ean": ean, "stock": stock} for sku, ean, stock in rows]
    results = sync.run(items, **{"columns": ["ean", "stock"], "deletes": "hard", **fields})
    return counts(results), {str(each.external_id): each.message for each in results.errors}


def held(sync: Syncs) -> list[tuple[Any, ...]]:
    return sync.rows("SELECT sku, ean, stock FROM things ORDER BY sku")


def add_trigger(sync: Syncs, event: str, body: str) -> None:
    """Makes a trigger for each row; PostgreSQL's comes before the write and SQLite's after it.

    Args:
        event: `INSERT`, `UPDATE` or `DELETE`, several with OR.
        body: Statements of both databases.
    """
    if sync.is_postgresql:
        sync.execute(
            f"CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$",
            f"CREATE TRIGGER own AFTER {event} ON things FOR EACH ROW EXECUTE FUNCTION own()",
        )
        return
    for each in event.split(" OR "):
        sync.execute(f"CREATE TRIGGER own_{each} AFTER {each} ON things BEGIN {body} END")


@pytest.mark.parametrize(
    ("rule", "has_trigger"),
    [("REPLACE", False), ("IGNORE", False), ("ROLLBACK", False), ("REPLACE", True), ("IGNORE", True)],
)
def test_a_conflict_rule_of_the_table_loses_no_row(sqlite_sync: Syncs, rule: str, *, has_trigger: bool) -> None:
    """Of two items with one unique value the first lands, and the other fails, as in a table without such a rule."""
    sync = sqlite_sync
    sync.execute(
        f"CREATE TABLE things (sku TEXT PRIMARY KEY ON CONFLICT {rule}, ean TEXT, stock INTEGER, "
        f"UNIQUE (ean) ON CONFLICT {rule})",
        "CREATE TABLE totals (ean TEXT PRIMARY KEY)",
    )
    if has_trigger:  # whose own rule goes on to count
        add_trigger(sync, "INSERT", "INSERT OR REPLACE INTO totals VALUES ('all');")
    rows = [("a", "1", 1), ("b", "1", 2), ("c", "3", 3)]
    for expected in ({"created": 2, "failed": 1}, {"unchanged": 2, "failed": 1}):
        done, failed = run(sync, *rows)
        assert (done, list(failed)) == (expected, ["b"])
        assert has_trigger or "UNIQUE constraint failed: things.ean" in failed["b"]
        assert held(sync) == [("a", "1", 1), ("c", "3", 3)]
    done, failed = run(sync, ("a", "1", 1), ("c", "1", 3))  # the same by an update
    assert (done, list(failed)) == ({"unchanged": 1, "failed": 1}, ["c"])
    assert held(sync) == [("a", "1", 1), ("c", "3", 3)]
    assert run(sync, ("a", "3", 1), ("c", "1", 3)) == ({"updated": 2}, {})
    assert run(sync, ("b", "3", 2), ("c", "1", 3)) == ({"created": 1, "unchanged": 1, "deleted": 1}, {})
    assert held(sync) == [("b", "3", 2), ("c", "1", 3)]


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_a_trigger_that_removes_another_record_fails_the_item_that_it_fires_for(sync: Syncs, event: str) -> None:
    sync.execute(THINGS)
    add_trigger(sync, event, "DELETE FROM things WHERE ean = NEW.ean AND sku <> NEW.sku;")
    first = [("a", "1", 1), ("b", "2", 2), ("c", "3", 3)]
    assert run(sync, *first)[0] == {"created": 3}
    changed = [("a", "1", 1), ("b", "2", 2), ("d" if event == "INSERT" else "c", "1", 4)]
    if event == "INSERT":
        changed.append(("c", "3", 3))
    for _ in range(2):
        done, failed = run(sync, *changed)
        assert (done, list(failed)) == ({"unchanged": len(changed) - 1, "failed": 1}, [changed[2][0]])
        assert "would remove 1 other record" in failed[changed[2][0]]
        assert held(sync) == first
    assert run(sync, *changed[1:])[1] == {}  # now it may go
    assert held(sync) == sorted(changed[1:])
    assert run(sync, *changed[1:])[0] == {"unchanged": len(changed) - 1}


def test_of_new_items_the_first_lands_whose_triggers_remove_one_another(sync: Syncs) -> None:
    sync.execute(THINGS)
    add_trigger(sync, "INSERT OR UPDATE", "DELETE FROM things WHERE ean = NEW.ean AND sku <> NEW.sku;")
    rows = [(f"s{number:04}", str(number % 290), number) for number in range(300)]
    done, failed = run(sync, *rows)
    assert (done, len(failed)) == ({"created": 290, "failed": 10}, 10)
    assert held(sync) == rows[:290]
    assert run(sync, *rows)[0] == {"unchanged": 290, "failed": 10}


def test_a_trigger_that_changes_the_key_fails_the_item(sync: Syncs) -> None:
    """No row comes and goes under another key at each run."""
    sync.execute(THINGS)
    if sync.is_postgresql:
        sync.execute(
            "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.sku := upper(NEW.sku); RETURN NEW; END $$",
            "CREATE TRIGGER own BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION own()",
        )
    else:
        add_trigger(sync, "INSERT", "UPDATE things SET sku = upper(sku) WHERE rowid = NEW.rowid;")
        add_trigger(sync, "UPDATE", "UPDATE things SET sku = upper(sku) WHERE rowid = NEW.rowid;")
    for expected in ({"created": 1, "failed": 1}, {"unchanged": 1, "failed": 1}):
        done, failed = run(sync, ("A1", "1", 1), ("b2", "2", 2))
        assert (done, list(failed)) == (expected, ["b2"])
        assert "key" in failed["b2"]
        assert held(sync) == [("A1", "1", 1)]


def test_an_update_by_which_a_trigger_changes_the_key_fails_the_item(sync: Syncs) -> None:
    sync.execute(THINGS, "INSERT INTO things VALUES ('a', '1', 1), ('b', '2', 2)")
    if sync.is_postgresql:
        sync.execute(
            "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.sku := NEW.sku || NEW.stock; RETURN NEW; END $$",
            "CREATE TRIGGER own BEFORE UPDATE ON things FOR EACH ROW WHEN (NEW.stock > 10) EXECUTE FUNCTION own()",
        )
    else:
        sync.execute(
            "CREATE TRIGGER own AFTER UPDATE ON things WHEN NEW.stock > 10 AND NEW.sku = OLD.sku "
            "BEGIN UPDATE things SET sku = sku || stock WHERE sku = NEW.sku; END"
        )
    for expected in ({"updated": 1, "failed": 1}, {"unchanged": 1, "failed": 1}):
        done, failed = run(sync, ("a", "1", 9), ("b", "2", 20))
        assert (done, list(failed)) == (expected, ["b"])
        assert "changed its key" in failed["b"]
        assert held(sync) == [("a", "1", 9), ("b", "2", 2)]


def test_a_trigger_that_writes_elsewhere_or_to_the_row_itself_is_no_matter(sync: Syncs) -> None:
    """As audit tables and columns of the last change do, and even those that tidy another table."""
    sync.execute(
        "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, ean VARCHAR(20), stock INTEGER, seen INTEGER DEFAULT 0)",
        "CREATE TABLE audit (sku VARCHAR(20), stock INTEGER)",
    )
    add_trigger(
        sync,
        "INSERT OR UPDATE",
        "DELETE FROM audit WHERE sku = NEW.sku; INSERT INTO audit VALUES (NEW.sku, NEW.stock); "
        "UPDATE things SET seen = seen + 1 WHERE sku = NEW.sku AND seen < 1;",
    )
    rows = [(f"s{number:04}", None, number) for number in range(300)]
    assert run(sync, *rows)[0] == {"created": 300}
    assert run(sync, *((sku, ean, stock + 1) for sku, ean, stock in rows))[0] == {"updated": 300}
    assert run(sync, *((sku, ean, stock + 1) for sku, ean, stock in rows))[0] == {"unchanged": 300}
    assert sync.rows("SELECT count(*), sum(stock) FROM audit") == [(300, 300 * 301 // 2)]
