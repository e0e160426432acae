"""What the database does by itself is seen: rows that a delete takes, values that something sets back; both paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.database.connections import create_database
from sync_pipelines.errors import TargetError
from sync_pipelines.targets.open_table import OpenedSqlTable
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts

TREE = "CREATE TABLE things (id INTEGER PRIMARY KEY, code VARCHAR(9) UNIQUE, parent INTEGER {reference})"
REFERENCE = "REFERENCES things (id) "


@pytest.fixture(params=["bulk", "pages"])
def each_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs once in bulk and once page by page."""
    if request.param == "pages":
        monkeypatch.setattr(OpenedSqlTable, "open_staged", lambda *_: None)
    return str(request.param)


def tree(sync: Syncs, reference: str, *rows: tuple[int, str | None, int | None]) -> None:
    sync.execute(TREE.format(reference=REFERENCE + reference))
    with sync.database.begin() as connection:
        for number, code, parent in rows:
            statement = sa.text("INSERT INTO things VALUES (:id, :code, :parent)")
            connection.execute(statement, {"id": number, "code": code, "parent": parent})


def run(sync: Syncs, *rows: tuple[int, str | None, int | None], **fields: Any) -> tuple[dict[str, int], dict[str, str]]:
    """One run with those items; what it counts, and the messages of what failed."""
    items = [{"id": number, "code": code, "parent": parent} for number, code, parent in rows]
    given = {"key": "id", "get_external_id": "id", "columns": ["code", "parent"], "deletes": "hard", **fields}
    results = sync.run(items, **given)
    return counts(results), {str(each.external_id): each.message for each in results.errors}


def held(sync: Syncs) -> list[tuple[Any, ...]]:
    return sync.rows("SELECT id, code, parent FROM things ORDER BY id")


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("ON DELETE CASCADE", "other records refer to it (2), and the database would delete them"),
        ("ON DELETE SET NULL", "other records refer to it (2), and the database would empty their parent"),
        ("ON DELETE SET DEFAULT", "other records refer to it (2), and the database would empty their parent"),
    ],
)
def test_a_delete_that_would_take_a_record_whose_item_is_there_does_not_happen(
    sync: Syncs, reference: str, said: str
) -> None:
    tree(sync, reference, (1, "a", None), (2, "b", 1), (3, "c", None), (4, "d", None))
    for expected in ({"unchanged": 2, "failed": 1, "deleted": 1}, {"unchanged": 2, "failed": 1}):
        done, failed = run(sync, (2, "b", 1), (3, "c", None))
        assert done == expected
        assert list(failed) == ["1"]
        assert said in failed["1"]
        assert held(sync) == [(1, "a", None), (2, "b", 1), (3, "c", None)]


@pytest.mark.usefixtures("each_path")
def test_a_cascade_over_several_levels_takes_no_record_whose_item_is_there(sync: Syncs) -> None:
    """1 and 2 are gone from the source, 3 is not: neither of them is deleted, whoever is looked at first."""
    tree(sync, "ON DELETE CASCADE", (1, "a", None), (2, "b", 1), (3, "c", 2), (4, "d", None), (5, "e", 4))
    done, failed = run(sync, (3, "c", 2))
    assert done == {"unchanged": 1, "deleted": 2, "failed": 2}
    assert set(failed) == {"1", "2"}
    assert held(sync) == [(1, "a", None), (2, "b", 1), (3, "c", 2)]


@pytest.mark.usefixtures("each_path")
def test_a_cascade_by_way_of_another_table_takes_no_record_whose_item_is_there(sync: Syncs) -> None:
    sync.execute(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, code VARCHAR(9), parent INTEGER, box INTEGER)",
        "CREATE TABLE boxes (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES things (id) ON DELETE CASCADE)",
    )
    if sync.is_postgresql:
        sync.execute("ALTER TABLE things ADD FOREIGN KEY (box) REFERENCES boxes (id) ON DELETE CASCADE")
    else:
        sync.execute(
            "DROP TABLE things",
            "CREATE TABLE things (id INTEGER PRIMARY KEY, code VARCHAR(9), parent INTEGER, "
            "box INTEGER REFERENCES boxes (id) ON DELETE CASCADE)",
        )
    sync.execute(
        "INSERT INTO things VALUES (1, 'a', NULL, NULL)",
        "INSERT INTO boxes VALUES (7, 1)",
        "INSERT INTO things VALUES (2, 'b', NULL, 7)",
    )
    done, failed = run(sync, (2, "b", None))
    assert done == {"unchanged": 1, "failed": 1}
    assert "would delete 1 other records of the table with it" in failed["1"]
    assert held(sync) == [(1, "a", None), (2, "b", None)]


