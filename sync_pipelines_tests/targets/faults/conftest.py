"""A role of PostgreSQL that may do what a sync needs, and no more; settings in a folder of the test; no waits."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import stamina

from sync_pipelines.settings.model import Settings
from sync_pipelines_tests.targets.faults.shop import TABLE, Execute


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that keep everything in a folder of the test."""
    return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)


@pytest.fixture
def execute(postgres: sa.Engine, postgres_admin: sa.Engine) -> Execute:
    """Carries out statements: in the database, or on the server."""

    def carry_out(*statements: str, server: bool = False) -> None:
        with (postgres_admin if server else postgres).connect() as connection:
            for each in statements:
                connection.exec_driver_sql(each)
            if not server:
                connection.commit()

    return carry_out


@pytest.fixture
def role(postgres: sa.Engine, execute: Execute) -> Iterator[str]:
    """A role that may do all that a sync needs."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    execute(f"CREATE ROLE {name} LOGIN", server=True)
    execute(
        TABLE, f"GRANT ALL ON things TO {name}", f"GRANT CREATE, TEMP ON DATABASE {postgres.url.database} TO {name}"
    )
    yield name
    execute(f"DROP OWNED BY {name} CASCADE")
    execute(f"DROP ROLE {name}", server=True)


@pytest.fixture
def url(postgres: sa.Engine, role: str) -> str:
    """The URL of the database, for that role."""
    return postgres.url.set(username=role).render_as_string(hide_password=False)
