"""Rows that the database refuses: each fails with the database's own words, and every good one lands."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.results import SyncResults
from sync_pipelines_tests.targets.staging.conftest import Item, Syncs, counts

GOOD = 5_000
COLUMNS = ["name", "stock", "shop", "code", "place"]


def good_items(count: int = GOOD) -> list[Item]:
    return [
        {"sku": f"S{number:05}", "name": "fine", "stock": number % 100, "shop": number % 2 + 1, "code": f"C{number}",
         "place": number}
        for number in range(count)
    ]  # fmt: skip


def make_things(sync: Syncs, *more: str) -> None:
    """A table with a constraint of each kind, and shops 1 to 3."""
    deferred = " DEFERRABLE INITIALLY DEFERRED" if sync.database.dialect.name == "postgresql" else ""
    sync.execute(
        "CREATE TABLE shops (id INTEGER PRIMARY KEY)",
        "INSERT INTO shops VALUES (1), (2), (3)",
        "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, name VARCHAR(8) NOT NULL CHECK (name NOT LIKE 'bad%'), "
        "stock SMALLINT CHECK (stock % 1000 <> 999), shop INTEGER REFERENCES shops (id), code TEXT UNIQUE, "
        f"place INTEGER, CONSTRAINT one_at_a_place UNIQUE (place){deferred})",
        *more,
    )


def mixed(items: list[Item], bad: dict[int, dict[str, Any]]) -> list[Item]:
    """The items with some made bad."""
    return [{**item, **bad.get(number, {})} for number, item in enumerate(items)]


def messages(results: SyncResults) -> dict[int, str]:
    return {error.position: error.message for error in results.errors}


BAD: dict[int, tuple[dict[str, Any], str, str]] = {
    7: ({"name": "badly"}, "things_name_check", "CHECK constraint failed"),
    1500: ({"name": None}, '"name"', "NOT NULL constraint failed: things.name"),
    2200: ({"stock": 999}, "things_stock_check", "CHECK constraint failed"),
    2201: ({"shop": 77}, "things_shop_fkey", "FOREIGN KEY constraint failed"),
    3333: ({"code": "taken"}, "things_code_key", "UNIQUE constraint failed: things.code"),
    3500: ({"place": -1}, "one_at_a_place", "UNIQUE constraint failed: things.place"),
    4000: ({"name": "much too long"}, "value too long for type character varying(8)", ""),
    4001: ({"stock": 40_000}, "smallint out of range", ""),
}


@pytest.mark.parametrize("is_update", [False, True], ids=["created", "updated"])
def test_every_refused_row_has_the_databases_own_message_and_all_others_land(
    sync: Syncs,
    is_update: bool,  # noqa: FBT001
) -> None:
    """Of thousands of rows, created or updated, one breaks each kind of constraint."""
    make_things(sync, "INSERT INTO things VALUES ('OTHER', 'fine', 1, 3, 'taken', -1)")
    if is_update:
        before = [{**item, "stock": 500} for item in good_items()]
        assert counts(sync(before, columns=COLUMNS)) == {"created": GOOD}
    is_sqlite = sync.database.dialect.name == "sqlite"
    wanted = {place: each[2 if is_sqlite else 1] for place, each in BAD.items() if each[2] or not is_sqlite}
    items = mixed(good_items(), {place: BAD[place][0] for place in wanted})

    results = sync(items, columns=COLUMNS)

    written = "updated" if is_update else "created"
    assert counts(results) == {written: GOOD - len(wanted), "failed": len(wanted)}
    assert list(messages(results)) == list(wanted)
    for place, part in wanted.items():
        assert part in messages(results)[place]
    landed = {row[0] for row in sync.rows("SELECT sku FROM things WHERE stock < 200 AND sku <> 'OTHER'")}
    assert landed == {item["sku"] for place, item in enumerate(items) if place not in wanted}


def test_of_two_new_rows_with_the_same_unique_value_the_first_lands(sync: Syncs) -> None:
    """As page by page: the fetch says which is the first, however far apart they are."""
    make_things(sync)
    bad = {100: {"code": "twin"}, 1_900: {"code": "twin"}, 300: {"place": -5}, 301: {"place": -5}}
    results = sync(mixed(good_items(2_000), bad), columns=COLUMNS)
    assert counts(results) == {"created": 1_998, "failed": 2}
    assert list(messages(results)) == [301, 1_900]


def test_values_may_be_swapped_where_the_constraint_waits_for_the_end(postgres_sync: Syncs) -> None:
    """A deferrable constraint sees the rows when all of them are written."""
    make_things(postgres_sync)
    items = good_items(20)
    postgres_sync(items, columns=COLUMNS)
    swapped = mixed(items, {3: {"place": 4}, 4: {"place": 3}})
    assert counts(postgres_sync(swapped, columns=COLUMNS)) == {"updated": 2, "unchanged": 18}


REFUSES = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF NEW.name = 'unlucky' THEN RAISE EXCEPTION 'not today, %', NEW.sku; END IF; "
    "IF NEW.name = 'unseen' THEN RETURN NULL; END IF; RETURN NEW; END $$"
)
TRIGGER = "CREATE TRIGGER looks BEFORE INSERT OR UPDATE ON things FOR EACH ROW EXECUTE FUNCTION refuse()"


@pytest.mark.parametrize("is_update", [False, True], ids=["created", "updated"])
def test_a_trigger_may_refuse_rows(postgres_sync: Syncs, is_update: bool) -> None:  # noqa: FBT001
    make_things(postgres_sync, REFUSES, TRIGGER)
    items = good_items(3_000)
    if is_update:
        postgres_sync([{**item, "stock": 500} for item in items], columns=COLUMNS)
    results = postgres_sync(mixed(items, {9: {"name": "unlucky"}, 2_999: {"name": "unlucky"}}), columns=COLUMNS)
    assert counts(results) == {"updated" if is_update else "created": 2_998, "failed": 2}
    assert [each.splitlines()[0] for each in messages(results).values()] == [
        "not today, S00009",
        "not today, S02999",
    ]


def test_a_row_that_a_trigger_drops_silently_takes_no_other_along(postgres_sync: Syncs) -> None:
    """What a trigger drops has failed: counts say what was written."""
    make_things(postgres_sync, REFUSES, TRIGGER)
    items = mixed(good_items(2_000), {5: {"name": "unseen"}})
    dropped = messages(postgres_sync(items, columns=COLUMNS))
    assert list(dropped) == [5]
    assert "kept nothing" in dropped[5]
    assert postgres_sync.rows("SELECT count(*) FROM things") == [(1_999,)]
    changed = mixed(good_items(2_000), {5: {"name": "unseen"}, 6: {"name": "unseen"}, 7: {"stock": 9}})
    results = postgres_sync(changed, columns=COLUMNS)
    assert list(messages(results)) == [5, 6]
    assert "has not updated the local record" in messages(results)[6]
    assert postgres_sync.rows("SELECT stock FROM things WHERE sku = 'S00007'") == [(9,)]


def test_a_trigger_of_sqlite_may_refuse_rows(sqlite_sync: Syncs) -> None:
    make_things(
        sqlite_sync,
        "CREATE TRIGGER looks BEFORE INSERT ON things WHEN NEW.name = 'unlucky' "
        "BEGIN SELECT RAISE(ABORT, 'not today'); END",
        "CREATE TRIGGER drops BEFORE INSERT ON things WHEN NEW.name = 'unseen' BEGIN SELECT RAISE(IGNORE); END",
    )
    bad = {9: {"name": "unlucky"}, 1_999: {"name": "unlucky"}, 5: {"name": "unseen"}}
    results = sqlite_sync(mixed(good_items(2_000), bad), columns=COLUMNS)
    found = messages(results)
    assert "kept nothing" in found.pop(5)
    assert found == {9: "not today", 1_999: "not today"}
    assert sqlite_sync.rows("SELECT count(*) FROM things") == [(1_997,)]


def test_an_exclusion_constraint_keeps_out_what_overlaps(postgres_sync: Syncs) -> None:
    """With a row that is there, and of two new ones the second."""
    postgres_sync.execute(
        "CREATE TABLE things (sku TEXT PRIMARY KEY, batch INT4RANGE, EXCLUDE USING gist (batch WITH &&))",
        "INSERT INTO things VALUES ('OTHER', '[-10,-1)')",
    )
    items: list[Item] = [{"sku": f"S{n:05}", "batch": f"[{n * 10},{n * 10 + 5})"} for n in range(1_500)]
    items[700]["batch"] = "[-3,5000000)"
    items[1_200]["batch"] = "[11991,11996)"
    results = postgres_sync(items, columns=["batch"])
    assert counts(results) == {"created": 1_498, "failed": 2}
    assert list(messages(results))[0] == 700  # noqa: RUF015 - the first is certain
    assert all("things_batch_excl" in message for message in messages(results).values())


def test_a_delete_that_another_table_refuses_is_told_and_all_others_are_deleted(sync: Syncs) -> None:
    make_things(sync)
    items = good_items(3_000)
    sync(items, columns=COLUMNS)
    sync.execute(
        "CREATE TABLE sales (sku VARCHAR(20) REFERENCES things (sku))",
        "INSERT INTO sales VALUES ('S01234'), ('S02999')",
    )
    results = sync(items[:1_000], columns=COLUMNS, deletes="hard")
    assert counts(results) == {"unchanged": 1_000, "deleted": 1_998, "failed": 2}
    assert results.failed_deletes == 2
    assert [(each.position, each.external_id) for each in results.errors] == [(-1, "S01234"), (-1, "S02999")]
    assert all("foreign key" in error.message.lower() for error in results.errors)
    assert sync.rows("SELECT count(*) FROM things") == [(1_002,)]


def test_rows_of_a_partition_that_is_not_there_fail_alone(postgres_sync: Syncs) -> None:
    postgres_sync.execute(
        "CREATE TABLE things (sku TEXT, region TEXT, n INT, PRIMARY KEY (sku, region)) PARTITION BY LIST (region)",
        "CREATE TABLE things_eu PARTITION OF things FOR VALUES IN ('eu')",
        "CREATE TABLE things_us PARTITION OF things FOR VALUES IN ('us')",
    )
    declared: dict[str, Any] = {"key": ["sku", "region"], "columns": ["n"]}
    declared["get_external_id"] = lambda item: f'["{item["sku"]}", "{item["region"]}"]'
    items = [{"sku": f"S{n}", "region": ("eu", "us", "mars")[n % 3], "n": n} for n in range(300)]
    results = postgres_sync(items, **declared)
    assert counts(results) == {"created": 200, "failed": 100}
    assert all("no partition" in error.message for error in results.errors)
    changed = [{**item, "n": -1} for item in items if item["region"] == "us"]
    assert counts(postgres_sync(changed, **declared, deletes="hard")) == {"updated": 100, "deleted": 100}


def test_a_table_that_may_not_be_read_is_not_asked_which_rows_refer_to_nothing(
    postgres_sync: Syncs, postgres_admin: sa.Engine
) -> None:
    """The search for guilty rows is a help only: where the role may not look, they are found by halving."""
    make_things(postgres_sync)
    role = f"role_{postgres_sync.database.url.database}"
    postgres_sync.execute(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON things TO {role}",
        f"GRANT CREATE, TEMP ON DATABASE {postgres_sync.database.url.database} TO {role}",
    )
    limited = sa.create_engine(postgres_sync.database.url.set(username=role))
    results = postgres_sync(mixed(good_items(500), {77: {"shop": 9}}), columns=COLUMNS, database=limited)
    assert counts(results) == {"created": 499, "failed": 1}
    assert "things_shop_fkey" in messages(results)[77]
    limited.dispose()
    postgres_sync.execute(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_a_check_that_needs_its_table_is_found_by_halving(postgres_sync: Syncs) -> None:
    """A condition that fails outside of its table does not fail the comparison."""
    postgres_sync.execute("CREATE TABLE things (sku TEXT PRIMARY KEY, n INT CHECK (100 / n > 1), m INT CHECK (m < 10))")
    items = [{"sku": f"S{n}", "n": n % 40 + 1, "m": n % 10} for n in range(500)]
    items[7]["n"] = 0
    items[8]["n"] = 200
    items[9]["m"] = 10
    results = postgres_sync(items, columns=["n", "m"])
    assert counts(results) == {"created": 497, "failed": 3}
    assert "division by zero" in messages(results)[7]
    assert "things_n_check" in messages(results)[8]
    assert "things_m_check" in messages(results)[9]


def test_a_bad_row_of_a_tree_takes_no_good_branch_with_it(sync: Syncs) -> None:
    """Rows that refer to others of the same fetch, children first, beside one that refers to nobody."""
    sync.execute("CREATE TABLE things (sku INTEGER PRIMARY KEY, p INTEGER REFERENCES things (sku))")
    tree = [{"sku": 3, "p": 2}, {"sku": 2, "p": 1}, {"sku": 4, "p": 99}, {"sku": 1, "p": None}]
    results = sync(tree, columns=["p"])
    assert counts(results) == {"created": 3, "failed": 1}
    assert results.errors[0].external_id == "4"