@pytest.mark.usefixtures("each_path")
def test_a_trigger_that_deletes_others_is_seen(sync: Syncs) -> None:
    tree(sync, "", (1, "a", None), (2, "a2", None))
    if sync.is_postgresql:
        sync.execute(
            "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN DELETE FROM things WHERE code = OLD.code || '2'; RETURN OLD; END $$",
            "CREATE TRIGGER more AFTER DELETE ON things FOR EACH ROW EXECUTE FUNCTION more()",
        )
    else:
        sync.execute(
            "CREATE TRIGGER more AFTER DELETE ON things BEGIN DELETE FROM things WHERE code = OLD.code || '2'; END"
        )
    done, failed = run(sync, (2, "a2", None))
    assert done == {"unchanged": 1, "failed": 1}
    assert "a cascade, a trigger or a rule" in failed["1"]
    assert held(sync) == [(1, "a", None), (2, "a2", None)]


@pytest.mark.usefixtures("each_path")
def test_what_a_cascade_deletes_is_counted(sync: Syncs) -> None:
    tree(sync, "ON DELETE CASCADE", (1, "a", None), (2, "b", 1), (3, "c", 2), (4, "d", None))
    assert run(sync, (4, "d", None)) == ({"unchanged": 1, "deleted": 3}, {})
    assert held(sync) == [(4, "d", None)]
    assert run(sync, (4, "d", None)) == ({"unchanged": 1}, {})


@pytest.mark.soak
@pytest.mark.usefixtures("each_path")
def test_more_records_than_a_batch_holds_are_deleted_with_their_children(sync: Syncs) -> None:
    """A parent in one batch, its child in another: the parent waits for it."""
    sync.execute(TREE.format(reference=f"{REFERENCE} ON DELETE CASCADE"))
    with sync.database.begin() as connection:
        rows = [{"id": number, "parent": None if number <= 700 else number - 700} for number in range(1, 1_401)]
        connection.execute(sa.text("INSERT INTO things (id, parent) VALUES (:id, :parent)"), rows)
    assert run(sync, (700, None, None), (1_400, None, 700)) == ({"unchanged": 2, "deleted": 1_398}, {})


