"""What a wrong `SqlTable` says when it is declared, without any database."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import sqlalchemy as sa

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.targets.sql_table import SqlTable
from sync_pipelines.targets.table.soft_delete import SoftDelete
from sync_pipelines_tests.children import run_child


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"table": ""}, "table=''"),
        ({"table": "a.b.c"}, "table='a.b.c'"),
        ({"table": 5}, "table=5"),
        ({"key": ""}, "key=''"),
        ({"key": 5}, "key=5"),
        ({"key": []}, r"key=\[\]"),
        ({"key": ["a", "a"]}, r"key=\['a', 'a'\]"),
        ({"key": ["a", 1]}, r"key=\['a', 1\]"),
        ({"key": None}, "key=None"),
        ({"columns": 5}, "columns=5"),
        ({"columns": "stock"}, "columns='stock'"),
        ({"columns": {}}, "columns is empty"),
        ({"columns": []}, "columns is empty"),
        ({"columns": ["a", "a"]}, "twice"),
        ({"columns": {"stock": 5}}, "columns=.*'stock': 5"),
        ({"columns": {5: "stock"}}, "columns=.*5: 'stock'"),
        ({"columns": [None]}, r"columns=\[None\]"),
        ({"compare": ["price"]}, "compare names 'price'.*written are: stock, note"),
        ({"compare": 7}, "compare=7"),
        ({"create_only": ["price"]}, "create_only names 'price'"),
        ({"create_only": ["sku"]}, "create_only names the key column 'sku'"),
        ({"compare": ["sku"]}, "compare names the key column 'sku'"),
        ({"compare": ["note"], "create_only": ["note"]}, "'note'.*both"),
        ({"soft_delete": "active"}, "soft_delete='active'.*give SoftDelete"),
        ({"soft_delete": SoftDelete("sku", deleted=1)}, "key names 'sku', which soft_delete has"),
        ({"soft_delete": SoftDelete("note")}, "columns names 'note', which soft_delete has"),
        ({"soft_delete": SoftDelete("gone"), "compare": ["gone"]}, "compare names 'gone', which soft_delete has"),
        ({"soft_delete": SoftDelete("gone"), "create_only": ["gone"]}, "create_only names 'gone', which soft_delete"),
        ({"soft_delete": SoftDelete("gone"), "scope": {"gone": None}}, "scope names 'gone', which soft_delete has"),
        ({"scope": ["a"]}, r"scope=\['a'\]"),
        ({"scope": {5: "a"}}, "scope={5: 'a'}"),
        ({"scope": {"shop": []}}, r"scope: 'shop': \[\] is not understood"),
        ({"scope": {"shop": {1, 2}}}, "scope: 'shop': {1, 2} is not understood"),
        ({"database": 5}, "database is a int"),
        ({"database": "no url"}, "database URL can't be read.*It is that of SYNC_PIPELINES_DATABASE_URL"),
    ],
)
def test_a_wrong_declaration_names_field_and_value(fields: dict[str, Any], message: str) -> None:
    given = {"table": "variants", "key": "sku", "columns": ["stock", "note"]} | fields
    with pytest.raises(ConfigurationError, match=message):
        SqlTable(**given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"column": ""}, "column=''"),
        ({"column": 5}, "column=5"),
        ({"column": "gone_at", "deleted": None}, "deleted=None would take rows without a value for deleted"),
        ({"column": "gone_at", "live": False}, "live=False is taken for deleted"),
    ],
)
def test_a_wrong_soft_delete_names_field_and_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SoftDelete: {message}"):
        SoftDelete(**fields)


@pytest.mark.parametrize(
    ("soft_delete", "deletes", "message"),
    [
        (None, "soft", r"deletes: 'soft' needs a target that marks records, as SqlTable\(soft_delete=...\) does"),
        (SoftDelete("gone_at"), "hard", "deletes: is 'hard', but the target marks records; write 'soft'"),
    ],
)
def test_the_deletes_of_a_job_fit_its_table(soft_delete: SoftDelete | None, deletes: Any, message: str) -> None:
    target = SqlTable(table="variants", key="sku", soft_delete=soft_delete)
    with pytest.raises(ConfigurationError, match=message):
        SyncJob(name="pim", fetch_external=list, target=target, deletes=deletes)


def test_a_plan_for_another_mark_or_scope_is_another_target() -> None:
    marks = [None, SoftDelete("gone_at"), SoftDelete("state", deleted="a"), SoftDelete("state", deleted="b")]
    scopes = [None, {"shop": 1}, {"shop": [1]}, {"shop": 2}]
    told = [
        repr(SqlTable(table="variants", key="sku", soft_delete=mark, scope=scope).identity())
        for mark in marks
        for scope in scopes
    ]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@host:port/db", "postgresql://me@host:s3cret/db", "s3cret"])
def test_a_url_that_cannot_be_read_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SqlTable(table="variants", key="sku", database=url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_forms_of_a_declaration_that_are_right() -> None:
    declared = sa.Table("variants", sa.MetaData(), sa.Column("sku", sa.Text))
    for fields in (
        {"table": "shop.variants"},
        {"table": declared},
        {"key": ("sku", "place")},
        {"columns": {"stock": "quantity", "note": str}},
        {"columns": lambda item: item},
        {"columns": ("stock",), "compare": "stock"},
        {"create_only": {"stock"}},
        {"database": "postgresql://me@host/db"},
        {"database": sa.URL.create("sqlite")},
    ):
        SqlTable(**{"table": "variants", "key": "sku"} | fields)


def test_declaring_reads_no_environment_and_connects_to_nothing() -> None:
    script = (
        "from sync_pipelines.targets.sql_table import SqlTable; "
        "SqlTable(table='t', key='k', database='postgresql://nobody@nowhere.invalid/x'); SqlTable(table='t', key='k')"
    )
    run_child([sys.executable, "-c", script], env={}, check=True)


def test_a_declaration_is_frozen_and_keeps_its_own_columns() -> None:
    columns = {"stock": "quantity"}
    table = SqlTable(table="variants", key="sku", columns=columns)
    columns["price"] = "price"
    with pytest.raises(AttributeError):
        table.table = "other"  # type: ignore[misc]  # the point of the test
    assert table._mapping.names == ("stock",)


def test_what_a_table_is_known_by_holds_no_password_and_changes_with_what_is_written() -> None:
    """A plan that was made for one is not applied to another."""

    def identity(**fields: Any) -> str:
        given = {"table": "variants", "key": "sku", "database": "postgresql://me:hunter2@db/shop", **fields}
        return repr(SqlTable(**given).identity())

    assert "hunter2" not in identity()
    assert identity() == identity(database="postgresql://you:other@db/shop")
    other: list[dict[str, Any]] = [
        {"table": "others"},
        {"key": "id"},
        {"database": "postgresql://me:hunter2@db/test"},
        {"columns": ["stock"]},
        {"columns": {"stock": "quantity"}},
        {"columns": lambda item: item},
        {"columns": ["stock"], "compare": ["stock"]},
        {"columns": ["stock"], "create_only": ["stock"]},
    ]
    assert len({identity(), *(identity(**fields) for fields in other)}) == len(other) + 1
