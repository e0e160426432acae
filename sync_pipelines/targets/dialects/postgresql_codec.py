"""What of PostgreSQL's types only the server can say: which texts `citext` finds equal, how it writes money."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from sync_pipelines.database.faults import first_line
from sync_pipelines.engine.pages import batches
from sync_pipelines.targets.db_errors import asking_about_a_value
from sync_pipelines.targets.types import values
from sync_pipelines.targets.types.codec import ColumnCodec, Facts
from sync_pipelines.targets.types.sqlalchemy_types import Money, NamedType

_ASKED_AT_ONCE = 1_000
_FOLDED_KEPT = 100_000
RANGES_OF_NUMERIC = frozenset({"numrange", "nummultirange"})
_FRACTION = re.compile(r"\.[0-9]+")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?", re.ASCII)
_SIZED = re.compile(r"\(([^)]*)\)")


def _timestamp(precision: int | None = None, *, timezone: bool = False) -> TypeEngine[Any]:
    return postgresql.TIMESTAMP(timezone, precision)


def _time(precision: int | None = None, *, timezone: bool = False) -> TypeEngine[Any]:
    return postgresql.TIME(timezone, precision)


_KINDS: dict[str, Callable[..., TypeEngine[Any]]] = {
    "smallint": sa.SmallInteger,
    "integer": sa.Integer,
    "bigint": sa.BigInteger,
    "numeric": sa.Numeric,
    "real": sa.REAL,
    "double precision": sa.Double,
    "text": sa.Text,
    "character": sa.CHAR,
    "character varying": sa.String,
    "citext": postgresql.CITEXT,
    "boolean": sa.Boolean,
    "date": sa.Date,
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": partial(_timestamp, timezone=True),
    "time without time zone": _time,
    "time with time zone": partial(_time, timezone=True),
    "interval": lambda precision=None: postgresql.INTERVAL(precision=precision),
    "bytea": sa.LargeBinary,
    "json": postgresql.JSON,
    "jsonb": postgresql.JSONB,
    "uuid": sa.Uuid,
}


def ask_database(database: sa.Engine, statement: sa.Executable, given: Mapping[str, Any]) -> Any:
    """Lets the database convert something; what it refuses is a `ValueError`.

    Raises:
        TargetStateError: The database does not answer, which is not the value's fault.
    """
    try:
        with asking_about_a_value(database), database.connect() as connection:
            return connection.execute(statement, given).scalar_one()
    except DBAPIError as error:
        raise ValueError(first_line(error)) from error


def kind_of_base(type_name: str) -> TypeEngine[Any]:
    """Gives SQLAlchemy's type for the one below a domain, whose size its reflection loses.

    Args:
        type_name: As the database writes it, e.g. `numeric(4,1)`, `timestamp(0) without time zone` or `text[]`.
    """
    bare = type_name.removesuffix("[]")
    found = _SIZED.search(bare)
    kind = _KINDS[_SIZED.sub("", bare)](*(map(int, found[1].split(",")) if found else ()))
    return sa.ARRAY(kind) if bare != type_name else kind


def fold_range(text: str) -> str:
    """Gives the text that stands for all ranges of numbers that are equal: `[1.0,2]` is `[1,2]`."""
    return _FRACTION.sub(lambda found: found[0].rstrip("0").rstrip("."), text)


class CitextFolding:
    """Folds texts as `citext` does before it compares them: with the server's `lower`, in the database's locale.

    Nothing is asked before it is needed, and of plain ASCII once only.
    """

    def __init__(self, database: sa.Engine) -> None:
        self._database = database
        self._folded: dict[str, str] = {}

    def fold(self, text: str) -> str:
        """Gives the text that stands for all that are equal to this one."""
        if text.isascii() and self._ascii is not None:
            return text.translate(self._ascii)
        if text not in self._folded:
            self._ask([text])
        return self._folded[text]

    def expect(self, texts: Iterable[str]) -> None:
        """Asks for all texts together that are about to be folded, as far as they have to be asked for."""
        unknown = (text for text in dict.fromkeys(texts) if text not in self._folded)
        for batch in batches((text for text in unknown if not (text.isascii() and self._ascii)), _ASKED_AT_ONCE):
            self._ask(batch)

    @cached_property
    def _ascii(self) -> dict[int, str] | None:
        """The small letters of ASCII; None where a capital's small letter is none of ASCII, as in Turkish."""
        capitals = string.ascii_uppercase
        lower = self._lowered([capitals])[0]
        if not lower.isascii() or len(lower) != len(capitals):
            return None
        return {ord(capital): small for capital, small in zip(capitals, lower, strict=True)}

    def _ask(self, texts: list[str]) -> None:
        if len(self._folded) > _FOLDED_KEPT:
            self._folded = {}
        self._folded.update(zip(texts, self._lowered(texts), strict=True))

    def _lowered(self, texts: list[str]) -> list[str]:
        given = sa.func.unnest(sa.bindparam("texts", texts, type_=postgresql.ARRAY(sa.Text())))
        each = given.table_valued("text", with_ordinality="place").render_derived()
        lower = sa.func.lower(sa.collate(each.c.text, "default"), type_=sa.Text())
        query = sa.select(sa.func.array_agg(postgresql.aggregate_order_by(lower, each.c.place)))
        return list(ask_database(self._database, query, {}))


def build_money_codec(database: sa.Engine, name: str, type_name: str) -> ColumnCodec:
    """Builds the codec of a column of money, whose digits after the point are the database's (`lc_monetary`).

    Numbers go in and out as numbers; only a text that is none, such as `$1,000.50`, is read as the database reads it.
    """
    one = sa.cast(sa.cast(sa.literal_column("1"), NamedType("money")), sa.Numeric())
    scale = ask_database(database, sa.select(sa.func.scale(one)), {})
    text = sa.bindparam("text", type_=sa.Text())
    read = sa.select(sa.cast(sa.cast(sa.cast(text, sa.Text()), NamedType("money")), sa.Numeric()))

    def convert(value: Any) -> Any:
        if isinstance(value, str) and not _PLAIN_NUMBER.fullmatch(value.strip()):
            value = ask_database(database, read, {"text": value})
        return values.to_scaled_decimal(value, scale)

    return ColumnCodec(name=name, type_name=type_name, storage=Money(), convert=convert, facts=Facts("money"))
