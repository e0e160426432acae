"""The contract of targets: on the memory target, per-record functions, and `SqlTable` on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines import testing
from sync_pipelines.engine.targets import TargetDescription
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines.testing import MemoryTarget, TargetContract
from sync_pipelines_tests.children import run_child


class TestMemoryTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def _given(self) -> None:
        self.target = MemoryTarget(fails={self.REFUSED: ValueError("no")})

    def declared(self) -> Mapping[str, Any]:
        return {"target": self.target}

    def marking(self) -> Mapping[str, Any]:
        self.target.soft_delete = self.mark()
        return {"target": self.target}

    def mark(self) -> SoftDelete:
        return SoftDelete("live", deleted=False)

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.target.records


class TestMemoryTargetWithMoments(TestMemoryTarget):
    def mark(self) -> SoftDelete:
        return SoftDelete("gone_at")


class RecordFunctions:
    """What a user writes who has no table: functions over one record at a time."""

    def __init__(self, refused: str) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self._refused = refused

    def find_local(self, external_id: str) -> dict[str, Any] | None:
        return self.records.get(external_id)

    def create(self, item: dict[str, Any]) -> None:
        if item["sku"] == self._refused:
            raise ValueError("no")
        assert item["sku"] not in self.records
        self.records[item["sku"]] = dict(item)

    def update(self, item: dict[str, Any], local: dict[str, Any]) -> None:
        local.update(item)

    def delete(self, local: dict[str, Any]) -> None:
        del self.records[local["sku"]]

    def list_local(self) -> list[str]:
        return list(self.records)

    def has_changed(self, item: dict[str, Any], local: dict[str, Any]) -> bool:
        return any(local[name] != value for name, value in item.items())

    def fields(self) -> dict[str, Any]:
        names = ("find_local", "create", "update", "delete", "list_local", "has_changed")
        return {name: getattr(self, name) for name in names}


class TestRecordFunctions(TargetContract):
    @pytest.fixture(autouse=True)
    def _given(self) -> None:
        self.functions = RecordFunctions(self.REFUSED)

    def declared(self) -> Mapping[str, Any]:
        return self.functions.fields()

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.functions.records


class TestAsyncRecordFunctions(TestRecordFunctions):
    """The same with every function `async`."""

    def declared(self) -> Mapping[str, Any]:
        return {name: _made_async(function) for name, function in self.functions.fields().items()}


def _made_async(function: Any) -> Any:
    async def asynchronous(*args: Any) -> Any:
        return function(*args)

    return asynchronous


class TestSmallestTarget(TargetContract):
    """An object with `find_local`, `create` and `update`, and `has_changed`, used as it is."""

    can_delete = False

    @pytest.fixture(autouse=True)
    def _given(self) -> None:
        self.functions = RecordFunctions(self.REFUSED)
        self.target = type("Shelf", (), {})()
        for name in ("find_local", "create", "update", "has_changed"):
            setattr(self.target, name, getattr(self.functions, name))

    def declared(self) -> Mapping[str, Any]:
        return {"target": self.target}

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.functions.records


class _SqlTableContract(TargetContract):
    database: sa.Engine

    def _make(self, database: sa.Engine) -> None:
        self.database = database
        self.table = sa.Table(
            "variants",
            sa.MetaData(),
            sa.Column("sku", sa.Text, sa.CheckConstraint("sku <> 'REFUSED'"), primary_key=True),
            sa.Column("name", sa.Text),
            sa.Column("quantity", sa.Integer),
            sa.Column("price", sa.Numeric(14, 2)),
            sa.Column("active", sa.Boolean),
            sa.Column("changed_at", sa.DateTime(timezone=True)),
            sa.Column("gone_at", sa.DateTime(timezone=True)),
        )
        self.table.create(database)

    def declared(self, **fields: Any) -> Mapping[str, Any]:
        columns = ["sku", "name", "quantity", "price", "active", "changed_at"]
        return {"target": SqlTable(table="variants", key="sku", columns=columns, database=self.database, **fields)}

    def marking(self) -> Mapping[str, Any]:
        return self.declared(soft_delete=SoftDelete("gone_at"))

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        with SqlTable(table=self.table, key="sku", database=self.database).open(str) as target:
            return target.find_many(list(target.list_local()))


class TestSqlTableOnSqlite(_SqlTableContract):
    @pytest.fixture(autouse=True)
    def _given(self, sqlite: sa.Engine) -> None:
        self._make(sqlite)


class TestSqlTableOnPostgres(_SqlTableContract):
    @pytest.fixture(autouse=True)
    def _given(self, postgres: sa.Engine) -> None:
        self._make(postgres)


class TestAContractThatIsBroken:
    """The contract can fail: a target that forgets what it wrote does not pass."""

    def test_a_target_that_writes_nothing_breaks_it(self, tmp_path: Any) -> None:
        class Forgetful(MemoryTarget):
            def _write(self, method: str, pairs: Any) -> None:
                pass

        class Broken(TargetContract):
            target = Forgetful()

            def declared(self) -> Mapping[str, Any]:
                return {"target": self.target}

            def records(self) -> Mapping[str, Mapping[str, Any]]:
                return self.target.records

        tests = [name for name in dir(TargetContract) if name.startswith("test_")]
        assert len(tests) > 15
        with pytest.raises(AssertionError, match=r"created.*fetched|assert \["):
            Broken().test_new_items_are_created_and_a_second_run_changes_nothing(tmp_path)


def test_the_memory_target_describes_itself() -> None:
    assert MemoryTarget({"A": {"stock": 3}}).describe() == TargetDescription("memory", (("stock", "int"),), 1)


def test_the_room_needs_no_pytest_and_the_fakes_no_database() -> None:
    code = (
        "import sys; from sync_pipelines.testing import MemoryTarget, MemorySource\n"
        "print([name for name in ('pytest', 'sqlalchemy', 'dagster') if name in sys.modules])\n"
        "from sync_pipelines.testing import TargetContract; print('pytest' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath}
    ran = run_child([sys.executable, "-c", code], env=environment, check=True)
    assert ran.stdout.splitlines() == ["[]", "False"]


def test_every_name_of_the_room_is_there() -> None:
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'MemoryTraget'"):
        testing.MemoryTraget  # noqa: B018 - the access is the test
