"""A job file that can't be loaded is an asset in Dagster whose check says file, line and error; the others load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    DagsterInstance,
    Definitions,
    build_sensor_context,
    define_asset_job,
)

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.orchestration import build, recovery
from sync_pipelines.orchestration.broken_files import (
    CHECK,
    GROUP,
    BrokenAsset,
    broken_assets,
    build_broken_specs,
    report_broken_files,
)
from sync_pipelines.orchestration.job_files import load_job_files
from sync_pipelines.orchestration.location import HeldWorkspace
from sync_pipelines.registry import registry
from sync_pipelines.registry.job_file_errors import JobFileError
from sync_pipelines_tests.orchestration.shop import Shop
from sync_pipelines_tests.packages import Packages

JOB = """\
from sync_pipelines import SyncJob, schedule_sync_job
GIVEN = {{"fetch_external": list, "get_external_id": "sku", "find_local": str, "create": str, "update": max}}
JOBS = [{jobs}]
"""


def jobs(*declared: str) -> str:
    return JOB.format(jobs=", ".join(f"SyncJob({each}, **GIVEN)" for each in declared))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    monkeypatch.setattr(registry, "_recorded", registry.Registry())
    monkeypatch.syspath_prepend(str(tmp_path))
    packages = Packages(tmp_path, "job_files")
    yield packages
    packages.forget()


def assets_of(definitions: Definitions) -> dict[str, Any]:
    Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    return {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}


def loaded(definitions: Definitions) -> set[str]:
    """Returns the assets that are no source and not broken."""
    return {key for key, node in assets_of(definitions).items() if node.is_materializable}


def broken(definitions: Definitions) -> dict[str, str]:
    """Returns the error of each broken asset."""
    found = assets_of(definitions)
    checks = definitions.resolve_asset_graph().asset_check_keys
    of_group = {key for key, node in found.items() if node.group_name == GROUP}
    assert {key.asset_key.to_user_string() for key in checks if key.name == CHECK} == of_group
    return {key: found[key].metadata["error"].value for key in of_group}


def test_the_others_load_beside_an_asset_that_says_what_is_wrong(packages: Packages, tmp_path: Path) -> None:
    name = packages.make(stock=jobs("name='erp-stock'"), prices="x = 1\nraise RuntimeError('password=geheim')\n")

    definitions = load_job_files([name])

    path = str(tmp_path / name / "prices.py")
    text = f"the jobs module {name}.prices can't be imported: RuntimeError: password=*** ({path}:2)"
    asset = assets_of(definitions)["sync/prices"]
    assert loaded(definitions) == {"sync/erp_stock"}
    assert broken(definitions) == {"sync/prices": text}
    assert asset.description.startswith(f"This sync can't be loaded: `{text}`\n\nMend it and reload")
    assert (asset.metadata["file"].value, asset.metadata["line"].value) == (path, "2")
    [reference] = asset.metadata["dagster/code_references"].code_references
    assert (reference.file_path, reference.line_number) == (path, 2)
    assert asset.kinds == {"broken"}
    assert not asset.is_executable


def test_the_check_fails_as_an_error_with_file_line_and_error_when_it_is_run(
    packages: Packages, instance: DagsterInstance
) -> None:
    name = packages.make(prices="1 / 0\n", crm="{}['x']\n")
    definitions = load_job_files([name])
    key = AssetCheckKey(AssetKey(["sync", "prices"]), CHECK)
    job = define_asset_job("look", AssetSelection.checks(key))

    done = (
        Definitions.merge(definitions, Definitions(jobs=[job]))
        .resolve_job_def("look")
        .execute_in_process(instance=instance)
    )

    [evaluation] = done.get_asset_check_evaluations()
    assert done.success
    assert (evaluation.asset_check_key, evaluation.passed) == (key, False)
    assert evaluation.severity is AssetCheckSeverity.ERROR
    assert f"{name}.prices can't be imported: ZeroDivisionError: division by zero (" in str(evaluation.description)
    assert evaluation.metadata["line"].value == "1"


def test_a_job_that_the_broken_file_declares_keeps_its_asset_and_with_it_its_history(packages: Packages) -> None:
    text = jobs("name='erp-stock', asset_key='shop/stock'", "name='erp-prices', group='shop'")
    name = packages.make(several=text + "1 / 0\n", syntax=jobs("name='crm', asset_key='crm/customers'") + "def (\n")

    definitions = load_job_files([name])

    assert set(broken(definitions)) == {"shop/stock", "shop/erp_prices", "crm/customers"}


def test_a_file_that_declares_the_job_of_another_takes_no_asset_of_it(packages: Packages) -> None:
    name = packages.make(a=jobs("name='erp-stock'"), b=jobs("name='erp-stock'") + "1 / 0\n")

    definitions = load_job_files([name])

    assert loaded(definitions) == {"sync/erp_stock"}
    assert set(broken(definitions)) == {f"{GROUP}/{name}_b"}


def test_a_sync_that_reads_what_a_broken_one_writes_still_does(packages: Packages) -> None:
    name = packages.make(
        a=jobs("name='search', source_asset='shop/stock'"), b=jobs("name='stock', asset_key='shop/stock'") + "1 / 0\n"
    )

    definitions = load_job_files([name])

    assert set(broken(definitions)) == {"shop/stock"}
    assert assets_of(definitions)["sync/search"].parent_keys == {AssetKey(["shop", "stock"])}


def test_an_error_of_a_declaration_is_told_at_its_line_in_the_job_file(packages: Packages, tmp_path: Path) -> None:
    name = packages.make(prices=jobs("name='prices', fresh_within='1 hour'"))

    metadata = assets_of(load_job_files([name]))["sync/prices"].metadata

    assert (metadata["file"].value, metadata["line"].value) == (str(tmp_path / name / "prices.py"), "3")


@pytest.mark.parametrize(
    ("declared", "key"),
    [
        ("name='Price List'", "sync/Price_List"),
        ("name=' '", "sync/unknown"),
        ("name='prüfen'", "sync/pr_fen"),
        ("name='ü'", "sync/unknown"),
        ("name='a*'", "sync/a_"),
        ("name='a.b'", "sync/a_b"),
        ("name='a[0]'", "sync/a_0_"),
        ("name='a', group='my shop'", "my_shop/a"),
        ("name='a', asset_key='shop/*/Ä b'", "shop/unknown/_b"),
    ],
)
def test_whatever_a_file_says_is_the_name_of_a_sync_keeps_no_other_from_loading(
    packages: Packages, declared: str, key: str
) -> None:
    name = packages.make(wrong=jobs(declared) + "1 / 0\n", stock=jobs("name='erp-stock'"))

    definitions = load_job_files([name])

    assert loaded(definitions) == {"sync/erp_stock"}
    assert set(broken(definitions)) == {key}


def test_of_an_asset_that_dagster_refuses_nevertheless_the_module_is_told(packages: Packages) -> None:
    name = packages.make(wrong=jobs("name='a', asset_key='None'"), stock=jobs("name='erp-stock'"))

    definitions = load_job_files([name])

    assert loaded(definitions) == {"sync/erp_stock"}
    assert "must be at least two words" in broken(definitions)[f"{GROUP}/{name}_wrong"]


def test_a_jobs_package_that_is_not_there_is_an_asset_too(packages: Packages) -> None:
    name = packages.make(stock=jobs("name='erp-stock'"))

    definitions = load_job_files([name, "thier_jobs"])

    assert loaded(definitions) == {"sync/erp_stock"}
    assert "No module named 'thier_jobs'" in broken(definitions)["sync/thier_jobs"]


CONFLICTS = {
    "one name": (
        ["name='twin', asset_key='s/a'", "name='twin', asset_key='s/b'"],
        {"s/a": "another sync job is named 'twin'", "s/b": "another sync job is named 'twin'"},
    ),
    "one name in Dagster": (
        ["name='a-b'", "name='a_b'"],
        {"sync/a_b": "'a-b' and 'a_b' have the same name in Dagster"},
    ),
    "one asset, of three": (
        [f"name='{name}', asset_key='s/x'" for name in "abc"],
        {"s/x": "sync job 'b': asset_key: 'a' has the asset s/x already; change one"},
    ),
    "one name of a Dagster job": (
        ["name='it'", "name='it-items'"],
        {"sync/it": "'it' has the Dagster job it_items already", "sync/it_items": "'it' has the Dagster job it_items"},
    ),
    "a circle": (
        [
            "name='a', asset_key='s/a', source_asset='s/c'",
            "name='b', asset_key='s/b', source_asset='s/a'",
            "name='c', asset_key='s/c', source_asset='s/b'",
        ],
        dict.fromkeys(["s/a", "s/b", "s/c"], "a circle that Dagster can't load"),
    ),
    "its own source": (["name='a', group='sources'"], {"sources/a": "it would read its own asset sources/a"}),
    "a schedule twice": (
        ["name='a', schedule='0 4 * * *'"],
        {"sync/a": "sync job 'a' is scheduled twice"},
    ),
    "a schedule of nobody": ([], {"sync/a": "there is no sync job 'a'; there are: other"}),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_of_jobs_that_are_in_each_others_way_none_is_loaded_and_all_others_are(packages: Packages, case: str) -> None:
    declared, told = CONFLICTS[case]
    text = jobs(*declared) + ("schedule_sync_job('a', '0 5 * * *')\n" if "schedule" in case else "")
    name = packages.make(several=text, other=jobs("name='other', source_asset='s/a'"))

    definitions = load_job_files([name])

    assert loaded(definitions) == {"sync/other"}
    found = broken(definitions)
    assert found.keys() == told.keys()
    for key, words in told.items():
        assert words in found[key]
        assert "several.py" in found[key]


def test_two_circles_with_a_job_in_common_are_both_broken_up(packages: Packages) -> None:
    name = packages.make(
        several=jobs(
            "name='a', asset_key='s/a', source_asset='s/b'",
            "name='b', asset_key='s/b', source_asset='s/a'",
            "name='leads-there', asset_key='s/c', source_asset='s/b'",
            "name='x', asset_key='s/x', source_asset='s/y'",
            "name='y', asset_key='s/y', source_asset='s/x'",
        )
    )

    definitions = load_job_files([name])

    assert loaded(definitions) == {"s/c"}
    assert set(broken(definitions)) == {"s/a", "s/b", "s/x", "s/y"}


def test_what_dagster_refuses_of_one_job_keeps_no_other_from_loading(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = packages.make(several=jobs("name='a'", "name='b'"))
    build_schedule = build.build_schedule

    def refuse(job: Any, *status: Any) -> Any:
        if job.name == "b":
            raise ValueError("no such thing, password=geheim")
        return build_schedule(job, *status)

    monkeypatch.setattr(build, "build_schedule", refuse)

    definitions = load_job_files([name])

    assert loaded(definitions) == {"sync/a"}
    assert (
        "Dagster can't load the definitions: ValueError: no such thing, password=***" in broken(definitions)["sync/b"]
    )


def test_what_is_wrong_with_no_job_alone_is_raised(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    name = packages.make(several=jobs("name='a'"))
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", name)
    monkeypatch.setenv("SYNC_PIPELINES_START", "perhaps")

    with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_START"):
        load_job_files()


def look(definitions: Definitions, instance: DagsterInstance, cursor: str | None = None) -> Any:
    sensor = definitions.resolve_sensor_def("sync_recovery_sensor")
    context = build_sensor_context(instance=instance, cursor=cursor, repository_def=definitions.get_repository_def())
    return sensor.evaluate_tick(context)


def evaluations(instance: DagsterInstance, *key: str) -> list[AssetCheckEvaluation]:
    """Returns what was reported of the check, oldest first."""
    check = AssetCheckKey(AssetKey(list(key)), CHECK)
    records = instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
    found = [record.event.dagster_event.event_specific_data for record in records]  # type: ignore[union-attr]
    return list(reversed(found))  # type: ignore[arg-type]


def test_the_sensor_reports_a_new_problem_once_and_once_that_it_is_gone(
    packages: Packages, instance: DagsterInstance
) -> None:
    name = packages.make(stock=jobs("name='erp-stock'"), prices="1 / 0\n")
    definitions = load_job_files([name])

    first = look(definitions, instance)
    second = look(definitions, instance, first.cursor)

    [failed] = evaluations(instance, "sync", "prices")
    assert (failed.passed, failed.severity) == (False, AssetCheckSeverity.ERROR)
    assert "prices.py:1" in str(failed.description)
    assert str(first.skip_message).endswith("; can't be loaded: sync/prices")
    assert second.cursor == first.cursor

    packages.write(name, "prices", "raise ValueError('another line, another error')\n")
    third = look(load_job_files([name]), instance, second.cursor)
    assert [each.passed for each in evaluations(instance, "sync", "prices")] == [False, False]

    packages.write(name, "prices", jobs("name='prices'") + "# it is mended\n")
    mended = load_job_files([name])
    fourth = look(mended, instance, third.cursor)
    look(mended, instance, fourth.cursor)
    assert [each.passed for each in evaluations(instance, "sync", "prices")] == [False, False, True]
    assert fourth.skip_message == "every run that Dagster shows as started is alive"


def test_what_a_run_materialises_after_the_report_does_not_hide_the_check(
    packages: Packages, instance: DagsterInstance
) -> None:
    definitions = load_job_files([packages.make(prices="1 / 0\n")])
    cursor = look(definitions, instance).cursor

    instance.report_runless_asset_event(AssetMaterialization(AssetKey(["sync", "prices"])))
    for _ in range(2):
        cursor = look(definitions, instance, cursor).cursor

    assert len(evaluations(instance, "sync", "prices")) == 2


def test_a_ledger_that_fails_hides_no_broken_file_and_has_it_reported_once(
    packages: Packages, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = load_job_files([packages.make(prices="1 / 0\n")])

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "HELD_WORKSPACE", HeldWorkspace(refuse_to_open))
        for _ in range(2):
            with pytest.raises(ConnectionError, match="the ledger is away"):
                look(definitions, instance)
    cursor = look(definitions, instance).cursor

    assert [each.passed for each in evaluations(instance, "sync", "prices")] == [False]
    assert list(json.loads(cursor)) == ["sync/prices"]


def refuse_to_open(settings: Any) -> Any:
    raise ConnectionError("the ledger is away")


def test_an_error_is_shown_in_markdown_as_it_is() -> None:
    [shown, fenced] = build_broken_specs([asset("of *two*\n  `lines`"), asset("<b>", "sync/b")])

    assert "can't be loaded: `` of *two* `lines` ``\n\n" in str(shown.description)
    assert "can't be loaded: `<b>`\n\n" in str(fenced.description)


def asset(text: str = "wrong", key: str = "sync/prices") -> BrokenAsset:
    return BrokenAsset(AssetKey(key.split("/")), (JobFileError(text, module="jobs.prices"),))


@pytest.mark.parametrize("cursor", ["{", "[]", "null", '"x"'])
def test_a_cursor_that_somebody_has_edited_has_all_reported_again(instance: DagsterInstance, cursor: str) -> None:
    after = report_broken_files(instance, [asset()], cursor)

    assert list(json.loads(after)) == ["sync/prices"]
    assert len(evaluations(instance, "sync", "prices")) == 1


def test_several_problems_of_one_asset_are_told_together(shop: Shop) -> None:
    problems = [JobFileError(text, module="jobs.erp_stock", file=f"{text}.py", line=7) for text in ("one", "two")]

    [found] = broken_assets(problems, [shop.job()])

    assert found.text == "one (one.py:7)\ntwo (two.py:7)"
    assert {name: getattr(value, "value", value) for name, value in found.metadata.items()} == {
        "module": "jobs.erp_stock",
        "error": "one (one.py:7)",
        "file": "one.py",
        "line": "7",
        "module 2": "jobs.erp_stock",
        "error 2": "two (two.py:7)",
        "file 2": "two.py",
        "line 2": "7",
    }
