"""Types of columns: values that items have for them, and what others may have left in them."""

from __future__ import annotations

from dataclasses import dataclass

from sync_pipelines_tests.targets.plain_insert.values import (
    FAR,
    INFINITE,
    LETTERS,
    NUMBERS,
    REFUSED,
    Make,
    a_clock,
    a_day,
    a_decimal,
    a_digit,
    a_length,
    a_uuid,
    array,
    bound,
    either,
    is_number,
    is_whole,
    moment,
    only,
    pairs,
    same,
    some_bytes,
    some_json,
    text,
    three_bytes,
    whole,
)


@dataclass(frozen=True)
class Kind:
    """A type of column.

    Args:
        make: Makes a value that items have.
        local: SQL literals that others have left in such a column.
        strict: True if rows that are made must be the same to the letter, False if the database must find them equal.
    """

    ddl: str
    make: Make
    local: tuple[str, ...] = ("NULL",)
    strict: bool = True


BOOLEANS = pairs(
    (True, "true"), (False, "false"), (1, "1"), (0, "0"), ("yes", "yes"), ("f", "f"), ("maybe", "maybe"), (2, "2")
)
LABELS = same("good", "so so", "bad", "", "Good")

POSTGRESQL_TYPES = (
    "CREATE TYPE mood AS ENUM ('good', 'so so')",
    "CREATE DOMAIN word3 AS VARCHAR(3)",
    "CREATE DOMAIN short_word AS word3 CHECK (VALUE <> 'bad')",
    "CREATE DOMAIN filled AS CHAR(3)",
    "CREATE DOMAIN amount AS NUMERIC(4, 1)",
    "CREATE DOMAIN small AS SMALLINT CHECK (VALUE > 0)",
    "CREATE DOMAIN flags AS BIT(3)",
    "CREATE DOMAIN second AS TIMESTAMP(0)",
    "CREATE DOMAIN temper AS mood",
    "CREATE DOMAIN words AS VARCHAR(3)[]",
    "CREATE DOMAIN length0 AS INTERVAL(0)",
)
NUMERIC_LOCAL = ("NULL", "'NaN'", "1", "1.50")
TIME_LOCAL = ("NULL", "'infinity'", "'-infinity'", "'2024-01-01'", "'0044-03-15 BC'", "'20000-01-01'")
LENGTH_LOCAL = ("NULL", "'1 mon'", "'1 year 2 mons -3 days 04:05:06.7'", "'170000000 years'", "'-1 day +02:03:00'")
AMOUNTS = pairs((1.5, "1.5"), ("$1,000.50", "1000.50"), (3, "3"))
ADDRESSES = same("10.0.0.1", "10.0.0.1/32", "::1", "10.0.0.0/8", "10.0.0.300", "x")
BITS = same("101", "1", "1011", "", "x", "000")
WORDS = text("ab ", 5)
POSTGRESQL = {
    kind.ddl: kind
    for kind in (
        Kind("SMALLINT", whole(16), ("NULL", "0", "7")),
        Kind("INTEGER", whole(32), ("NULL", "0", "7")),
        Kind("BIGINT", whole(64), ("NULL", "0", "7")),
        Kind("NUMERIC", either(NUMBERS, INFINITE), (*NUMERIC_LOCAL, "'Infinity'")),
        Kind("NUMERIC(6, 2)", either(NUMBERS, NUMBERS, INFINITE), NUMERIC_LOCAL),
        Kind("NUMERIC(4, -1)", NUMBERS, NUMERIC_LOCAL),
        Kind("NUMERIC(3, 5)", either(NUMBERS, same("0.00123", "0.000999", "0.01")), ("NULL", "'NaN'", "0.001")),
        Kind("REAL", either(NUMBERS, INFINITE), ("NULL", "'NaN'", "'-0'", "0.1", "'Infinity'")),
        Kind("DOUBLE PRECISION", either(NUMBERS, INFINITE), ("NULL", "'NaN'", "'-0'", "0.1", "'Infinity'")),
        Kind("BOOLEAN", BOOLEANS, ("NULL", "true", "false")),
        Kind("TEXT", either(text(LETTERS, 9), same("", "NULL", "\\N", "null", "  ")), ("NULL", "''", "'a'")),
        Kind("VARCHAR(5)", either(text(LETTERS, 7), WORDS), ("NULL", "''", "'a '")),
        Kind("CHAR(4)", either(text(LETTERS, 5), WORDS), ("NULL", "''", "'a '")),
        Kind("word3", WORDS, ("NULL", "'a '")),
        Kind("short_word", either(WORDS, same("bad")), ("NULL", "'a'")),
        Kind("filled", WORDS, ("NULL", "'a'")),
        Kind("amount", NUMBERS, ("NULL", "'NaN'", "1.5")),
        Kind("small", whole(16), ("NULL", "7")),
        Kind("flags", BITS, ("NULL", "'101'")),
        Kind("second", moment(aware=False), TIME_LOCAL),
        Kind("temper", LABELS, ("NULL", "'good'")),
        Kind("words", array(WORDS), ("NULL", "'{}'", "'{a,NULL}'")),
        Kind("length0", a_length, LENGTH_LOCAL),
        Kind("DATE", either(a_day, a_day, same("x", "2024-02-30")), TIME_LOCAL),
        Kind("TIMESTAMP", moment(aware=False), TIME_LOCAL),
        Kind("TIMESTAMP(0)", moment(aware=False), TIME_LOCAL),
        Kind("TIMESTAMPTZ", moment(aware=True), TIME_LOCAL),
        Kind("TIMESTAMPTZ(3)", moment(aware=True), TIME_LOCAL),
        Kind("TIME", a_clock, ("NULL", "'24:00'", "'10:00'")),
        Kind("TIME(2)", a_clock, ("NULL", "'24:00'", "'10:00'")),
        Kind("INTERVAL", a_length, LENGTH_LOCAL),
        Kind("INTERVAL(1)", a_length, LENGTH_LOCAL),
        Kind("BYTEA", some_bytes, ("NULL", "'\\x00'", "''")),
        Kind("UUID", either(a_uuid, same("x", "")), ("NULL", "'00000000-0000-0000-0000-000000000007'")),
        Kind("INET", ADDRESSES, ("NULL", "'10.0.0.1'")),
        Kind("CIDR", ADDRESSES, ("NULL", "'10.0.0.1'")),
        Kind("MACADDR", same("08:00:2b:01:02:03", "08-00-2B-01-02-03", "x"), ("NULL", "'08:00:2b:01:02:03'")),
        Kind("BIT(3)", BITS, ("NULL", "'101'")),
        Kind("VARBIT(3)", BITS, ("NULL", "'1'", "''")),
        Kind("MONEY", either(AMOUNTS, same("1", "-2.345", "1e3", "x", "99999999999999999999")), ("NULL", "7")),
        Kind("mood", LABELS, ("NULL", "'good'")),
        Kind("INT4RANGE", same("[1,5]", "(1,5)", "[5,)", "empty", "[5,1]", "x"), ("NULL", "'[1,6)'")),
        Kind("NUMRANGE", same("[1.0,5]", "[1,5.00]", "x"), ("NULL", "'[1,5]'"), strict=False),
        Kind("POINT", same("(1.50,2)", "1,2", "x"), ("NULL", "'(1,2)'")),
        Kind("JSON", some_json, ("NULL", "'1'", "'{\"a\": 1}'"), strict=False),
        Kind("JSONB", some_json, ("NULL", "'1'", "'{\"a\": 1}'")),
        Kind("TEXT[]", array(text(LETTERS, 4)), ("NULL", "'{}'", "'{a,NULL}'")),
        Kind("VARCHAR(3)[]", array(WORDS), ("NULL", "'{}'", "'{a,NULL}'")),
        Kind("INTEGER[]", array(whole(32)), ("NULL", "'{}'", "'{1,NULL}'")),
        Kind("NUMERIC(5, 1)[]", array(NUMBERS), ("NULL", "'{}'", "'{1.5,NaN}'")),
        Kind("DOUBLE PRECISION[]", array(either(NUMBERS, INFINITE)), ("NULL", "'{NaN,1}'")),
        Kind("TIMESTAMPTZ[]", array(moment(aware=True)), ("NULL", "'{infinity,2024-01-01}'")),
        Kind("DATE[]", array(a_day), ("NULL", "'{infinity,2024-01-01}'")),
        Kind("INTERVAL[]", array(a_length), ("NULL", "'{1 mon}'")),
        Kind("BYTEA[]", array(some_bytes), ("NULL", "'{\"\\\\\\\\x00\"}'")),
        Kind("BOOLEAN[]", array(BOOLEANS), ("NULL", "'{t,NULL}'")),
        Kind("UUID[]", array(a_uuid), ("NULL", "'{}'")),
        Kind("INET[]", array(ADDRESSES), ("NULL", "'{10.0.0.1}'")),
        Kind("word3[]", array(WORDS), ("NULL", "'{a}'")),
        Kind("mood[]", array(LABELS), ("NULL", "'{good}'")),
        Kind("NAME", text("abc", 9), ("NULL", "'a'")),
    )
}  # fmt: skip


