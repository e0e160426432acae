"""The contract of targets, held by `SqlTable` on the bulk path."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sync_pipelines_tests.targets.staging.conftest import Paths
from sync_pipelines_tests.testing import test_contract as contract


class _InBulk:
    @pytest.fixture(autouse=True)
    def _bulk(self, paths: Paths) -> Iterator[None]:
        """Whatever a test of the contract runs, it runs in bulk."""
        yield
        assert set(paths.answers) <= {None, "there are no items"}


class TestSqliteInBulk(_InBulk, contract.TestSqlTableOnSqlite):
    """On SQLite."""


class TestPostgresInBulk(_InBulk, contract.TestSqlTableOnPostgres):
    """On PostgreSQL."""
