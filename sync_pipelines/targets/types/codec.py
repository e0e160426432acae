"""One codec per column: what an item's value becomes in the database, and how the database's value is compared to it.

Promise 1 ("the second run changes nothing") lives here: both sides go through the same conversion into one canonical
Python value; that value is what is written, and what is compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Context, Decimal
from typing import Any

from sqlalchemy.types import TypeEngine

from sync_pipelines.engine.external_ids import checked_external_id, id_number
from sync_pipelines.errors import ItemError
from sync_pipelines.targets.types.unwrap import plain, shortened
from sync_pipelines.targets.types.values import decimal_text, to_text

Convert = Callable[[Any], Any]
IdPart = str | int | bool
# What conversions raise for a value that does not convert.
_UNCONVERTIBLE = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError)
_WIDE = Context(prec=150_000)
_NAN = "NaN"
"""What stands for a number of the database that is none: unlike NULL, and unlike itself in Python."""
# An id that was a number once and became text, in a ledger or in `get_external_id`; three zeros may be a thousand.
_WHOLE_ID = re.compile(r"([+-]?[0-9]+)\.00?", re.ASCII)


def _equal(old: Any, new: Any) -> bool:
    return bool(old == new)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a column's type, for who converts whole columns of values at once.

    Args:
        family: `text`, `int`, `float`, `numeric`, `bool`, `datetime`, `date`, `uuid`, `json`, `enum`, `asked`, `plain`
            (values are converted one by one), or `own` for a type of the application's own.
        length: Characters that fit, None for any number.
        digits: Digits of a decimal in all, None for any number.
        scale: Digits of a decimal after the point, None for any number.
        aware: True if moments have a time zone.
        padded: True if blanks at the end mean nothing.
        labels: The texts that are allowed, empty for any.
    """

    family: str = "plain"
    length: int | None = None
    digits: int | None = None
    scale: int | None = None
    aware: bool = False
    padded: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnCodec:
    """How values of one column are converted, stored and compared.

    Args:
        type_name: The column's type as the database writes it, for people.
        storage: The SQLAlchemy type that carries canonical values to and from the driver.
        convert: Value that is not None -> canonical value; raises for one that does not convert.
        unwrap: Takes wrappings off an item's value before `convert`; gives None for a missing one.
        restore: The same as `convert` for a value that the database gave.
        equal: True if two canonical values, neither of which is None, are the same.
        fold: Canonical text -> the text that identifies a record, where the key ignores case or blanks.
        expect: Called with texts that are about to be folded, where it saves time to know them all.
        key_forms: Canonical key value -> all values that are the same external id, if there are several.
        int_bits: Size of a whole number, None for other types.
        base_type: The type as the database writes it, of a domain the one below; None for that of `type_name`.
        facts: What is known of the type.
    """

    name: str
    type_name: str
    storage: TypeEngine[Any]
    convert: Convert
    unwrap: Convert = plain
    restore: Convert | None = None
    equal: Callable[[Any, Any], bool] = field(default=_equal)
    fold: Callable[[str], str] | None = None
    expect: Callable[[Sequence[str]], object] | None = None
    key_forms: Callable[[Any], Sequence[Any]] | None = None
    int_bits: int | None = None
    base_type: str | None = None
    facts: Facts = field(default_factory=Facts)

    @property
    def stored_type(self) -> str:
        """The type that the values have: of a domain the one below, which has no conditions of its own."""
        return self.base_type or self.type_name

    def from_item(self, value: Any) -> Any:
        """Gives the canonical value of what an item holds; None for None, NaN, NaT and NA.

        Raises:
            ItemError: The value does not convert; the message names column, value and type.
        """
        try:
            bare = self.unwrap(value)
            return None if bare is None else self.convert(bare)
        except _UNCONVERTIBLE as error:
            raise ItemError(
                f"column {self.name!r}: {shortened(value)} does not convert to {self.type_name}: {str(error)[:160]}"
            ) from error

    def from_database(self, value: Any) -> Any:
        """Gives the canonical value of what the database holds.

        What is no value of the type for Python, such as `infinity` for a date, stays as it is: it equals no item's
        value, and so is overwritten.
        """
        return self._restored(value)[0]

    def key_from_database(self, value: Any) -> Any:
        """Gives the canonical value of what a key column holds; None for what no external id stands for."""
        restored, is_readable = self._restored(value)
        return restored if is_readable else None

    def _restored(self, value: Any) -> tuple[Any, bool]:
        """Gives the canonical value, and whether it is one."""
        if value is None:
            return None, True
        try:
            restored = (self.restore or self.convert)(value)
        except _UNCONVERTIBLE:
            return value, False
        return (_NAN, False) if restored is None else (restored, True)

    def same(self, old: Any, new: Any) -> bool:
        """True if writing the canonical value `new` over `old` would change nothing."""
        if old is None or new is None:
            return old is new
        return self.equal(old, new)

    def key_from_id(self, part: Any) -> Any:
        """Gives the canonical key value of an external id or one part of it.

        Raises:
            ItemError: It does not convert, is empty, or is a number that the column can't hold.
        """
        written = _WHOLE_ID.fullmatch(part) if self.facts.family == "int" and isinstance(part, str) else None
        value = self.from_item(written.group(1) if written else part)
        if value is None or self._folded(value, part) == "":
            raise ItemError(f"column {self.name!r}: the external id {shortened(part)} is empty")
        if self.int_bits and not -(2 ** (self.int_bits - 1)) <= value < 2 ** (self.int_bits - 1):
            raise ItemError(
                f"column {self.name!r}: the external id {shortened(part)} is out of range of {self.type_name}"
            )
        return value

    def key_from_item(self, value: Any, own: Any) -> Any:
        """Gives the canonical value of what an item holds for a key column, which is written as its id is.

        Args:
            own: The canonical key value of the item's external id: the value of whatever makes that id.

        Raises:
            ItemError: It does not convert.
        """
        try:
            kept = self.from_item(id_number(value))
        except ItemError:
            if self._makes_id(value, own):
                return own
            raise
        if type(kept) is not type(own):  # a column that has no type of its own keeps the value's
            return kept
        return own if kept != own and self._makes_id(value, own) else kept

    def _makes_id(self, value: Any, own: Any) -> bool:
        with suppress(ItemError):
            return bool(self.key_from_id(checked_external_id(value)) == own)
        return False

    def expect_ids(self, parts: Sequence[Any]) -> None:
        """Takes note of external ids, or parts of such, that are about to be converted."""
        if self.expect is None:
            return
        texts = []
        for part in parts:
            with suppress(ItemError):
                texts.append(self.from_item(part))
        self.expect([text for text in texts if isinstance(text, str)])

    def _folded(self, value: Any, part: Any) -> Any:
        if self.fold is None or not isinstance(value, str):
            return value
        try:
            return self.fold(value)
        except ValueError as error:
            raise ItemError(
                f"column {self.name!r}: {shortened(part)} does not convert to {self.type_name}: {error}"
            ) from error

    def id_part(self, value: Any) -> IdPart:
        """Gives the part of an external id that stands for a canonical key value."""
        bare = plain(value)
        if isinstance(bare, Decimal) and bare.is_finite():
            return decimal_text(bare.normalize(_WIDE)) if bare else "0"
        part = bare.isoformat() if isinstance(bare, date | time) else id_part(bare)
        return self.fold(part) if self.fold and isinstance(part, str) else part


def id_part(value: Any) -> IdPart:
    """Gives what stands for a plain value in an external id: whole numbers and booleans themselves, else text."""
    value = id_number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, int):
        return value
    return str(value) if isinstance(value, timedelta) else to_text(value)


def id_of(parts: Sequence[IdPart]) -> str:
    """Gives the external id of its parts: the text of a single one, of several their JSON array."""
    if len(parts) > 1:
        return json.dumps(parts, ensure_ascii=False)
    part = parts[0]
    return str(part).lower() if isinstance(part, bool) else str(part)
