"""Empty PostgreSQL databases for one test after the other: emptying one costs a sixth of making and dropping one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

_EMPTY = """
DO $$
DECLARE named text;
BEGIN
  PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  FOR named IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE 'DROP SCHEMA ' || quote_ident(named) || ' CASCADE';
  END LOOP;
  CREATE SCHEMA public AUTHORIZATION pg_database_owner;
  GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""

_FIRST_OWN_OID = 16384
_OUTSIDE_SCHEMAS = (
    "am cast collation default_acl event_trigger extension foreign_data_wrapper foreign_server language "
    "largeobject_metadata operator proc publication type"
)
_LEFTOVERS = " UNION ALL ".join(
    f"SELECT '{catalogue}'::text FROM pg_{catalogue} WHERE oid >= {_FIRST_OWN_OID}"
    for catalogue in _OUTSIDE_SCHEMAS.split()
)
_LEFTOVERS += """
UNION ALL SELECT 'setting' FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
  WHERE datname = current_database()
UNION ALL SELECT 'right' FROM pg_database WHERE datname = current_database()
  AND (datacl IS NOT NULL OR NOT datallowconn OR datconnlimit <> -1)
UNION ALL SELECT 'transaction' FROM pg_prepared_xacts WHERE database = current_database()
"""


class EmptyDatabases:
    """Lends databases of a server, each to one test at a time; what can't be emptied is dropped.

    Args:
        admin: Connects to the server, to another database, and commits each statement by itself.
    """

    def __init__(self, admin: sa.Engine) -> None:
        self._admin = admin
        self._free: list[str] = []

    @contextmanager
    def one(self) -> Iterator[str]:
        """Yields the URL of an empty database, as a user writes it: `postgresql://...`."""
        name = self._free.pop() if self._free else self._make()
        url = self._admin.url.set(drivername="postgresql", database=name)
        yield url.render_as_string(hide_password=False)
        if self._is_empty_again(name):
            self._free.append(name)
        else:
            self._drop(name)

    def close(self) -> None:
        """Drops what is there."""
        while self._free:
            self._drop(self._free.pop())

    def _make(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY = FILE_COPY")
        return name

    def _drop(self, name: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")

    def _is_empty_again(self, name: str) -> bool:
        database = sa.create_engine(self._admin.url.set(database=name), poolclass=sa.NullPool)
        try:
            with database.begin() as connection:
                connection.exec_driver_sql(_EMPTY)
                return not connection.exec_driver_sql(_LEFTOVERS).all()
        except sa.exc.DBAPIError:
            return False
