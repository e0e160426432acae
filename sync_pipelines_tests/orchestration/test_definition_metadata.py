"""What Dagster shows of an asset before its first run, and under which tags its runs and steps go."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from dagster import (
    AnchorBasedFilePathMapping,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Definitions,
    FreshnessPolicy,
    TableColumnDep,
    asset,
    link_code_references_to_git,
)

from sync_pipelines import ConfigurationError, RestSource, SqlTable, SyncJob, Tryton, csv_file, sync_intervals
from sync_pipelines.orchestration.build import build_definitions, sync_definitions
from sync_pipelines.settings import model
from sync_pipelines_tests.orchestration.shop import Shop

PRODUCTS = AssetKey(["shop", "products"])


def job(**options: Any) -> SyncJob[Any, Any]:
    """A sync of a REST source into a table; the declaration connects to nothing."""
    given: dict[str, Any] = {
        "name": "erp-products",
        "fetch_external": RestSource("https://erp.example/products"),
        "target": SqlTable(table="products", key="sku", columns=["sku"], database="postgresql://db.example/shop"),
        "asset_key": "shop/products",
        "source_asset": "erp/products",
    }
    return SyncJob(**{**given, **options})


def spec_of(sync_job: SyncJob[Any, Any], *others: SyncJob[Any, Any]) -> AssetSpec:
    """The asset of a sync as Dagster has it."""
    definitions = build_definitions([sync_job, *others])
    assets = [each for each in definitions.assets or () if isinstance(each, AssetsDefinition)]
    return next(spec for each in assets for spec in each.specs if spec.metadata.get("sync job") == sync_job.name)


def shown(sync_job: SyncJob[Any, Any], name: str) -> Any:
    value = spec_of(sync_job).metadata[f"dagster/{name}"]
    return getattr(value, "value", value)


@pytest.mark.parametrize(
    ("url", "table", "name", "uri"),
    [
        ("postgresql://ann:hunter2@db.example:5432/shop?options=-cx", "public.products", "shop.public.products",
         "postgresql://db.example:5432/shop"),
        ("postgresql+psycopg://db.example/shop", "products", "shop.products", "postgresql://db.example/shop"),
        ("mysql://ann:hunter2@db.example/shop", "other.products", "other.products", "mysql://db.example/shop"),
        ("sqlite:////data/shop.db", "products", "shop.products", "sqlite:////data/shop.db"),
        ("sqlite://", "products", "products", "sqlite://"),
    ],
)  # fmt: skip
def test_a_table_is_named_with_its_database_and_no_credentials(url: str, table: str, name: str, uri: str) -> None:
    declared = job(target=SqlTable(table=table, key="sku", database=url))

    assert (shown(declared, "table_name"), shown(declared, "uri")) == (name, uri)
    assert "hunter2" not in repr(spec_of(declared))


def test_the_configured_database_is_read_once_however_many_syncs_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[None] = []
    load = model.load_settings
    monkeypatch.setattr(model, "load_settings", lambda: (calls.append(None), load())[1])
    monkeypatch.setenv("SYNC_PIPELINES_DATABASE_URL", f"sqlite:///{tmp_path}/first.sqlite")
    target = SqlTable(table="products", key="sku")
    jobs = [job(name=f"sync-{number}", target=target, asset_key=None, source_asset=None) for number in range(5)]

    build_definitions(jobs)

    assert len(calls) == 1
    assert shown(jobs[0], "table_name") == "first.products"
    monkeypatch.setenv("SYNC_PIPELINES_DATABASE_URL", f"sqlite:///{tmp_path}/second.sqlite")
    assert shown(jobs[0], "table_name") == "second.products"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("LEASE_S", "-1"), ("DATABASE_URL", "hunter2 is no URL")])
def test_a_wrong_setting_leaves_the_database_out_and_the_definitions_load(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SYNC_PIPELINES_{name}", value)
    declared = job(target=SqlTable(table="products", key="sku"))

    assert shown(declared, "table_name") == "products"
    assert "dagster/uri" not in spec_of(declared).metadata


def test_the_columns_of_a_mapping_have_their_fields_as_lineage_and_functions_have_none() -> None:
    columns = {"title": "name", "amount": "price.net", "slug": lambda item: item["name"].lower()}
    declared = job(target=SqlTable(table="products", key="sku", columns=columns, database="sqlite:///x.db"))

    source = AssetKey(["erp", "products"])
    assert shown(declared, "column_lineage").deps_by_column == {
        "sku": [TableColumnDep(source, "sku")],
        "title": [TableColumnDep(source, "name")],
        "amount": [TableColumnDep(source, "price.net")],
    }
    assert [column.name for column in shown(declared, "column_schema").columns] == ["sku", "title", "amount", "slug"]


@pytest.mark.parametrize("columns", [None, dict])
def test_columns_that_depend_on_the_item_have_no_lineage(columns: Any) -> None:
    declared = job(target=SqlTable(table="products", key="sku", columns=columns, database="sqlite:///x.db"))

    assert "dagster/column_lineage" not in spec_of(declared).metadata


def test_a_sqlalchemy_table_shows_types_and_which_columns_hold_no_null() -> None:
    table = sa.Table(
        "products", sa.MetaData(schema="shop"), sa.Column("sku", sa.String(20)),
        sa.Column("price", sa.Numeric(10, 2), nullable=False), sa.Column("note", sa.Text),
    )  # fmt: skip
    declared = job(target=SqlTable(table=table, key="sku", columns=["sku"], database="postgresql://db.example/erp"))

    columns = shown(declared, "column_schema").columns
    assert [(each.name, each.type, each.constraints.nullable) for each in columns] == [
        ("sku", "VARCHAR(20)", False),
        ("price", "NUMERIC(10, 2)", False),
        ("note", "TEXT", True),
    ]
    assert shown(declared, "table_name") == "erp.shop.products"


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, {"rest", "postgresql"}),
        ({"kinds": ("erp", "gold")}, {"erp", "gold", "rest"}),
        ({"kinds": ("rest", "a", "b")}, {"rest", "a", "b"}),
        ({"fetch_external": Tryton().products}, {"tryton", "postgresql"}),
        ({"fetch_external": csv_file("products.csv")}, {"csv", "postgresql"}),
        ({"fetch_external": list}, {"postgresql"}),
        ({"fetch_external": SimpleNamespace(source_kind="pim").__repr__}, {"pim", "postgresql"}),
        ({"fetch_external": SimpleNamespace(source_kind="no badge").__repr__}, {"postgresql"}),
    ],
)
def test_the_kinds_of_the_job_file_go_first_then_source_and_database(options: Any, kinds: set[str]) -> None:
    assert spec_of(job(**options)).kinds == kinds


def test_the_source_has_the_kinds_of_all_that_read_it() -> None:
    readers = [
        job(name=f"reader-{number}", asset_key=None, fetch_external=fetch)
        for number, fetch in enumerate([RestSource("https://x.example"), csv_file("x.csv"), csv_file("y.csv")])
    ]
    specs = [each for each in build_definitions(readers).assets or () if isinstance(each, AssetSpec)]

    assert [spec.kinds for spec in specs] == [{"source", "csv", "rest"}]


def test_owners_are_on_the_asset_its_jobs_and_its_schedule() -> None:
    owners = ["team:shop", "ann@example.com"]
    repository = sync_definitions(job(owners=owners, schedule=sync_intervals.hours(1))).get_repository_def()

    names = ("erp_products", "erp_products_items", "erp_products_retry")
    assert [list(repository.get_job(name).owners or ()) for name in names] == [owners] * 3
    assert [list(each.owners or ()) for each in repository.schedule_defs] == [owners]
    assert list(repository.asset_graph.get(PRODUCTS).owners) == owners


def test_the_asset_links_the_line_of_its_declaration_also_when_it_was_scheduled_elsewhere() -> None:
    declared = job(name="declared-here")

    [reference] = shown(declared, "code_references").code_references

    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert reference.file_path == __file__
    assert lines[reference.line_number - 1] == "    return SyncJob(**{**given, **options})"
    assert declared.scheduled(sync_intervals.hours(1)).declared_at == declared.declared_at


def test_code_references_become_links_to_the_repository() -> None:
    definitions = build_definitions([job()])
    mapping = AnchorBasedFilePathMapping(Path(__file__).parent, "tests")

    linked = link_code_references_to_git(definitions.assets or (), "https://github.com/us/syncs", "main", mapping)

    metadata = next(each for each in linked if isinstance(each, AssetsDefinition)).metadata_by_key[PRODUCTS]
    [reference] = metadata["dagster/code_references"].code_references
    assert reference.url.startswith("https://github.com/us/syncs/tree/main/tests/test_definition_metadata.py#L")


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({"schedule": sync_intervals.hours(1)}, FreshnessPolicy.time_window(timedelta(hours=3))),
        ({"fresh_within": timedelta(minutes=5)}, FreshnessPolicy.time_window(timedelta(minutes=5))),
        ({"fresh_within": timedelta(seconds=5)}, None),  # Dagster looks no closer than a minute
        ({}, None),
    ],
)
def test_dagster_watches_freshness_as_our_check_does(options: Any, policy: FreshnessPolicy | None) -> None:
    assert spec_of(job(**options)).freshness_policy == policy


def test_run_tags_are_on_runs_of_every_kind_and_on_no_asset() -> None:
    config = {"container_config": {"resources": {"limits": {"cpu": "2"}}}}
    declared = job(run_tags={"dagster-k8s/config": config, "dagster/priority": "3"}, tags={"team": "shop"})
    repository = sync_definitions(declared).get_repository_def()

    for name, kind in (("erp_products", "full"), ("erp_products_items", "drain"), ("erp_products_retry", "retry")):
        found = repository.get_job(name)
        expected = {
            "dagster-k8s/config": json.dumps(config),
            "dagster/priority": "3",
            "team": "shop",
            "sync": "erp-products",
            "sync/kind": kind,
        }
        # a run over GraphQL gets the tags, one of a schedule or a sensor the run tags
        assert (dict(found.tags), dict(found.run_tags)) == (expected, expected)
    tags = repository.asset_graph.get(PRODUCTS).tags
    assert {name for name in tags if not name.startswith("dagster/kind/")} == {"team"}


def test_op_tags_are_on_every_step_beside_our_own() -> None:
    repository = sync_definitions(job(op_tags={"dagster-k8s/config": {"a": 1}})).get_repository_def()

    jobs = [repository.get_job(name) for name in ("erp_products", "erp_products_items", "erp_products_retry")]
    nodes = [node for found in jobs for node in found.all_node_defs]
    steps = {node.name.rpartition("___")[2]: dict(node.tags) for node in nodes if "___" in node.name}
    names = ("fetch", "diff", "apply", "drain", "retry")
    assert [steps[name]["dagster-k8s/config"] for name in names] == ['{"a": 1}'] * 5
    assert steps["fetch"]["kind"] == "fetch"


def test_several_upstreams_are_parents_whoever_they_belong_to() -> None:
    @asset(key=["warehouse", "rates"])
    def rates() -> None: ...

    prices = job(name="shop-prices", asset_key=None, upstream=["shop/products", "warehouse/rates", "dbt-stub"])
    definitions = Definitions.merge(Definitions(assets=[rates]), build_definitions([job(), prices]))

    graph = definitions.resolve_asset_graph()
    parents = {each.to_user_string() for each in graph.get(AssetKey(["sync", "shop_prices"])).parent_keys}
    assert parents == {"erp/products", "shop/products", "warehouse/rates", "dbt-stub"}
    assert graph.get(AssetKey(["warehouse", "rates"])).is_materializable
    assert not graph.get(AssetKey("dbt-stub")).is_materializable


def test_a_sync_with_upstreams_runs(shop: Shop) -> None:
    shop.items = [{"sku": "A"}]
    reader = shop.job(upstream=["warehouse/rates", "other"])

    done = build_definitions([reader]).resolve_job_def("erp_stock").execute_in_process()

    assert done.success
    assert list(shop.records) == ["A"]


def test_a_circle_by_way_of_upstream_is_named() -> None:
    first = job(name="first", asset_key="a/first", upstream=["a/second"])
    second = job(name="second", asset_key="a/second", upstream=["a/third"])
    third = job(name="third", asset_key="a/third", source_asset="a/first")
    aside = job(name="aside", asset_key="a/aside", upstream=["a/first"])

    with pytest.raises(ConfigurationError) as refused:
        build_definitions([aside, first, second, third])

    assert str(refused.value) == (
        "sync job 'first': upstream: it reads a/second of 'second', which reads a/third of 'third', which reads "
        "a/first of 'first' itself: a circle that Dagster can't load; change the source_asset or upstream of one"
    )


def test_two_ways_to_one_sync_are_no_circle() -> None:
    top = job(name="top", asset_key="a/top")
    left = job(name="left", asset_key="a/left", upstream=["a/top"])
    right = job(name="right", asset_key="a/right", upstream=["a/top"])
    bottom = job(name="bottom", asset_key="a/bottom", upstream=["a/left", "a/right"])

    build_definitions([bottom, right, left, top])
