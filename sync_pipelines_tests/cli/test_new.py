"""`new`: a job file that imports, is a valid job and passes the linter; never over somebody's work."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from sync_pipelines.cli.job_file import Sketch, job_file_text, quoted
from sync_pipelines.cli.job_sketch import Column, LocalTable, sketch_sync
from sync_pipelines.cli.new import _write
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import ConfigurationError
from sync_pipelines_tests.children import run_child

Invoke = Callable[..., Result]
Document = Callable[..., Any]

TABLE = """
    CREATE TABLE variants (
        id INTEGER PRIMARY KEY, sku TEXT NOT NULL UNIQUE, unit_price NUMERIC(10, 2), title TEXT NOT NULL,
        stock INTEGER NOT NULL DEFAULT 0, doubled INTEGER GENERATED ALWAYS AS (stock * 2)
    )
"""
SAMPLE = [
    {"SKU": "A-1", "unitPrice": 2, "tags": ["a"], "colour": None, "note": "x"},
    {"SKU": "A-2", "unitPrice": 2.5, "tags": [], "colour": None, "note": None, "class": {"a": 1}},
]


def job_in(path: str | Path, place: Any) -> SyncJob[Any, Any]:
    """Imports a written file and gives its job."""
    module = importlib.import_module(f"{place.package}.{Path(path).stem}")
    assert isinstance(module.JOB, SyncJob)
    return module.JOB


def write_sample(place: Any, content: Any) -> str:
    path = place.root / "sample.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_new_file_is_a_valid_job_in_the_jobs_folder(place: Any, monkeypatch: Any) -> None:
    done = place.run("new", "crm-customers")
    path = place.jobs / "crm_customers.py"
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert "sync-pipelines run crm-customers --limit 10" in done.stderr
    monkeypatch.syspath_prepend(place.root)
    assert job_in(path, place).name == "crm-customers"


def test_a_new_job_says_that_its_fetch_is_not_written_and_applies_nothing(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    assert invoke("new", "crm-stock", "--table", "variants").exit_code == 0
    result = invoke("run", "crm-stock")
    assert result.exit_code == 2
    assert "fetch is not written yet; write it in crm_stock.py" in result.stderr
    assert place.sql("SELECT * FROM variants") == []


def test_a_table_gives_columns_and_its_natural_key(place: Any, document: Document) -> None:
    place.sql(TABLE)
    written = document("new", "erp-variants", "--table", "variants")
    assert (written["table"], written["key"]) == ("variants", ["sku"])
    target = job_in(written["path"], place).target
    assert target.columns == {name: name for name in ("sku", "unit_price", "title", "stock")}
    text = Path(written["path"]).read_text()
    assert "# Columns that are left alone: id." in text
    assert "# Other columns that identify a record: id." in text
    assert document("check", "erp-variants")["ok"]


def test_a_composite_key_is_taken_whole(place: Any, document: Document) -> None:
    place.sql("CREATE TABLE levels (warehouse TEXT, sku TEXT, quantity INTEGER, PRIMARY KEY (sku, warehouse))")
    written = document("new", "erp-levels", "--table", "levels")
    assert job_in(written["path"], place).target.key_columns == ("warehouse", "sku")
    assert document("check", "erp-levels")["ok"]


def test_a_sample_gives_the_fields(place: Any, document: Document) -> None:
    written = document("new", "pim-texts", "--sample", write_sample(place, SAMPLE))
    target = job_in(written["path"], place).target
    assert (target.table, target.key) == ("pim_texts", "SKU")
    assert target.columns == {name: name for name in ("SKU", "unitPrice", "colour", "note")}
    assert "# Left out because they hold more than one value: tags, class." in Path(written["path"]).read_text()


def test_the_fields_of_a_sample_become_the_items_type(place: Any, document: Document) -> None:
    items = [{name: value for name, value in item.items() if name != "class"} for item in SAMPLE]
    text = Path(document("new", "pim-texts", "--sample", write_sample(place, items))["path"]).read_text()
    fields = ["SKU: str", "unitPrice: float", "tags: list[Any]", "colour: Any", "note: str | None"]
    docstring = '    """One item as the external system gives it."""'
    assert "\n".join(["class PimTextsItem(TypedDict):", docstring, "", *(f"    {each}" for each in fields)]) in text


def test_table_and_sample_are_matched_by_name(place: Any, document: Document) -> None:
    place.sql(TABLE)
    written = document("new", "pim-variants", "--table", "variants", "--sample", write_sample(place, SAMPLE[0]))
    assert job_in(written["path"], place).target.columns == {"sku": "SKU", "unit_price": "unitPrice"}
    text = Path(written["path"]).read_text()
    assert "# New records need a value for these columns too: title." in text
    assert "# Columns that are left alone: id, stock." in text
    assert "# Fields of the item that no column has a name for: tags, colour, note." in text


@pytest.mark.parametrize("options", [[], ["--table", "variants"], ["--sample"], ["--table", "variants", "--sample"]])
@pytest.mark.parametrize("odd", [False, True])
def test_the_file_passes_the_linter_and_the_formatter(
    place: Any,
    invoke: Invoke,
    options: list[str],
    odd: bool,  # noqa: FBT001
) -> None:
    place.sql(TABLE)
    items = (
        [{**item, 'say "hi"': 1, "it's": "b\\s", "password": "token", "x" * 40: 1} for item in SAMPLE]
        if odd
        else SAMPLE
    )
    given_options = [*options, write_sample(place, items)] if "--sample" in options else options
    assert invoke("new", "pim-variants", *given_options).exit_code == 0
    settings = ["--config", str(place.repository / "pyproject.toml"), "--no-cache"]
    for verb in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *verb, *settings, str(place.jobs / "pim_variants.py")]
        done = run_child(command)
        assert done.returncode == 0, done.stdout + (place.jobs / "pim_variants.py").read_text()


def test_a_file_that_is_there_is_not_overwritten(place: Any, invoke: Invoke) -> None:
    path = place.write_job("crm_customers", "# somebody's work\n")
    result = invoke("new", "crm-customers")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is there already; --force overwrites it" in result.stderr
    assert path.read_text() == "# somebody's work\n"
    assert invoke("new", "crm-customers", "--force").exit_code == 0
    assert path.read_text().startswith('"""The sync `crm-customers`')


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "crm.py"
    path.write_text("# somebody's work\n")
    with pytest.raises(ConfigurationError, match="can't be written: File exists"):
        _write(path, "other", force=False)
    assert path.read_text() == "# somebody's work\n"