@pytest.mark.usefixtures("each_path")
def test_a_delete_that_a_trigger_turns_into_a_mark_says_so(postgres_sync: Syncs) -> None:
    """With `soft_delete` declared it is the sync itself that marks rows; the trigger's own marks are undone."""
    sync = postgres_sync
    tree(sync, "", (1, "a", None), (2, "b", None))
    sync.execute(
        "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE things SET parent = -1 WHERE id = OLD.id; RETURN NULL; END $$",
        "ALTER TABLE things DROP CONSTRAINT things_parent_fkey",
        "CREATE TRIGGER mark BEFORE DELETE ON things FOR EACH ROW EXECUTE FUNCTION mark()",
    )
    done, failed = run(sync, (2, "b", None))
    assert done == {"unchanged": 1, "failed": 1}
    assert "has not deleted the local record '1'" in failed["1"]
    assert "soft_delete" in failed["1"]
    assert held(sync) == [(1, "a", None), (2, "b", None)]


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("reference", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_children_before_their_parents_land_in_one_fetch(sync: Syncs, reference: str) -> None:
    """Any depth, and circles; what refers to nothing fails alone, with what refers to it."""
    tree(sync, reference)
    chain = [(number, None, number + 1) for number in range(1, 30)]
    rows = [*chain, (30, None, None), (41, None, 42), (42, None, 41), (50, None, 99), (51, None, 50)]
    done, failed = run(sync, *rows)
    assert (done, set(failed)) == ({"created": 32, "failed": 2}, {"50", "51"})
    assert run(sync, *rows)[0] == {"unchanged": 32, "failed": 2}


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("null", ["", "NOT NULL"])
@pytest.mark.parametrize("kind", ["VARCHAR(9)", "INTEGER"])
def test_a_unique_value_that_one_record_frees_another_takes(sync: Syncs, null: str, kind: str) -> None:
    """By an update or a delete, along a chain, or in a swap; in whatever order the items come."""
    sync.execute(f"CREATE TABLE things (id INTEGER PRIMARY KEY, code {kind} {null} UNIQUE, parent INTEGER)")
    codes = {name: name if kind != "INTEGER" else str(ord(name)) for name in "abcdefghz"}
    start = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "f")]
    run(sync, *((number, codes[code], None) for number, code in start))
    then = [(9, "e"), (8, "f"), (1, "b"), (2, "a"), (3, "d"), (4, "z"), (6, "g")]  # 5 is gone
    done, failed = run(sync, *((number, codes[code], None) for number, code in then))
    assert (done, failed) == ({"created": 2, "updated": 5, "deleted": 1}, {})
    expected = sorted((number, codes[code]) for number, code in then)
    assert [(row[0], str(row[1])) for row in held(sync)] == expected


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("key", ["NUMERIC(4, 1)", "INTEGER", "VARCHAR(9)"])
@pytest.mark.parametrize("order", ["up", "down"])
def test_of_two_new_items_with_one_unique_value_the_first_lands(sync: Syncs, key: str, order: str) -> None:
    sync.execute(f"CREATE TABLE things (id {key} PRIMARY KEY, code VARCHAR(9) UNIQUE)")
    ids: list[Any] = [2, 3.5 if key.startswith("NUMERIC") else 30]
    ids = ids if order == "up" else ids[::-1]
    items: list[Item] = [{"id": each, "code": "same"} for each in ids]
    results = sync.run(items, key="id", get_external_id="id", columns=None)
    assert [each.external_id for each in results.errors] == [str(ids[1])]
    assert [float(row[0]) for row in sync.rows("SELECT id FROM things")] == [float(ids[0])]


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("index", ["(lower(code))", "(code) WHERE code <> 'x'"])
def test_the_first_lands_also_where_the_database_alone_knows_what_is_unique(sync: Syncs, index: str) -> None:
    sync.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, code VARCHAR(9))")
    sync.execute(f"CREATE UNIQUE INDEX own ON things {index}")
    items: list[Item] = [{"id": 9, "code": "same"}, {"id": 1, "code": "same"}, {"id": 5, "code": "other"}]
    results = sync.run(items, key="id", get_external_id="id", columns=["code"])
    assert [each.external_id for each in results.errors] == ["1"]
    assert sync.rows("SELECT id FROM things ORDER BY id") == [(5,), (9,)]


@pytest.mark.usefixtures("each_path")
def test_of_1_002_items_one_that_refers_to_nothing_fails_alone_though_it_shows_at_the_commit_only(sync: Syncs) -> None:
    tree(sync, "DEFERRABLE INITIALLY DEFERRED")
    rows = [(number, str(number), 5_000 if number == 501 else number - 1 or None) for number in range(1, 1_003)]
    rows[501] = (502, "502", None)
    done, failed = run(sync, *rows)
    assert (done, list(failed)) == ({"created": 1_001, "failed": 1}, ["501"])
    assert run(sync, *rows)[0] == {"unchanged": 1_001, "failed": 1}


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("what", ["unique", "exclude", "trigger"])
def test_whatever_is_checked_at_the_commit_only_fails_the_item_alone(postgres_sync: Syncs, what: str) -> None:
    sync = postgres_sync
    rule = {
        "unique": "ALTER TABLE things ADD CONSTRAINT own UNIQUE (parent) DEFERRABLE INITIALLY DEFERRED",
        "exclude": "ALTER TABLE things ADD CONSTRAINT own EXCLUDE USING btree (parent WITH =) "
        "DEFERRABLE INITIALLY DEFERRED",
        "trigger": "CREATE CONSTRAINT TRIGGER own AFTER INSERT OR UPDATE ON things DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
    }
    sync.execute(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, code VARCHAR(9), parent INTEGER)",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM things "
        "WHERE parent = NEW.parent AND id < NEW.id) THEN RAISE 'no'; END IF; RETURN NULL; END $$",
        rule[what],
    )
    done, failed = run(sync, (1, "a", 1), (2, "b", 2), (3, "c", 1), (4, "d", None))
    assert (done, list(failed)) == ({"created": 3, "failed": 1}, ["3"])
    if what != "trigger":  # a swap is what such constraints are for
        assert run(sync, (1, "a", 2), (2, "b", 1), (4, "d", None))[0] == {"updated": 2, "unchanged": 1}


