"""What is wrong in YAML is said with the file, the line and what to do."""

from __future__ import annotations

import textwrap

import pytest

from sync_pipelines import ConfigurationError
from sync_pipelines.component.declaration import SyncDeclaration, TargetDeclaration
from sync_pipelines.component.sources import SourceChoice
from sync_pipelines_tests.component.projects import chain_of, jobs_of, of_type, project

GOOD = """\
name: erp-stock
source: {csv: {path: stock.csv}}
target: {table: stock, key: sku}
"""
REST = """\
name: erp-stock
target: {table: stock, key: sku}
source:
  rest:
    url: https://erp.example.com/stock
"""
CSV = REST.replace("rest:", "csv:").replace("url:", "path:")

# attributes with `<-` at the end of the line that the error names -> what it says
WRONG = {
    # ours: what the Python classes refuse
    GOOD + "group: a b  # <-": "attributes.group: sync job 'erp-stock': group: 'a b'",
    GOOD.replace("erp-stock", "ERP stock").replace("\n", "  # <-\n", 1): "must be lower case words",
    GOOD + "deletes: soft # <-": "'soft' needs a target that marks records",
    GOOD + "delete_after: 0 # <-": "delete_after",
    GOOD + "owners: [nobody] # <-": "owners",
    GOOD + "guards:\n  max_delete_share: 20 # <-": "Guards: max_delete_share=20",
    GOOD + "retry: # <-\n  attempts: 0": "attempts=0",
    GOOD + "schedule:\n  every: 3 fortnights # <-": "'3 fortnights' is no length of time",
    GOOD + "schedule:\n  every: 1 hour\n  at: '05:30' # <-": "at: '1 hour' is elapsed time",
    GOOD + "schedule:\n  cron: 0 5 * * *\n  at: '05:30' # <-": "a cron line says the time of the day",
    GOOD + "schedule: 99 * * * * # <-": "99",
    GOOD + "fresh_within: soon # <-": "'soon' is no length of time",
    GOOD + "on_start: json.nowhere # <-": "the module json has no 'nowhere'",
    GOOD + "on_start: no_such_module.here # <-": "the module no_such_module can't be imported: ModuleNotFoundError",
    GOOD + "on_start: json.__name__ # <-": "is a str, not a function",
    GOOD + "on_start: start # <-": "'start' is no dotted name",
    GOOD.replace("key: sku}", "key: sku, compare: [sku]} # <-"): "compare names",
    "name: erp-stock\ntarget: {table: stock, key: sku}": "source is missing",
    REST.rstrip().replace("https:", "ftp:") + " # <-": "give scheme and host",
    REST + "    paging:\n      page_number:\n        end_status: 200 # <-": "200",
    REST + "    auth:\n      bearer:\n        token: hunter2-and-more # <-": "give the name of an environment variable",
    REST + "    headers: {Authorization: abc} # <-": "give auth=... instead",
    CSV + "    columns:\n      price: money # <-": "'money' is no type",
    CSV + "    delimiter: ;; # <-": "delimiter",
    "job: json.dumps # <-": "is a function, not a SyncJob",
    "job: no_such_project.stock.JOB # <-": "the module no_such_project.stock can't be imported",
    "job: json.dumps\ngroup: shop # <-": "the job is declared in Python",
    "syncs: [] # <-": "there is none",
    "syncs:\n- job: json.dumps\nname: erp-stock # <-": "stands beside `syncs`",
    "syncs:\n- name: a\n  source: {csv: {path: x}}\n  target: {table: t, key: k}\n- name: b\n"
    "  source: {csv: {path: x}}\n  target: {table: t, key: k}\n  group: no group # <-": "attributes.syncs.1.group",
    # pydantic's: what has another form
    GOOD + "owner: shop # <-": "Extra inputs are not permitted",
    GOOD + "concurrency: many # <-": "valid integer",
    GOOD + "schedule: {every: 1 hour, cron: 0 5 * * *} # <-": "give `every` or `cron`",
    GOOD + "schedule: {every: 1 day, at: 12:30} # <-": 'write the time of the day in quotes, as in "12:30"',
    REST + "    itms_path: data # <-": "Extra inputs are not permitted",
    REST + "    paging: pages # <-": "paging",
    REST + "  sql: {query: SELECT 1}": "give one kind of source: rest, sql, csv, parquet, json_lines, dlt, function",
    # of a template
    REST + '    timeout_s: "{{ env.NOT_SET }}" # <-': "the environment variable NOT_SET is not set",
    REST + "    timeout_s: \"{{ 'soon' }}\" # <-": "valid number",
    REST + '    timeout_s: "{{ nobody }}" # <-': "'nobody' not found in scope",
    REST + '    timeout_s: "{{ none }}" # <-': "gives nothing",
}


