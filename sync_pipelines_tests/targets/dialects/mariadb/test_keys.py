"""Keys that MariaDB finds equal are one key: folded here exactly as the collation of the column does it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync_pipelines import SyncJob, run_sync
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.dialects.mysql_collations import Collation
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines_tests.targets.dialects.mariadb.tables import make
from sync_pipelines_tests.targets.dialects.mariadb.tables import opened as opened_table
from sync_pipelines_tests.two_speeds import spread_rows

COLLATIONS = [
    ("utf8mb4", "utf8mb4_general_ci"),
    ("utf8mb4", "utf8mb4_general_nopad_ci"),
    ("utf8mb4", "utf8mb4_unicode_ci"),
    ("utf8mb4", "utf8mb4_unicode_520_nopad_ci"),
    ("utf8mb4", "utf8mb4_uca1400_ai_ci"),
    ("utf8mb4", "utf8mb4_danish_ci"),
    ("utf8mb4", "utf8mb4_hungarian_ci"),
    ("utf8mb4", "utf8mb4_bin"),
    ("utf8mb4", "utf8mb4_nopad_bin"),
    ("utf8mb3", "utf8mb3_general_ci"),
    ("latin1", "latin1_swedish_ci"),
    ("latin1", "latin1_bin"),
    ("ascii", "ascii_general_ci"),
    ("cp1250", "cp1250_general_ci"),
    ("gbk", "gbk_chinese_ci"),
]
# What collations are known to treat in a way of their own.
ODD = [
    *(
        "a",
        "A",
        "b",
        "z",
        "Z",
        "ä",
        "Ä",
        "á",
        "ß",
        "ẞ",
        "ss",
        "SS",
        "ae",
        "æ",
        "Æ",
        "oe",
        "œ",
        "aa",
        "AA",
        "å",
        "ch",
        "CH",
    ),
    *("Ch", "ll", "dz", "dzs", "DZS", "cs", "sz", "i", "I", "\u0131", "İ", "\u017f", "K", "\u212a", "e\u0301", "é"),
    *("\u200b", "\u00ad", "\0", "\uff58", "x", "²", "2", "½", "日", "本", "ｶ", "カ", "か", "が", "Ж", "ж", "😀", "😁"),
    *("ﬁ", "fi", "\u2019", "'", "-", "_", ".", "/", "\\", "%", "\u00a0", "\t", " ", "  ", "", chr(0xF0041)),
]
near = st.lists(st.sampled_from(ODD), max_size=4).map("".join)
opened = partial(opened_table, columns=["n"])


def is_known(collation: Collation, text: str) -> bool:
    """False for text that the character set can't hold."""
    try:
        collation.fold(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("charset", "name"), spread_rows(COLLATIONS, 3), ids=[name for _, name in COLLATIONS])
def test_texts_are_folded_to_the_same_if_and_only_if_the_database_finds_them_equal(
    mariadb: sa.Engine, charset: str, name: str
) -> None:
    collation = Collation(mariadb, charset, name)
    assert collation.why_no_key() is None
    text = f"CONVERT(:{{}} USING {charset}) COLLATE {name}"

    @given(pairs=st.lists(st.tuples(near, near), min_size=100, max_size=100))
    @example(pairs=[(one, other) for one in ODD for other in ODD][:2000])
    @settings(max_examples=2, deadline=None, database=None)
    def folds(pairs: list[tuple[str, str]]) -> None:
        known = [pair for pair in pairs if all(is_known(collation, text) for text in pair)]
        texts = {
            f"{side}_{number}": pair[place] for number, pair in enumerate(known) for place, side in enumerate("lr")
        }
        asked = [f"{text.format(f'l_{number}')} = {text.format(f'r_{number}')}" for number in range(len(known))]
        with mariadb.connect() as connection:
            equal = connection.execute(sa.text(f"SELECT {', '.join([*asked, '1'])}"), texts).one()
        for (one, other), same in zip(known, equal[:-1], strict=True):
            assert (collation.fold(one) == collation.fold(other)) == bool(same), (one, other)

    folds()


@pytest.mark.parametrize(
    ("name", "text", "folded"),
    [
        ("utf8mb4_general_ci", "ABC-12/x ", "abc-12/x"),
        ("utf8mb4_general_ci", "ÄPFEL Straße Жук 日本", "apfel strase жук 日本"),
        ("utf8mb4_unicode_ci", "ÄPFEL Straße Жук 日本", "apfel strasse жук 日本"),
        ("utf8mb4_uca1400_ai_ci", "Čaj\u00a0", "caj"),
        ("utf8mb4_danish_ci", "Aarhus", "århus"),
        ("utf8mb4_bin", "Ab ", "Ab"),
        ("utf8mb4_nopad_bin", "Ab ", "Ab "),
    ],
)
def test_folded_ids_can_be_read(mariadb: sa.Engine, name: str, text: str, folded: str) -> None:
    assert Collation(mariadb, "utf8mb4", name).fold(text) == folded


def test_keys_that_the_database_finds_equal_are_one_record(mariadb: sa.Engine) -> None:
    make(mariadb, "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, n INT)")
    with opened(mariadb) as target:
        target.create({"sku": "Äpfel", "n": 1})
        assert target.canonical_id("APFEL ") == "apfel"
        assert target.find_many(["apfel", "ÄPFEL  "]) == {"apfel": {"sku": "Äpfel", "n": 1}}
        assert list(target.list_local()) == ["apfel"]
        target.update({"sku": "APFEL", "n": 2}, target.find_many(["apfel"])["apfel"])
        assert target.find_local("apfel") == {"sku": "Äpfel", "n": 2}
        with pytest.raises(ItemError, match="empty"):
            target.canonical_id("   ")