GRANTS = {
    "columns": "GRANT SELECT (id, stock), UPDATE (stock) ON things TO {role}",
    "no insert": "GRANT SELECT, UPDATE ON things TO {role}",
    "no key": "GRANT SELECT (stock), UPDATE (stock) ON things TO {role}",
}


@pytest.fixture
def role(postgres: sa.Engine, postgres_admin: sa.Engine) -> Iterator[sa.Engine]:
    """Connections as a role that may log in, and nothing else."""
    name = f"app_{postgres.url.database}"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    engine = create_database(postgres.url.set(username=name, password="p"))
    yield engine
    engine.dispose()
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP ROLE {name}")


@pytest.mark.parametrize("temporary", [True, False])
@pytest.mark.parametrize("granted", GRANTS)
def test_a_role_that_may_do_little_syncs_1_200_items_as_it_does_ten(
    postgres_sync: Syncs, role: sa.Engine, granted: str, *, temporary: bool
) -> None:
    """A right that is missing for what is to be done is a person's to give: no item has failed by it."""
    postgres_sync.execute(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, stock INTEGER, secret TEXT NOT NULL DEFAULT 'x')",
        "INSERT INTO things SELECT i, 0 FROM generate_series(1, 1200) i",
        GRANTS[granted].format(role=role.url.username),
    )
    if not temporary:
        postgres_sync.execute(f"REVOKE TEMP ON DATABASE {role.url.database} FROM PUBLIC")
    items: list[Item] = [{"id": number, "stock": 1} for number in range(1, 1_201)]
    given = {"database": role, "key": "id", "get_external_id": "id", "columns": ["stock"]}
    if granted == "no key":
        with pytest.raises(TargetError, match=r"permission denied for table things\. Grant the user"):
            postgres_sync.run(items, **given)
        return
    assert counts(postgres_sync.run(items, **given)) == {"updated": 1_200}
    assert counts(postgres_sync.run(items, **given)) == {"unchanged": 1_200}
    with pytest.raises(TargetError, match=r"permission denied for table things\. Grant the user") as caught:
        postgres_sync.run([*items, {"id": 1_201, "stock": 1}], **given)
    assert "SELECT" not in str(caught.value)
    assert caught.value.results.error_count == 0


@pytest.mark.usefixtures("each_path")
def test_a_column_that_something_sets_back_is_named(sync: Syncs) -> None:
    sync.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, price NUMERIC(8, 2), stock INTEGER)")
    sync.execute(*(f"INSERT INTO things VALUES ({number}, 0, 0)" for number in range(50)))
    notes: list[tuple[str, ...]] = []
    for number in range(4):
        items: list[Item] = [{"id": each, "price": f"{each}.50", "stock": each + number} for each in range(50)]
        results = sync.run(items, key="id", get_external_id="id", columns=["price", "stock"])
        assert counts(results) == {"updated": 50}
        notes.append(results.notes)
        assert results.set_back == results.notes
        sync.execute("UPDATE things SET price = 0")
    assert notes[:2] == [(), ()]
    assert notes[3] == ("price was written on all of 50 records in each of 4 runs: something sets it back",)


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("share", [2, 10])
def test_a_column_that_is_set_back_on_some_records_is_named_with_them(sync: Syncs, share: int) -> None:
    """Half of them, or a tenth, while the source changes others each time."""
    sync.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, price INTEGER)")
    notes: list[tuple[str, ...]] = []
    for number in range(5):
        items: list[Item] = [{"id": each, "price": number if each % 10 == 3 else each} for each in range(30, 60)]
        results = sync.run(items, key="id", get_external_id="id", columns=["price"])
        notes.append(results.set_back)
        sync.execute(f"UPDATE things SET price = -1 WHERE id % {share} = 0")
    assert notes[:3] == [(), (), ()]  # it was created, written again, and again
    named = "15 records (30, 32, 34 and others)" if share == 2 else "3 records (30, 40, 50)"
    ends = "), with the same value each time, in 3 runs: something sets it back"
    assert [each.startswith("price was written on") and each.endswith(ends) for each in notes[3]] == [True]
    assert named in notes[3][0]
    assert "in 4 runs" in notes[4][0]


