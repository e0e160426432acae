"""The limit on PostgreSQL: what a script written by hand for this one table reaches with psycopg 3 and COPY.

COPY is in its binary form, which took a sixth less time than text (100,000 items, making them included, two tries),
whether psycopg wrote the text or the script did.
One transaction, nothing durable between the steps, no error of a single item. Every variant gives the right end state
whatever the table held before; the best one of a scenario is the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks.task import Report, Run, Task
from benchmarks.work import COLUMNS, FIELDS, Work

Connection = psycopg.Connection[Any]

RANGE_ROWS = 50_000
WITH_DELETE_IN_MERGE = 17_00_00
_NAMES = ", ".join(COLUMNS)
_STAGED = ", ".join(f"s.{name}" for name in COLUMNS)
_SET = ", ".join(f"{name} = s.{name}" for name in FIELDS)
_DIFFERS = (
    f"({', '.join(f'v.{name}' for name in FIELDS)}) IS DISTINCT FROM ({', '.join(f's.{name}' for name in FIELDS)})"
)
_TYPES = ("text", "text", "int4", "numeric", "timestamptz", "text", "text", "text", "text")
_STAGE = f"""
    CREATE TEMP TABLE stage ({", ".join(f"{name} {kind}" for name, kind in zip(COLUMNS, _TYPES, strict=True))})
    ON COMMIT DROP
"""


def prepare(task: Task) -> Run:
    """Connects."""
    connection = psycopg.connect(task.url)
    # what a script's author sets for one session; the server's own defaults are small
    connection.execute("SET work_mem = '64MB'")
    connection.execute("SET temp_buffers = '64MB'")
    connection.commit()

    def run() -> Report:
        with connection.transaction():
            VARIANTS[task.variant](connection, task.work)
        return Report()

    return run


def straight(connection: Connection, work: Work) -> None:
    """COPY into the table itself if it is empty, and nobody can change that until the end."""
    connection.execute("LOCK TABLE variants IN SHARE ROW EXCLUSIVE MODE")
    if connection.execute("SELECT EXISTS (SELECT FROM variants)").fetchone() == (False,):
        _copy(connection, work, "variants")
    else:
        merge(connection, work)


def merge(connection: Connection, work: Work) -> None:
    """COPY into a stage, then one MERGE; the server's version decides whether it can delete as well."""
    _stage(connection, work)
    in_merge = work.deletes and connection.info.server_version >= WITH_DELETE_IN_MERGE
    connection.execute(
        f"MERGE INTO variants v USING stage s ON v.sku = s.sku WHEN MATCHED AND {_DIFFERS} THEN UPDATE SET {_SET} "
        f"WHEN NOT MATCHED THEN INSERT ({_NAMES}) VALUES ({_STAGED}) "
        + ("WHEN NOT MATCHED BY SOURCE THEN DELETE" if in_merge else "")
    )
    if work.deletes and not in_merge:
        _delete_gone(connection)


def on_conflict(connection: Connection, work: Work) -> None:
    """COPY into a stage, then one INSERT ... ON CONFLICT DO UPDATE."""
    _stage(connection, work)
    excluded = ", ".join(f"{name} = excluded.{name}" for name in FIELDS)
    differs = _DIFFERS.replace("s.", "excluded.")
    connection.execute(
        f"INSERT INTO variants AS v ({_NAMES}) SELECT {_NAMES} FROM stage "
        f"ON CONFLICT (sku) DO UPDATE SET {excluded} WHERE {differs}"
    )
    if work.deletes:
        _delete_gone(connection)


def ordered(connection: Connection, work: Work) -> None:
    """COPY into a stage, insert what is missing in the order of the key, then update what differs."""
    _stage(connection, work)
    inserted = connection.execute(
        f"INSERT INTO variants ({_NAMES}) SELECT {_STAGED} FROM stage s "
        "WHERE NOT EXISTS (SELECT FROM variants v WHERE v.sku = s.sku) ORDER BY s.sku"
    ).rowcount
    if inserted < work.size:
        connection.execute(f"UPDATE variants v SET {_SET} FROM stage s WHERE v.sku = s.sku AND {_DIFFERS}")
    if work.deletes:
        _delete_gone(connection)