def test_a_run_knows_its_records_whatever_their_spelling(mariadb: sa.Engine, tmp_path: Path) -> None:
    """Neither is one created twice, nor deleted because the source spells it in another way."""
    make(
        mariadb,
        "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, n INT)",
        "INSERT INTO things VALUES ('ABC', 1), ('Größe', 1), ('gone', 1)",
    )
    items = [{"sku": "abc ", "n": 1}, {"sku": "grose", "n": 2}, {"sku": "new", "n": 1}, {"sku": "NEW", "n": 2}]
    job: SyncJob[Any, Any] = SyncJob(
        name="spelling",
        fetch_external=lambda: items,
        target=SqlTable(table="things", key="sku", columns=["n"], database=mariadb),
        deletes="hard",
        guards=None,
    )
    first = run_sync(job, settings=Settings(data_dir=tmp_path))
    assert (first.created, first.updated, first.unchanged, first.deleted, first.counts()["duplicate"]) == (
        1,
        1,
        1,
        1,
        1,
    )
    again = run_sync(job, settings=Settings(data_dir=tmp_path))
    assert (again.unchanged, again.counts()["duplicate"], again.created, again.updated, again.deleted) == (
        3,
        1,
        0,
        0,
        0,
    )
    with mariadb.connect() as connection:
        found = connection.exec_driver_sql("SELECT sku, n FROM things ORDER BY sku").all()
    assert [tuple(row) for row in found] == [("ABC", 1), ("Größe", 2), ("NEW", 2)]


def test_keys_of_several_columns_are_folded_part_by_part(mariadb: sa.Engine) -> None:
    make(
        mariadb,
        "CREATE TABLE things (sku VARCHAR(20), shop CHAR(4) COLLATE utf8mb4_bin, n INT, PRIMARY KEY (sku, shop))",
    )
    with opened(mariadb, key=["sku", "shop"]) as target:
        target.create_many([{"sku": "A", "shop": "de", "n": 1}, {"sku": "a", "shop": "DE", "n": 2}])
        assert sorted(target.list_local()) == ['["a", "DE"]', '["a", "de"]']
        assert len(target.find_many(['["A","de"]', '["a","DE"]', '["a","dE"]'])) == 2


def test_a_key_that_the_character_set_cannot_hold_fails_its_item(mariadb: sa.Engine) -> None:
    for charset in ("utf8mb3", "utf8mb3 COLLATE utf8mb3_bin", "latin1"):
        make(mariadb, f"CREATE TABLE things (sku VARCHAR(20) CHARACTER SET {charset} PRIMARY KEY, n INT)")
        with opened(mariadb) as target:
            target.create({"sku": "?", "n": 1})
            with pytest.raises(ItemError, match=r"column 'sku': '😀' does not convert.*can't hold it"):
                target.canonical_id("😀")
            assert target.canonical_id("?") == "?"
        make(mariadb, "DROP TABLE things")


@pytest.mark.parametrize("name", ["utf8mb4_uca1400_as_cs", "utf8mb4_uca1400_as_ci", "cp1250_czech_cs"])
def test_a_collation_that_cannot_be_followed_is_refused_by_name(mariadb: sa.Engine, name: str) -> None:
    charset = name.partition("_")[0]
    make(mariadb, f"CREATE TABLE things (sku VARCHAR(20) CHARACTER SET {charset} COLLATE {name} PRIMARY KEY, n INT)")
    with pytest.raises(ConfigurationError, match=rf"column 'sku' of 'things' has the collation {name}.*utf8mb4_bin"):  # noqa: SIM117
        with opened(mariadb):
            pass


def test_other_keys_are_asked_for_together(mariadb: sa.Engine, tmp_path: Path) -> None:
    make(mariadb, "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, n INT)")
    items = [{"sku": f"Ж-{number}", "n": 1} for number in range(1200)]
    job: SyncJob[Any, Any] = SyncJob(
        name="cyrillic",
        fetch_external=lambda: items,
        target=SqlTable(table="things", key="sku", columns=["n"], database=mariadb),
        deletes="hard",
        guards=None,
    )
    assert run_sync(job, settings=Settings(data_dir=tmp_path)).created == 1200
    asked: list[str] = []
    sa.event.listen(mariadb, "before_cursor_execute", lambda *args: asked.append(args[2]))
    results = run_sync(job, settings=Settings(data_dir=tmp_path))
    assert (results.unchanged, results.deleted) == (1200, 0)
    assert len([query for query in asked if "WEIGHT_STRING" in query]) < 30  # and not 1,200


def test_plain_keys_are_folded_without_asking(mariadb: sa.Engine) -> None:
    make(mariadb, "CREATE TABLE things (sku VARCHAR(20) PRIMARY KEY, n INT)")
    with opened(mariadb) as target:
        target.canonical_id("A")
        asked: list[str] = []
        sa.event.listen(mariadb, "before_cursor_execute", lambda *args: asked.append(args[2]))
        assert [target.canonical_id(f"SKU-{number}") for number in range(3)] == ["sku-0", "sku-1", "sku-2"]
    assert asked == []