@pytest.mark.parametrize("name", ["crm-stock", "crm_stock"])
def test_the_name_of_another_job_is_refused(place: Any, invoke: Invoke, name: str) -> None:
    place.write_stock_job()
    source = place.jobs / "stock.py"
    source.write_text(source.read_text().replace('name="stock"', 'name="crm-stock"'))
    result = invoke("new", name)
    assert result.exit_code == 2
    assert "names must be unique" in result.stderr
    assert [path.name for path in place.jobs.glob("crm*")] == []


@pytest.mark.parametrize("name", ["Crm", "crm customers", "../crm", "1crm", ""])
def test_what_is_no_name_is_refused(place: Any, invoke: Invoke, name: str) -> None:
    result = invoke("new", name)
    assert result.exit_code == 2
    assert "must be lower case words and digits joined by '-'" in result.stderr
    assert len(list(place.root.rglob("*.py"))) == 1


def test_another_folder_may_be_given(place: Any, invoke: Invoke) -> None:
    (place.root / "elsewhere").mkdir()
    result = invoke("new", "crm", "--folder", str(place.root / "elsewhere"))
    assert (result.exit_code, result.stdout) == (0, f"{place.root / 'elsewhere' / 'crm.py'}\n")
    assert "SYNC_PIPELINES_JOBS must name the package of that folder" in result.stderr


def test_a_missing_jobs_package_is_explained(invoke: Invoke, monkeypatch: Any) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", "not_there.jobs")
    result = invoke("new", "crm")
    assert result.exit_code == 2
    assert "there is no package 'not_there.jobs'" in result.stderr
    assert "--folder" in result.stderr


def test_an_installed_package_is_left_alone(place: Any, invoke: Invoke, monkeypatch: Any) -> None:
    installed = place.root / "site-packages" / f"{place.package}_installed"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    monkeypatch.syspath_prepend(installed.parent)
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", installed.name)
    result = invoke("new", "crm")
    assert result.exit_code == 2
    assert "name a package of your own in SYNC_PIPELINES_JOBS" in result.stderr
    assert [path.name for path in installed.glob("crm*")] == []


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", "{}", '"text"'])
def test_a_sample_that_holds_no_item_ends_with_2(place: Any, invoke: Invoke, content: str) -> None:
    result = invoke("new", "crm", "--sample", write_sample(place, content))
    assert result.exit_code == 2
    assert "sample.json" in result.stderr
    assert not (place.jobs / "crm.py").exists()


def test_a_table_without_a_key_or_not_there_ends_with_2(place: Any, invoke: Invoke) -> None:
    place.sql("CREATE TABLE heap (name TEXT)")
    assert "CREATE UNIQUE INDEX heap_key ON heap" in invoke("new", "crm", "--table", "heap").stderr
    result = invoke("new", "crm", "--table", "heep")
    assert result.exit_code == 2
    assert "did you mean heap?" in result.stderr
    assert not (place.jobs / "crm.py").exists()


def test_a_file_of_this_package_does_not_import_its_facade() -> None:
    sketch = Sketch(name="crm", table="crm", key=["id"], columns={"id": "id"}, inside=True)
    modules = {node.module for node in ast.walk(ast.parse(job_file_text(sketch))) if isinstance(node, ast.ImportFrom)}
    assert "sync_pipelines" not in modules
    assert "sync_pipelines.engine.declaration" in modules


_NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and name.strip())
_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({}) | st.just([])
_ITEMS = st.lists(st.dictionaries(_NAMES, _VALUES, min_size=1), max_size=3)


@given(_ITEMS, st.none() | st.lists(_NAMES, min_size=1, unique=True))
def test_whatever_the_names_the_file_is_a_valid_job(items: list[dict[str, Any]], columns: list[str] | None) -> None:
    """Names of fields and columns may hold quotes, backslashes, spaces, keywords."""
    table = None if columns is None else LocalTable([Column(name, required=True) for name in columns], [columns[:1]])
    sketch = sketch_sync("crm", None if columns is None else columns[-1].replace(".", "_"), table, items)
    if not all(value for value in sketch.columns):
        return
    scope: dict[str, Any] = {"__name__": "crm"}
    exec(compile(job_file_text(sketch), "crm.py", "exec"), scope)
    assert scope["JOB"].target.columns == dict(sketch.columns)
    assert scope["JOB"].target.key_columns == tuple(sketch.key)


@given(st.text())
def test_a_literal_means_its_text(text: str) -> None:
    assert ast.literal_eval(quoted(text)) == text