@pytest.mark.usefixtures("each_path")
def test_records_that_a_trigger_changes_in_turns_are_named(sync: Syncs) -> None:
    """Each write of one takes the value from the other, so that each run writes the other one."""
    sync.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, first INTEGER)")
    if sync.is_postgresql:
        sync.execute(
            "CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN UPDATE things SET first = 0 WHERE id <> NEW.id AND first = 1; RETURN NEW; END $$",
            "CREATE TRIGGER takes AFTER INSERT OR UPDATE ON things FOR EACH ROW WHEN (NEW.first = 1) "
            "EXECUTE FUNCTION take()",
        )
    else:
        for event in ("INSERT", "UPDATE"):
            sync.execute(
                f"CREATE TRIGGER only_{event} AFTER {event} ON things WHEN NEW.first = 1 "
                "BEGIN UPDATE things SET first = 0 WHERE id <> NEW.id AND first = 1; END"
            )
    items: list[Item] = [{"id": 1, "first": 1}, {"id": 2, "first": 1}, {"id": 3, "first": 0}]
    given = {"key": "id", "get_external_id": "id", "columns": ["first"]}
    notes = [sync.run(items, **given).set_back for _ in range(7)]
    assert notes[:3] == [(), (), ()]
    assert [each.startswith("first was written on ") for each in notes[-1]] == [True]


@pytest.mark.usefixtures("each_path")
def test_what_is_refused_each_time_is_not_set_back(sync: Syncs) -> None:
    sync.execute(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, price INTEGER CHECK (price < 10))",
        "INSERT INTO things VALUES (1, 1), (2, 2)",
    )
    for _ in range(4):
        results = sync.run(
            [{"id": 1, "price": 99}, {"id": 2, "price": 3}], key="id", get_external_id="id", columns=None
        )
        assert (results.set_back, results.error_count) == ((), 1)


def test_values_that_the_source_changes_each_time_are_not_set_back(sqlite_sync: Syncs) -> None:
    sync = sqlite_sync
    sync.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, stock INTEGER)")
    for number in range(5):
        items: list[Item] = [{"id": each, "stock": 1_000 * number + each} for each in range(20)]
        results = sync.run(items, key="id", get_external_id="id", columns=["stock"])
        assert not results.notes


@pytest.mark.usefixtures("each_path")
@pytest.mark.parametrize("reference", ["", "ON DELETE CASCADE", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_circle_goes_though_an_update_that_leaves_it_had_to_wait(sync: Syncs, reference: str) -> None:
    """3 takes the code of 5, which is to go, and leaves the circle of 1 and 2, which are to go too."""
    tree(sync, reference, (1, "a", None), (2, "b", 1), (3, "c", 1), (5, "e", None), (6, None, 2))
    sync.execute("UPDATE things SET parent = 2 WHERE id = 1")
    assert run(sync, (3, "e", None)) == ({"updated": 1, "deleted": 4}, {})
    assert held(sync) == [(3, "e", None)]


@pytest.mark.usefixtures("each_path")
def test_a_circle_goes_at_once(sync: Syncs) -> None:
    tree(sync, "", (1, "a", None), (2, "b", 1), (3, "c", 2), (4, "d", 4), (5, "e", None))
    sync.execute("UPDATE things SET parent = 3 WHERE id = 1")
    assert run(sync, (5, "e", None)) == ({"unchanged": 1, "deleted": 4}, {})
