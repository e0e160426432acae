"""A component in a project: jobs by name, templates, several components, subclasses, and a run that writes."""

from __future__ import annotations

import os
import sqlite3
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetKey, AssetSpec, Component, ComponentLoadContext, DagsterInstance, Definitions
from dagster.components.core.package_entry import discover_package_objects
from dagster.components.scaffold.scaffold import get_scaffolder

from sync_pipelines import ConfigurationError, SqlTable, SyncComponent, SyncJob, csv_file
from sync_pipelines.component.declaration import SyncDeclaration
from sync_pipelines.component.scaffolder import SyncScaffolder, SyncScaffoldParams, scaffolded_attributes
from sync_pipelines_tests.children import run_child
from sync_pipelines_tests.component.projects import jobs_of, of_type, project

REPOSITORY = Path(__file__).parents[2]
HERE = "sync_pipelines_tests.component.test_component"
ONE = "name: {0}\nsource: {{csv: {{path: {0}.csv}}}}\ntarget: {{table: {1}, key: sku}}"

JOB: SyncJob[Any, Any] = SyncJob(
    name="suppliers", fetch_external=csv_file("suppliers.csv"), target=SqlTable(table="suppliers", key="number")
)


class TeamSync(SyncComponent):
    """A subclass with a field of its own."""

    team: str

    def build_job(self, sync: SyncDeclaration, context: ComponentLoadContext) -> SyncJob[Any, Any]:
        named = sync.model_copy(update={"name": f"{self.team}-{sync.name}"})
        return replace(super().build_job(named, context), owners=[f"team:{self.team}"])

    def get_sync_definitions(self, jobs: Sequence[SyncJob[Any, Any]], context: ComponentLoadContext) -> Definitions:
        report = AssetSpec("report", deps=[AssetKey(["sync", jobs[0].dagster_name])])
        return Definitions.merge(super().get_sync_definitions(jobs, context), Definitions(assets=[report]))


def assets_of(**folders: str) -> dict[str, AssetSpec]:
    with project(folders) as (tree, _):
        return {spec.key.to_user_string(): spec for spec in tree.build_defs().resolve_all_asset_specs()}


# What dg finds


def test_dg_finds_the_component_and_nothing_else_in_the_package() -> None:
    assert [key.to_typename() for key in discover_package_objects(["sync_pipelines"])] == [
        "sync_pipelines.SyncComponent"
    ]
    entry = '[project.entry-points."dagster_dg_cli.registry_modules"]\nsync_pipelines = "sync_pipelines"\n'
    assert entry in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def test_dg_can_load_every_public_name_without_the_extras() -> None:
    """It does so, to look for components, in projects that have none but that of Dagster."""
    code = """
import sys
EXTRAS = ("dlt", "numpy", "pandas", "prometheus_client", "psycopg", "pymysql", "standardwebhooks", "uvicorn")
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
import sync_pipelines
for name in dir(sync_pipelines):
    getattr(sync_pipelines, name)
"""
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath}

    ran = run_child([sys.executable, "-W", "ignore", "-c", code], env=environment)

    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("source", ["rest", "sql", "csv", "parquet", "json_lines"])
def test_what_is_scaffolded_loads(source: str) -> None:
    attributes = scaffolded_attributes("ERP_stock", SyncScaffoldParams(source=source))

    (job,) = jobs_of(yaml.safe_dump(attributes))

    assert job.name == "erp-stock"
    assert isinstance(get_scaffolder(SyncComponent), SyncScaffolder)


def test_a_named_job_can_be_scaffolded() -> None:
    assert scaffolded_attributes("x", SyncScaffoldParams(job=f"{HERE}.JOB")) == {"job": f"{HERE}.JOB"}


# What stands in a file


def test_a_job_is_named_by_its_dotted_name() -> None:
    assert jobs_of(f"job: {HERE}.JOB") == [JOB]


def test_one_file_has_several_syncs() -> None:
    both = [textwrap.indent(ONE.format(name, name), "  ") for name in ("bins", "moves")]

    jobs = jobs_of("syncs:\n-\n{}\n-\n{}\n- job: {}.JOB".format(*both, HERE))

    assert [job.name for job in jobs] == ["bins", "moves", "suppliers"]


def test_templates_get_their_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_USER", "0012")
    monkeypatch.setenv("ERP_NUMBER", "12")
    monkeypatch.setenv("ERP_SIZE", "50")
    monkeypatch.delenv("ERP_PASSWORD", raising=False)
    (job,) = jobs_of("""
        name: erp-stock
        source:
          rest:
            url: "https://{{ env('ERP_HOST', 'erp.example.com') }}/{{ env.ERP_NUMBER }}/stock"
            auth: {basic: {user: "{{ env.ERP_NUMBER }}", password: "{{ env.ERP_PASSWORD }}"}}
            paging: {page_number: {size: "{{ env.ERP_SIZE }}", parameter: "{{ env.ERP_USER }}"}}
        target: {table: stock, key: sku}
        """)

    source = job.fetch_external
    assert source.url == "https://erp.example.com/12/stock"
    assert (source.auth.user, source.auth.password) == ("12", "ERP_PASSWORD"), "secrets are read when a fetch starts"
    assert (source.paging.size, source.paging.parameter) == (50, "0012")


