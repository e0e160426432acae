"""Text for a column that is no text: taken as the database itself would take it, or refused, never as another value."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import ItemError
from sync_pipelines.runner.decide.staged_diff import FROM_ITEMS
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.settings.model import Settings
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.types import times, values

KINDS = ("smallint", "integer", "bigint", "numeric", "numeric(10,2)", "double precision", "boolean", "uuid")
TIMES = {
    "2024-01-02 03:04:05.1234567": "2024-01-02 03:04:05.123457",
    "2024-01-02T03:04:05.123456499Z": "2024-01-02 03:04:05.123456",
    "2024-12-31 23:59:59.9999999": "2025-01-01 00:00:00",
    "20240102T030405": "2024-01-02 03:04:05",
    "\t20240102 ": "2024-01-02 00:00:00",
    "20240102T03040506": None,
    "\xa02024-01-02": None,
}
UUID_TEXT = "12345678-1234-5678-1234-567812345678"
TEXTS = (
    "1", " 1 ", "\t1\n", "\xa01", "1\u2003", "+1", "-1", "--1", "007", "-0", "1.", "1.0", "1.000", "1.200", "1,000",
    "1.000,00", "1 000", "1'000", "1_000", "1e3", "1E3", "1e-3", "0x10", "0b1", "0o7", "\u0661", "\u0967", "\xb2",
    "\uff11", "\u2460", "1a", "a", "", "\u22121", "1\xa0000", "1\u202f000", "1-", "(1)", "1%", "$1", "inf",
    "-Infinity", "+inf", ".5", "5.", "1.5", "nan", "true", "TRUE", " true ", "\xa0true", "t", "y", "on", "off", "no",
    "0", "2", "00", "wahr", "\uff54\uff52\uff55\uff45", UUID_TEXT, UUID_TEXT.replace("-", ""), f"{{{UUID_TEXT}}}",
    f"{UUID_TEXT[:-1]}_", f"{UUID_TEXT[:-1]}\u0661", f"0x{'1' * 30}", "9223372036854775808", "9" * 30,
    "12345678901234.567891",
)  # fmt: skip


def stored_by_itself(connection: sa.Connection, kind: str, text: str) -> tuple[bool, Any]:
    """Returns whether a plain INSERT takes the text, and what lies there then."""
    try:
        with connection.begin_nested():
            connection.execute(sa.text(f"INSERT INTO plain_{KINDS.index(kind)} VALUES (:text)"), {"text": text})
            return True, connection.scalar(sa.text(f"SELECT v FROM plain_{KINDS.index(kind)}"))
    except sa.exc.DBAPIError:
        return False, None
    finally:
        connection.execute(sa.text(f"DELETE FROM plain_{KINDS.index(kind)}"))


def stored_by_us(target: Any, engine: sa.Engine, column: str, text: str) -> tuple[bool, Any]:
    try:
        target.create({"id": 1, column: text})
    except (ItemError, sa.exc.DBAPIError, OverflowError):
        return False, None
    with engine.begin() as connection:
        value = connection.scalar(sa.text(f'SELECT "{column}" FROM ours'))
        connection.execute(sa.text("DELETE FROM ours"))
        return True, value


def test_text_is_refused_or_becomes_what_a_plain_insert_makes_of_it(postgres: sa.Engine) -> None:
    names = [f"c{number}" for number in range(len(KINDS))]
    with postgres.begin() as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, KINDS, strict=True))
        connection.execute(sa.text(f"CREATE TABLE ours (id int PRIMARY KEY, {columns})"))
        for number, kind in enumerate(KINDS):
            connection.execute(sa.text(f"CREATE TABLE plain_{number} (v {kind})"))
    wrong, taken = [], 0
    with postgres.begin() as connection:
        for name, kind in zip(names, KINDS, strict=True):
            declared = SqlTable(table="ours", key="id", columns=[name], database=postgres)
            with declared.open(lambda item: str(item["id"])) as target:
                for text in TEXTS:
                    ours = stored_by_us(target, postgres, name, text)
                    taken += ours[0]
                    theirs = stored_by_itself(connection, kind, text)
                    if ours[0] and ours != theirs and not (kind != "boolean" and text == "nan" and ours[1] is None):
                        wrong.append((kind, text, ours, theirs))
    assert wrong == []
    assert taken > len(KINDS)


@pytest.mark.parametrize("text", ["1.000", "1.0", "1e3", "1_000", "0x10", "\u0661", "NaN", "", "1,000", "\xa01"])
def test_text_for_a_whole_number_must_be_written_as_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is not (a number|written as a whole number)"):
        values.to_int(text)


@pytest.mark.parametrize(("text", "number"), [("7", 7), (" 007 ", 7), ("+7", 7), ("-0", 0), ("9" * 30, int("9" * 30))])
def test_a_whole_number_may_have_a_sign_zeros_and_blanks(text: str, number: int) -> None:
    assert values.to_int(text) == number


@pytest.mark.parametrize("count", [3, FROM_ITEMS + 3])
def test_text_with_a_point_fails_its_item_one_by_one_and_in_bulk(
    sqlite: sa.Engine, settings: Settings, count: int
) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (id INTEGER PRIMARY KEY, pieces INTEGER)")
    items = [{"id": str(number), "pieces": "1"} for number in range(count)]
    items[1]["pieces"] = "1.000"
    items.append({"id": "2.000", "pieces": "1"})
    job: SyncJob[Any, Any] = SyncJob(
        name="stock", fetch_external=lambda: items, target=SqlTable(table="stock", key="id", database=sqlite)
    )
    results = run_sync(job, settings=settings)
    assert (results.created, [error.external_id for error in results.errors]) == (count - 1, ["1", "2.000"])
    assert all("it is not written as a whole number" in error.message for error in results.errors)


@pytest.mark.parametrize(("text", "expected"), TIMES.items())
def test_a_moment_is_rounded_as_the_database_rounds_it(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ValueError):  # noqa: PT011 - Python's own, or ours
            times.to_datetime(text, aware=False, precision=None)
    else:
        assert str(times.to_datetime(text, aware=False, precision=None)) == expected


def test_a_time_of_day_is_no_date_and_is_rounded() -> None:
    with pytest.raises(ValueError, match="it is not a time of day"):
        times.to_time("20240102", aware=False, precision=None)
    assert str(times.to_time("030405", aware=False, precision=None)) == "03:04:05"
    assert str(times.to_time("03:04:05.1234567", aware=False, precision=None)) == "03:04:05.123457"
    assert str(times.to_interval("1:00:00.1234567", precision=None)) == "1:00:00.123457"


def test_an_id_that_was_a_number_once_is_that_number_and_three_zeros_may_be_a_thousand(sqlite: sa.Engine) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE stock (id INTEGER PRIMARY KEY)")
    with SqlTable(table="stock", key="id", database=sqlite).open(lambda item: str(item["id"])) as target:
        assert [target.canonical_id(each) for each in ("7", "7.0", "7.00", "-7.0")] == ["7", "7", "7", "-7"]
        for each in ("1.000", "7.5", "7.", "7e0"):
            with pytest.raises(ItemError):
                target.canonical_id(each)


def test_a_number_with_an_enormous_exponent_takes_no_room() -> None:
    assert values.to_text(Decimal("1e999999999")) == "1E+999999999"
    assert values.to_text(Decimal("1e3")) == "1000"


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)


@pytest.mark.parametrize("kind", ["JSONB", "JSON", "TEXT"])
@pytest.mark.parametrize("count", [2, FROM_ITEMS])
def test_decimals_in_json_keep_all_digits_and_the_second_run_changes_nothing(
    postgres: sa.Engine, settings: Settings, kind: str, count: int
) -> None:
    with postgres.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE prices (id int PRIMARY KEY, info {kind})")
    exact = [Decimal("12345678901234.567891"), Decimal("0.10"), Decimal("7.00"), Decimal("1e-20")]
    info = {"ü": [*exact, 0.1, {"a": None}]}
    items = [{"id": number, "info": info} for number in range(count)]
    target = SqlTable(table="prices", key="id", columns=["info"], database=postgres)
    job: SyncJob[Any, Any] = SyncJob(name="prices", fetch_external=lambda: items, target=target)
    assert run_sync(job, settings=settings).created == count
    with postgres.connect() as connection:
        text = connection.scalar(sa.text("SELECT max(info::text) FROM prices"))
    assert json.loads(text, parse_float=Decimal)["ü"][:4] == exact
    assert run_sync(job, settings=settings).unchanged == count


def test_a_lone_decimal_in_json_is_what_sqlite_makes_of_it(sqlite: sa.Engine, settings: Settings) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE prices (id INTEGER PRIMARY KEY, info JSON)")
    items = [{"id": 1, "info": Decimal("12345678901234.567891")}, {"id": 2, "info": [Decimal("12345678901234.567891")]}]
    target = SqlTable(table="prices", key="id", columns=["info"], database=sqlite)
    job: SyncJob[Any, Any] = SyncJob(name="prices", fetch_external=lambda: items, target=target)
    assert [run_sync(job, settings=settings).outcome, run_sync(job, settings=settings).unchanged] == ["clean", 2]
    with sqlite.connect() as connection:
        assert connection.exec_driver_sql("SELECT info FROM prices WHERE id = 2").scalar() == "[12345678901234.567891]"
