"""`check`: what is in order, what is not, and what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from sync_pipelines.orchestration import build

Invoke = Callable[..., Result]
Document = Callable[..., Any]


def problems(found: Any) -> dict[str, str]:
    assert found["ok"] is False
    for finding in found["findings"]:
        assert bool(finding["to_do"]) == (not finding["ok"])
    return {each["subject"]: each["message"] for each in found["findings"] if not each["ok"]}


def test_all_is_well_ends_with_0(place: Any) -> None:
    place.write_stock_job()
    done = place.run("check")
    assert done.returncode == 0
    lines = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert lines == ["what", "settings", "ledger", "snapshots", "job files", "stock"]
    assert "table variants with key sku" in done.stdout
    assert done.stderr.startswith("all is well; the sources were not asked")


def test_a_problem_ends_with_2_and_says_what_to_do(place: Any) -> None:
    place.write_stock_job()
    place.sql("DROP TABLE variants")
    place.sql("CREATE TABLE variant (sku TEXT PRIMARY KEY)")
    done = place.run("check")
    assert done.returncode == 2
    assert "has no table 'variants'; did you mean variant?" in done.stdout
    assert "\nto do: stock: correct the job file, or the table\n" in done.stdout
    assert done.stderr == "1 to mend\n"


@pytest.mark.parametrize(
    ("name", "message"), [("snapshots", "the snapshot folder .*SYNC_PIPELINES_SNAPSHOT_URL"), ("work", "working files")]
)
def test_folders_that_no_run_could_write_to_are_found(place: Any, name: str, message: str) -> None:
    place.write_stock_job()
    (place.data / name).write_text("no folder")
    result = place.run("check", "--json")
    assert result.returncode == 2
    assert re.search(message, problems(json.loads(result.stdout))["snapshots"])


def test_trying_out_the_snapshot_store_leaves_nothing_there(place: Any) -> None:
    place.write_stock_job()
    assert place.run("check").returncode == 0
    assert list((place.data / "snapshots").iterdir()) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("CREATE TABLE variants (sku TEXT PRIMARY KEY, stck INTEGER)", "did you mean stck?"),
        ("CREATE TABLE variants (sku TEXT, stock INTEGER)", "CREATE UNIQUE INDEX variants_sku_key ON variants (sku)"),
    ],
)
def test_columns_and_key_are_checked(place: Any, document: Document, table: str, message: str) -> None:
    place.write_stock_job()
    place.sql("DROP TABLE variants")
    place.sql(table)
    assert message in problems(document("check", exit_code=2))["stock"]


def test_a_check_writes_no_local_record(place: Any, invoke: Invoke) -> None:
    place.write_stock_job()
    assert invoke("check").exit_code == 0
    assert place.sql("SELECT count(*) FROM variants") == [(0,)]
    assert place.runs() == []


def test_only_the_named_jobs_are_checked(place: Any, document: Document) -> None:
    place.write_stock_job()
    place.write_job(
        "other",
        """
        from sync_pipelines import SqlTable, SyncJob
        JOB = SyncJob(name="other", fetch_external=list, target=SqlTable(table="nowhere", key="id", columns=["id"]))
        """,
    )
    assert document("check", "stock")["ok"]
    assert list(problems(document("check", exit_code=2))) == ["other"]
    assert list(problems(document("check", "stock", "other", exit_code=2))) == ["other"]


def test_an_unknown_name_is_a_problem(place: Any, document: Document) -> None:
    place.write_stock_job()
    found = problems(document("check", "stok", exit_code=2))
    assert "there is no such sync job; there are: " in found["stok"]


def test_a_broken_package_does_not_hide_the_others(place: Any, document: Document, monkeypatch: Any) -> None:
    place.write_stock_job()
    (place.root / f"{place.package}_too").mkdir()
    (place.root / f"{place.package}_too" / "wrong.py").write_text("import nowhere_to_be_found")
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", f"{place.package}_too,{place.package}")
    found = document("check", exit_code=2)
    assert "wrong can't be imported" in problems(found)["job files"]
    assert "stock" in [each["subject"] for each in found["findings"] if each["ok"]]


def test_two_jobs_of_one_name_in_two_packages_are_a_problem(place: Any, document: Document, monkeypatch: Any) -> None:
    place.write_stock_job()
    (place.root / f"{place.package}_too").mkdir()
    (place.root / f"{place.package}_too" / "stock.py").write_text((place.jobs / "stock.py").read_text())
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", f"{place.package},{place.package}_too")
    assert "names must be unique" in problems(document("check", exit_code=2))["job files"]


def test_each_broken_job_file_is_a_problem_with_its_line_as_list_tells_it(
    place: Any, invoke: Invoke, document: Document
) -> None:
    place.write_stock_job()
    place.write_job("one", "x = 1\n1 / 0")
    place.write_job("two", "raise SystemExit(3)")
    place.write_job("zz", "from sync_pipelines import SyncJob\nJOB = SyncJob(name='zz', fresh_within='1 hour')")
    found = document("check", exit_code=2)
    told = [each["message"] for each in found["findings"] if each["subject"] == "job files"]
    assert [f"error: {each}" for each in told] == invoke("list").stderr.splitlines()
    assert told[0].endswith("one.py:2)")
    assert told[1].endswith("two.py:1)")
    assert told[2].endswith("zz.py:2)")
    assert "stock" in [each["subject"] for each in found["findings"] if each["ok"]]


def test_what_stops_dagster_from_loading_two_jobs_does_not_hide_what_it_refuses_of_others(
    place: Any, document: Document
) -> None:
    jobs = [f"""SyncJob(name="{name}", asset_key="s/{key}", **GIVEN)""" for name, key in ("ax", "bx", "cy", "dy")]
    place.write_job("declared", DECLARED.format(jobs=", ".join(jobs)))
    found = document("check", exit_code=2)
    told = [each["message"] for each in found["findings"] if each["subject"] == "Dagster"]
    assert [each.partition(" already")[0] for each in told] == [
        "sync job 'b': asset_key: 'a' has the asset s/x",
        "sync job 'd': asset_key: 'c' has the asset s/y",
    ]


def test_a_wrong_setting_is_a_problem(document: Document, monkeypatch: Any) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_KEEP_SNAPSHOTS_DAYS", "-1")
    assert "SYNC_PIPELINES_KEEP_SNAPSHOTS_DAYS" in problems(document("check", exit_code=2))["settings"]


def test_databases_that_do_not_answer_are_named_without_their_password(place: Any, monkeypatch: Any) -> None:
    place.write_stock_job()
    place.environment["SYNC_PIPELINES_DATABASE_URL"] = "postgresql://shop:geheim@127.0.0.1:1/shop"
    done = place.run("check")
    assert done.returncode == 2
    states = {line.split("  ")[0]: line.split()[1] for line in done.stdout.splitlines() if not line.startswith("to do")}
    assert (states["ledger"], states["stock"]) == ("problem", "problem")
    assert "to do: ledger: start the ledger's database" in done.stdout
    assert "to do: stock: start the database, or correct SYNC_PIPELINES_DATABASE_URL" in done.stdout
    assert "geheim" not in done.stdout + done.stderr


def test_a_target_that_raises_what_it_likes_does_not_hide_the_others(place: Any, document: Document) -> None:
    place.write_stock_job()
    place.write_job(
        "odd",
        """
        from sync_pipelines import SyncJob

        class Odd:
            def open(self, identify):
                raise RuntimeError("not today")

        JOB = SyncJob(name="odd", fetch_external=list, get_external_id="id", target=Odd())
        """,
    )
    found = document("check", exit_code=2)
    assert problems(found) == {"odd": "RuntimeError: not today"}
    assert "stock" in [each["subject"] for each in found["findings"] if each["ok"]]


def test_functions_of_a_job_are_not_called(place: Any, document: Document) -> None:
    place.write_job(
        "crm",
        """
        from sync_pipelines import SyncJob

        def never(*_):
            raise AssertionError("a check must not call this")

        FUNCTIONS = dict.fromkeys(["fetch_external", "find_local", "create", "update"], never)
        JOB = SyncJob(name="crm", get_external_id="id", **FUNCTIONS)
        """,
    )
    found = document("check", "crm")["findings"]
    assert found[-1]["message"] == "functions of the job: there is nothing to open"


DECLARED = """
from sync_pipelines import SyncJob