def test_an_object_of_ones_own_may_come_by_a_template() -> None:
    (sync,) = SyncComponent.resolve_from_yaml(
        'name: a\nsource: "{{ fetch }}"\ntarget: {table: t, key: k, columns: {k: "{{ upper }}"}}',
        scope={"fetch": list, "upper": str.upper},
    ).syncs

    job = sync.build()
    assert job.fetch_external is list
    assert job.target.columns == {"k": str.upper}


# Components in a project


def test_a_subclass_changes_jobs_and_definitions_and_has_fields_of_its_own() -> None:
    specs = assets_of(team=of_type(f"team: pricing\n{ONE.format('rebates', 'rebates')}", f"{HERE}.TeamSync"))

    assert specs["sync/pricing_rebates"].owners == ["team:pricing"]
    assert [dep.asset_key.to_user_string() for dep in specs["report"].deps] == ["sync/pricing_rebates"]


def test_a_field_of_a_subclass_is_required_as_dagster_says_it() -> None:
    with (
        project({"team": of_type(ONE.format("a", "a"), f"{HERE}.TeamSync")}) as (tree, folder),
        pytest.raises(Exception, match="team") as caught,
    ):
        tree.load_component(folder / "team")

    assert "attributes.team at " in str(caught.value.__cause__)


def test_post_processing_changes_the_assets() -> None:
    post = "post_processing:\n  assets:\n  - target: 'key:sync/bins'\n    attributes: {tags: {domain: stock}}\n"

    assert assets_of(bins=of_type(ONE.format("bins", "bins")) + post)["sync/bins"].tags["domain"] == "stock"


def test_a_component_is_made_in_python_as_well() -> None:
    component: Component = SyncComponent(syncs=[SyncDeclaration(job=JOB)])

    loaded = component.build_defs(None)  # type: ignore[arg-type]  # nothing of the context is used

    assert loaded.resolve_job_def("suppliers").name == "suppliers"


def test_two_components_load_together() -> None:
    with project({name: of_type(ONE.format(name, name)) for name in ("bins", "moves")}) as (tree, _):
        defs = tree.build_defs()
        Definitions.validate_loadable(defs)

    assert {"bins", "moves"} <= {job.name for job in defs.resolve_all_job_defs()}
    assert {sensor.name for sensor in defs.get_repository_def().sensor_defs} == {
        "sync_inbox_sensor", "sync_recovery_sensor", "sync_retry_sensor",
    }  # fmt: skip


def test_the_asset_links_to_the_line_of_its_yaml() -> None:
    with project({"bins": of_type(ONE.format("bins", "bins"))}) as (tree, _):
        [spec] = [
            spec for spec in tree.build_defs().resolve_all_asset_specs() if spec.key == AssetKey(["sync", "bins"])
        ]
    [place, *_] = [
        each for each in spec.metadata["dagster/code_references"].code_references if each.file_path.endswith(".yaml")
    ]
    assert place.line_number >= 1


def test_two_components_read_one_source() -> None:
    folders = {name: of_type(ONE.format(name, name) + "\nsource_asset: erp/stock") for name in ("bins", "moves")}
    with project(folders) as (tree, _):
        Definitions.validate_loadable(tree.build_defs())


def test_a_run_writes_rows(tmp_path: Path) -> None:
    (tmp_path / "stock.csv").write_text("sku,quantity\nA-1,5\nA-2,0\n", encoding="utf-8")
    with sqlite3.connect(tmp_path / "shop.sqlite") as shop:
        shop.execute("CREATE TABLE stock (sku TEXT PRIMARY KEY, quantity INTEGER NOT NULL)")
    attributes = f"""
        name: erp-stock
        source: {{csv: {{path: {tmp_path}/stock.csv, columns: {{quantity: integer}}}}}}
        target: {{table: stock, key: sku, database: "sqlite:///{tmp_path}/shop.sqlite"}}
        """
    (tmp_path / "dagster").mkdir()

    with (
        project({"stock": of_type(attributes)}) as (tree, _),
        DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance,
    ):
        ran = tree.build_defs().resolve_job_def("erp_stock").execute_in_process(instance=instance)

    assert ran.success
    with sqlite3.connect(tmp_path / "shop.sqlite") as shop:
        assert shop.execute("SELECT * FROM stock ORDER BY sku").fetchall() == [("A-1", 5), ("A-2", 0)]


def test_a_wrong_sync_stops_the_component() -> None:
    with pytest.raises(ConfigurationError, match=r"<string>:3: syncs\.0\.group"):
        jobs_of("syncs:\n- name: a\n  group: a b\n  source: {csv: {path: x}}\n  target: {table: t, key: k}")