def line_of_mark(yaml: str) -> int:
    """The line with the mark; without one, that of the choice of a source, else that of all attributes."""
    lines = yaml.splitlines()
    marked = next((line for line in lines if "# <-" in line), "  source:" if "  source:" in lines else "attributes:")
    return lines.index(marked) + 1


@pytest.mark.parametrize("attributes", WRONG)
def test_the_error_says_file_and_line(attributes: str) -> None:
    yaml = of_type(attributes)

    with project({"wrong": yaml}) as (tree, folder), pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster's own, too
        tree.build_defs()

    said = chain_of(caught.value)
    assert f"{folder / 'wrong' / 'defs.yaml'}:{line_of_mark(yaml)}" in said
    assert WRONG[attributes] in said


def test_the_mark_is_in_every_case_that_has_a_line_of_its_own() -> None:
    assert sum("# <-" not in attributes for attributes in WRONG) == 2


def test_two_syncs_of_one_name_are_an_error_at_the_second() -> None:
    both = [textwrap.indent(each, "  ") for each in (GOOD, GOOD.replace("erp-stock", "erp_stock"))]
    yaml = of_type("syncs:\n-\n{}-\n{}".format(*both))

    with project({"twice": yaml}) as (tree, folder), pytest.raises(Exception, match="twice") as caught:
        tree.build_defs()

    said = chain_of(caught.value)
    line = yaml.splitlines().index("    name: erp_stock") + 1
    assert (
        f"{folder / 'twice' / 'defs.yaml'}:{line}: attributes.syncs.1: sync job 'erp_stock': name: 'erp-stock' has"
        in said
    )


def test_a_file_below_the_current_directory_is_shown_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with project({"wrong": of_type(GOOD + "group: a b")}) as (tree, folder):
        monkeypatch.chdir(folder)
        with pytest.raises(Exception, match="wrong") as caught:
            tree.build_defs()

    assert "\nwrong/defs.yaml:6: attributes.group: " in chain_of(caught.value)


def test_a_secret_that_stands_in_the_file_is_not_repeated() -> None:
    """Not by us: pydantic's own errors of the form of the YAML, which Dagster shows, are not about secrets' fields."""
    with pytest.raises(ConfigurationError) as caught:
        jobs_of(REST + "    auth: {basic: {user: us, password: hunter2-and-more}}")

    assert "password" in str(caught.value)
    assert "hunter2" not in chain_of(caught.value)


def test_a_value_out_of_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_TOKEN", "hunter2-and-more")

    with pytest.raises(ConfigurationError) as caught:
        jobs_of(REST + '    timeout_s: "{{ env.ERP_TOKEN }}"')

    assert "<string>:6: source.rest.timeout_s: Input should be a valid number" in str(caught.value)
    assert "hunter2" not in chain_of(caught.value)


def test_a_declaration_in_python_is_an_error_that_says_the_way() -> None:
    sync = SyncDeclaration(
        name="erp-stock",
        source=SourceChoice.model_validate({"csv": {"path": "x", "columns": {"price": "money"}}}),
        target=TargetDeclaration(table="stock", key="sku"),
    )

    with pytest.raises(ConfigurationError, match=r"^source.csv.columns.price: 'money' is no type"):
        sync.build()