def plan(connection: Connection, work: Work) -> None:
    """COPY into a stage, one join into a plan, then UPDATE, INSERT and DELETE."""
    _plan(connection, work)
    connection.execute(f"UPDATE variants v SET {_SET} FROM plan s WHERE v.id = s.id")
    _insert_planned(connection, work)


def ranges(connection: Connection, work: Work) -> None:
    """The same with the UPDATE in ranges of the plan."""
    planned = _plan(connection, work)
    connection.execute("CREATE INDEX ON plan (line)")
    for first in range(0, planned, RANGE_ROWS):
        connection.execute(
            f"UPDATE variants v SET {_SET} FROM plan s WHERE v.id = s.id AND s.line > %s AND s.line <= %s",
            (first, first + RANGE_ROWS),
        )
    _insert_planned(connection, work)


def compare(connection: Connection, work: Work) -> None:
    """Read the whole table, compare here, and COPY only what differs; memory grows with the table."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute(f"SELECT {_NAMES} FROM variants")
        local: dict[str, tuple[Any, ...]] = {row[0]: row for row in cursor}
    gone = set(local)
    connection.execute(_STAGE)
    with connection.cursor().copy(_copy_into("stage")) as copy:
        copy.set_types(_TYPES)
        for page in work.pages():
            for item in page:
                row = tuple(item.values())
                if local.get(row[0]) != row:
                    copy.write_row(row)
                gone.discard(row[0])
    connection.execute("ANALYZE stage (sku)")
    connection.execute(
        f"MERGE INTO variants v USING stage s ON v.sku = s.sku WHEN MATCHED THEN UPDATE SET {_SET} "
        f"WHEN NOT MATCHED THEN INSERT ({_NAMES}) VALUES ({_STAGED})"
    )
    if work.deletes:
        connection.execute("DELETE FROM variants WHERE sku = ANY(%s)", (list(gone),))


VARIANTS: dict[str, Callable[[Connection, Work], None]] = {
    each.__name__: each for each in (straight, merge, on_conflict, ordered, plan, ranges, compare)
}


def _stage(connection: Connection, work: Work) -> None:
    connection.execute(_STAGE)
    _copy(connection, work, "stage")
    connection.execute("ANALYZE stage (sku)")


def _copy(connection: Connection, work: Work, table: str) -> None:
    with connection.cursor().copy(_copy_into(table)) as copy:
        copy.set_types(_TYPES)
        write_row = copy.write_row
        for page in work.pages():
            for item in page:
                write_row(tuple(item.values()))


def _copy_into(table: str) -> str:
    return f"COPY {table} ({_NAMES}) FROM STDIN (FORMAT binary)"


def _plan(connection: Connection, work: Work) -> int:
    _stage(connection, work)
    planned = connection.execute(
        f"CREATE TEMP TABLE plan ON COMMIT DROP AS SELECT row_number() OVER () AS line, v.id, {_STAGED} "
        f"FROM stage s LEFT JOIN variants v ON v.sku = s.sku WHERE v.id IS NULL OR {_DIFFERS}"
    ).rowcount
    connection.execute("ANALYZE plan (id)")
    return planned


def _insert_planned(connection: Connection, work: Work) -> None:
    connection.execute(f"INSERT INTO variants ({_NAMES}) SELECT {_NAMES} FROM plan WHERE id IS NULL")
    if work.deletes:
        _delete_gone(connection)


def _delete_gone(connection: Connection) -> None:
    connection.execute("DELETE FROM variants v WHERE NOT EXISTS (SELECT FROM stage s WHERE s.sku = v.sku)")