GIVEN = {{"fetch_external": list, "get_external_id": "id", "find_local": str, "create": str, "update": max}}
JOBS = [{jobs}]
"""


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (
            """SyncJob(name="a", asset_key="s/x", **GIVEN), SyncJob(name="b", asset_key="s/x", **GIVEN)""",
            "sync job 'b': asset_key: 'a' has the asset s/x already; change one",
        ),
        (
            """SyncJob(name="it", **GIVEN), SyncJob(name="it-items", **GIVEN)""",
            "sync job 'it-items': name: 'it' has the Dagster job it_items already; change one",
        ),
        (
            """SyncJob(name="a", asset_key="s/a", source_asset="s/b", **GIVEN),
               SyncJob(name="b", asset_key="s/b", source_asset="s/a", **GIVEN)""",
            "sync job 'a': source_asset: it reads s/b of 'b', which reads s/a of 'a' itself: a circle ",
        ),
        (
            """SyncJob(name="a", group="sources", **GIVEN)""",
            "sync job 'a': source_asset: it would read its own asset sources/a; give another source_asset or asset_key",
        ),
    ],
    ids=["one asset_key", "one name", "a circle", "its own source"],
)
def test_what_stops_dagster_from_loading_is_found(place: Any, document: Document, jobs: str, message: str) -> None:
    place.write_job("declared", DECLARED.format(jobs=jobs))

    found = problems(document("check", exit_code=2))

    assert list(found) == ["Dagster"]
    assert found["Dagster"].startswith(message)


def test_whatever_else_dagster_refuses_is_found_and_names_the_job(
    place: Any, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_job("declared", DECLARED.format(jobs="""SyncJob(name="a", **GIVEN), SyncJob(name="b", **GIVEN)"""))
    build_schedule = build.build_schedule

    def refuse(job: Any, *status: Any) -> Any:
        if job.name == "b":
            raise ValueError("no such thing")
        return build_schedule(job, *status)

    monkeypatch.setattr(build, "build_schedule", refuse)

    found = problems(document("check", exit_code=2))

    assert found == {"Dagster": "sync job 'b': Dagster can't load the definitions: ValueError: no such thing"}


WEBHOOKS = """
    from sync_pipelines import StandardWebhooks, SyncJob, Unsigned, Webhook

    def job(title, **webhook):
        return SyncJob(name=title, fetch_external=list, get_external_id="sku", find_local=id, create=id, update=print,
                       webhook=Webhook(**webhook))

    JOBS = [
        job("good", signature=StandardWebhooks("GOOD_SECRET")),
        job("bad", signature=StandardWebhooks("BAD_SECRET")),
        job("absent", signature=StandardWebhooks("NO_SUCH_SECRET")),
        job("twin", signature=Unsigned(), name="good"),
    ]
"""


def test_a_bad_secret_of_a_webhook_is_found_and_a_name_that_two_have(place: Any) -> None:
    place.write_job("webhooks", WEBHOOKS)
    place.environment |= {"GOOD_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "BAD_SECRET": "no*secret"}
    done = place.run("check", "--json")
    assert done.returncode == 2
    found = json.loads(done.stdout)
    told = problems(found)
    assert "the environment variable BAD_SECRET of the webhook of sync job 'bad' holds no secret" in told["bad"]
    assert "both named 'good'" in told["good"]
    assert "no*secret" not in done.stdout
    [absent] = [
        each["message"] for each in found["findings"] if each["subject"] == "absent" and "hook" in each["message"]
    ]
    assert absent == "the webhook 'absent' can't be checked here: NO_SUCH_SECRET is not set"
    assert place.run("check", "absent").returncode == 0


def test_a_function_that_takes_another_number_of_arguments_is_found(place: Any, document: Document) -> None:
    place.write_job(
        "stock", DECLARED.format(jobs="""SyncJob(**{**GIVEN, "name": "stock", "update": lambda item: 0})""")
    )

    assert "is called with two arguments, which it does not take" in problems(document("check", exit_code=2))["stock"]