RAW = either(three_bytes, text(LETTERS, 5))
ANYTHING = bound(either(
    same("007", "+5", "1e5", " 7 ", "5.", ".5", "1e400", "nan", "inf", "0x10", "1_0", "", "-"),
    same("\u0667", "9" * 30, "\x1c7"),
    pairs(*((value, value) for value in (0, 1, -1, 2**62, -(2**63), 2**63 - 1, 1.5, 7.0, 1e300, True, None))),
    text(LETTERS, 5), a_decimal, RAW,
))  # fmt: skip
TRUE_OR_FALSE = pairs((True, 1), (False, 0), ("yes", 1), ("f", 0), ("maybe", REFUSED))
TEXT_LOCAL = ("NULL", "'a'", "x'00'", "CAST(x'ff41' AS TEXT)")
BLANKS_LOCAL = ("NULL", "''", "' '", "'    '", "'a '")
FLEXIBLE_LOCAL = ("NULL", "7", "7.5", "'007'", "'x'", "x'00ff'")
SQLITE = {
    kind.ddl: kind
    for kind in (
        Kind("", ANYTHING, FLEXIBLE_LOCAL),
        Kind("ANY", ANYTHING, FLEXIBLE_LOCAL),
        Kind("STRING", ANYTHING, FLEXIBLE_LOCAL),
        Kind("BLOB", bound(either(RAW, ANYTHING)), FLEXIBLE_LOCAL),
        Kind("LONGBLOB", ANYTHING, FLEXIBLE_LOCAL),
        Kind("INTEGER", only(bound(whole(64)), is_whole), FLEXIBLE_LOCAL),
        Kind("INT", only(bound(whole(64)), is_whole), FLEXIBLE_LOCAL),
        Kind("REAL", only(bound(either(a_decimal, FAR, same("x", ""))), is_number), FLEXIBLE_LOCAL),
        Kind("NUMERIC", only(bound(either(a_decimal, FAR, same("x", ""))), is_number), FLEXIBLE_LOCAL),
        Kind("TEXT", either(bound(text(LETTERS, 9)), same("", "007", "1e5", " 7 "), a_digit), TEXT_LOCAL),
        Kind("CHAR(4)", either(bound(text(LETTERS, 9)), WORDS), BLANKS_LOCAL),
        Kind("NCHAR(4)", either(bound(text(LETTERS, 9)), WORDS), BLANKS_LOCAL),
        Kind("VARCHAR(5)", either(bound(text(LETTERS, 9)), WORDS), BLANKS_LOCAL),
        Kind("BOOLEAN", TRUE_OR_FALSE, ("NULL", "1", "0", "'x'")),
    )
}  # fmt: skip
STRICT = {name: SQLITE[name] for name in ("ANY", "INTEGER", "INT", "REAL", "TEXT", "BLOB")}
