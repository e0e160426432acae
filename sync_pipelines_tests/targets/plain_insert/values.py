"""Makes values that items have for a column, each with what a plain INSERT is given instead."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any


class Given(Enum):
    """Stands for what a plain INSERT is given."""

    REFUSED = "nothing: the type itself is declared to refuse the value, although the database would take it"


REFUSED = Given.REFUSED
Value = tuple[Any, Any]
"""What the item has, and what a plain INSERT is given for it: on PostgreSQL its text, on SQLite a driver's value."""
Make = Callable[[random.Random], Value]


def same(*values: Any) -> Make:
    """One of these values, which a plain INSERT is given as they are, as text."""
    return lambda rng: _plain(rng.choice(values))


def pairs(*values: Value) -> Make:
    return lambda rng: rng.choice(values)


def either(*makes: Make) -> Make:
    return lambda rng: rng.choice(makes)(rng)


def _plain(value: Any) -> Value:
    return value, None if value is None else str(value)


def text(letters: str, longest: int) -> Make:
    return lambda rng: _plain("".join(rng.choice(letters) for _ in range(rng.randint(0, longest))))


LETTERS = "ab\x00 Zß'\"\\,{}%:\t\u00e4\u4e2d\U0001f600"


def whole(bits: int) -> Make:
    def make(rng: random.Random) -> Value:
        edge = 2 ** (bits - 1)
        number = rng.choice(
            [0, 1, -1, rng.randint(-edge, edge - 1), edge - 1, -edge, edge, -edge - 1, rng.randint(-9, 9)]
        )
        forms: list[Value] = [(number, str(number)), (str(number), str(number)), (f" {number} ", str(number))]
        if abs(number) < 2**53:
            forms += [(float(number), str(number)), (Decimal(number), str(number))]
        if number >= 0:
            forms += [(f"00{number}", str(number)), (f"+{number}", str(number))]
        return rng.choice(forms)

    return either(make, make, make, same("x", "1,5", "", "7 7", "--1"))


def _decimal_text(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, rng.choice([3, 8, 30]))))
    fraction = "".join(rng.choice("0123456789") for _ in range(rng.randint(0, rng.choice([2, 6, 20]))))
    exponent = rng.choice(["", "", "", "", f"e{rng.randint(-30, 30)}"])
    return rng.choice(["", "-", "+"]) + digits + ("." + fraction if fraction else "") + exponent


def a_decimal(rng: random.Random) -> Value:
    number = _decimal_text(rng)
    return rng.choice([(number, number), (Decimal(number), str(Decimal(number))), (_as_float(number))])


def _as_float(number: str) -> Value:
    return float(number), repr(float(number))


FAR = same(
    "1e400", "-1e400", "1e-400", "1e39", "1e-46", "1e308", "1e-310", "3.5e38", "1e-45", "-0.0", "0", "12345678.9"
)
INFINITE: Make = pairs(("Infinity", "Infinity"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity"))
NUMBERS = either(a_decimal, a_decimal, a_decimal, FAR, same("x", "", "1,5", "0x", "1e"))


def _moment(rng: random.Random) -> datetime:
    seconds = rng.randint(-62_000_000_000, 253_000_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        seconds=seconds, microseconds=rng.choice([0, 500_000, 123_456, 999_999])
    )
    return moment.astimezone(
        rng.choice([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
    )


def moment(*, aware: bool) -> Make:
    """Moments; without a zone they are those of UTC, on both sides."""

    def make(rng: random.Random) -> Value:
        value = _moment(rng)
        in_utc = value.astimezone(UTC)
        plain = (value if aware else in_utc.replace(tzinfo=None)).isoformat()
        naive = in_utc.replace(tzinfo=None)
        return rng.choice([(value, plain), (value.isoformat(), plain), (naive, plain), (naive.isoformat(" "), plain)])

    return either(make, make, make, same("2024-02-30", "x", "", "2024-13-01T00:00:00", "2024-01-01T25:00:00"))


def a_day(rng: random.Random) -> Value:
    day = _moment(rng).date()
    return rng.choice([(day, str(day)), (str(day), str(day))])


def a_clock(rng: random.Random) -> Value:
    clock = _moment(rng).astimezone(UTC).time()
    if clock.hour == 23:
        clock = clock.replace(hour=1)
    return rng.choice([(clock, str(clock)), (str(clock), str(clock))])


def a_length(rng: random.Random) -> Value:
    length = timedelta(
        days=rng.randint(-900, 900), seconds=rng.randint(-9, 99_999), microseconds=rng.choice([0, 7, 650_000])
    )
    plain = f"{length.days} days {length.seconds}.{length.microseconds:06} seconds"
    return rng.choice([(length, plain), (str(length), plain)])


def a_uuid(rng: random.Random) -> Value:
    value = uuid.UUID(int=rng.getrandbits(128))
    return rng.choice(
        [(value, str(value)), (str(value).upper(), str(value)), (value.hex, str(value)), (f"{{{value}}}", str(value))]
    )


def some_bytes(rng: random.Random) -> Value:
    value = rng.randbytes(rng.randint(0, 5))
    return rng.choice(
        [
            (value, f"\\x{value.hex()}"),
            (bytearray(value), f"\\x{value.hex()}"),
            (f"\\x{value.hex()}", f"\\x{value.hex()}"),
        ]
    )


def _json_value(rng: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice([None, True, False, 0, -1, 2**40, 1.5, "", "x", 'ß"\\', "null", "1"]),
    ]
    if depth < 2:
        kinds += [
            lambda: [_json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))],
            lambda: {rng.choice("abc"): _json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))},
        ]
    return rng.choice(kinds)()


def some_json(rng: random.Random) -> Value:
    value = _json_value(rng)
    return value, None if value is None else json.dumps(value)


def array(make: Make) -> Make:
    """Lists of values, some of them null."""

    def makes(rng: random.Random) -> Value:
        parts = [make(rng) if rng.random() < 0.9 else (None, None) for _ in range(rng.randint(0, 3))]
        if any(plain is REFUSED for _, plain in parts):
            return [value for value, _ in parts], REFUSED
        return [value for value, _ in parts], "{" + ",".join(_quoted(plain) for _, plain in parts) + "}"

    return makes


def _quoted(plain: str | None) -> str:
    if plain is None:
        return "NULL"
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def bound(make: Make) -> Make:
    """The same values, given to a plain INSERT as they are, where the driver takes them."""

    def makes(rng: random.Random) -> Value:
        value, plain = make(rng)
        if isinstance(value, Decimal):
            return value, int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
        return value, plain if isinstance(value, bytes) else value

    return makes


def only(make: Make, is_taken: Callable[[Any], bool]) -> Make:
    """The same values, of which those are refused that the type can't mean, though SQLite would keep them."""

    def makes(rng: random.Random) -> Value:
        value, plain = make(rng)
        return value, plain if is_taken(value) else REFUSED

    return makes


def is_whole(value: Any) -> bool:
    try:
        return -(2**63) <= int(value) < 2**63
    except ValueError:
        return False


def is_number(value: Any) -> bool:
    try:
        Decimal(value)
    except ArithmeticError:
        return False
    return True


def a_digit(rng: random.Random) -> Value:
    number = rng.randint(-9, 9)
    return number, str(number)


def three_bytes(rng: random.Random) -> Value:
    value = rng.randbytes(3)
    return value, value
