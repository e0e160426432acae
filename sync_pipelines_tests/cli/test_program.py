"""What holds for every command: light start, exit codes, one clear line for an error, stdout for the result alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

COMMANDS = ["list", "check", "run", "item", "trigger", "new", "runs", "show"]
LOADED = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("LOADED " + " ".join(m for m in {names} if m in sys.modules) + "\\n"))
"""
MANY_COMMANDS = """
import sys
from typer.testing import CliRunner
from sync_pipelines.cli.app import app

for arguments in {commands}:
    result = CliRunner().invoke(app, arguments)
    print(result.exit_code, *[name for name in ("dagster", "dagster_graphql", "sqlalchemy") if name in sys.modules])
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(place: Any, arguments: list[str]) -> None:
    heavy = ("dagster", "sqlalchemy", "pandas", "pyarrow", "rich", "typer")
    (place.root / "sitecustomize.py").write_text(LOADED.format(names=heavy))
    place.environment["PYTHONPATH"] = os.pathsep.join([str(place.root), str(place.repository)])
    done = place.run(*arguments)
    assert done.stdout.startswith("Usage: sync-pipelines ")
    assert done.stderr.splitlines() == ["LOADED typer"]


def test_only_check_and_trigger_import_dagster(place: Any) -> None:
    place.write_stock_job()
    commands = [
        ["list"],
        ["run", "stock"],
        ["item", "stock", '{"sku": "B", "quantity": 1}'],
        ["new", "crm-customers", "--table", "variants"],
        ["runs"],
        ["show", "none"],
        ["check"],
        ["trigger", "stock"],
    ]
    place.environment["SYNC_PIPELINES_DAGSTER_URL"] = "http://127.0.0.1:1"
    program = place.root / "commands.py"
    program.write_text(MANY_COMMANDS.format(commands=commands))
    with place.start(program=[str(program)]) as process:
        stdout, _ = process.finish()
    light = "sqlalchemy"
    assert stdout.splitlines() == [
        *(f"0 {light}" for _ in range(5)),
        f"2 {light}",
        f"0 dagster {light}",  # it builds what Dagster would load
        "1 dagster dagster_graphql sqlalchemy",
    ]


def test_the_help_names_every_command_and_the_exit_codes(invoke: Callable[..., Result]) -> None:
    shown = invoke("--help").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in shown
    assert "0 clean; 1 partial or failed; 2 usage or configuration; 3" in " ".join(shown.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_json_and_debug(invoke: Callable[..., Result], command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "--debug" in result.stdout


def test_the_version_is_shown(invoke: Callable[..., Result]) -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "sync-pipelines")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["run"],
        ["run", "stock", "--limit", "0"],
        ["run", "stock", "--limt", "1"],
        ["runs", "--limit", "x"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(invoke: Callable[..., Result], arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "\nError: " in result.stderr


@pytest.mark.parametrize(("given", "told"), [("soon", "parse string as a number"), ("-1", "than 0; it is '-1'")])
def test_a_wrong_setting_ends_with_2_and_one_line(place: Any, given: str, told: str) -> None:
    place.environment["SYNC_PIPELINES_KEEP_SNAPSHOTS_DAYS"] = given
    done = place.run("list")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the environment variable SYNC_PIPELINES_KEEP_SNAPSHOTS_DAYS is wrong")
    assert line.endswith(told)


@pytest.mark.parametrize("arguments", [["run", "nope"], ["apply", "nope"], ["plan", "show", "nope"], ["show", "nope"]])
def test_an_error_is_a_json_document_too_for_whoever_asked_for_json(
    invoke: Callable[..., Result], arguments: list[str]
) -> None:
    result = invoke(*arguments, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["exit_code"]) == (2, 2)
    assert "'nope'" in document["error"]
    assert result.stderr == f"error: {document['error']}\n"


def test_an_unexpected_error_is_one_line_with_a_hint(invoke: Callable[..., Result], monkeypatch: Any) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of cheese\nat postgresql://shop:geheim@db/shop")

    monkeypatch.setattr("sync_pipelines.cli.list_jobs.list_jobs", broken)
    result = invoke("list")
    assert (result.exit_code, result.stdout) == (1, "")
    told = "error: RuntimeError: out of cheese at postgresql://shop:***@db/shop"
    assert result.stderr == f"{told} (unexpected; --debug shows where it comes from)\n"


@pytest.mark.parametrize("arguments", [["--debug", "list"], ["list", "--debug"]])
def test_debug_shows_the_traceback_without_secrets(
    invoke: Callable[..., Result], monkeypatch: Any, arguments: list[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("lost postgresql://shop:geheim@db/shop")

    monkeypatch.setattr("sync_pipelines.cli.list_jobs.list_jobs", broken)
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "in broken" in result.stderr
    assert "geheim" not in result.output
    assert result.stderr.splitlines()[-1] == "error: RuntimeError: lost postgresql://shop:***@db/shop"


def test_what_a_job_prints_goes_to_stderr(place: Any) -> None:
    place.write_job("noisy", "print('imported')")
    place.write_stock_job()
    done = place.run("run", "stock", "--json")
    assert json.loads(done.stdout)["outcome"] == "clean"
    assert "imported" in done.stderr
    assert "the job prints this" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(place: Any, unbuffered: str) -> None:
    place.write_stock_job()
    place.environment["PYTHONUNBUFFERED"] = unbuffered
    with place.start("list") as process:
        process.stdout.close()
        process.stdout = None
        _, stderr = process.finish()
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr


def test_a_terminal_without_the_letters_shows_escapes(place: Any) -> None:
    place.write_stock_job()
    place.environment["PYTHONIOENCODING"] = "ascii"
    done = place.run("item", "stock", json.dumps({"sku": "Größe", "quantity": 1}))
    assert (done.returncode, done.stdout) == (0, "created Gr\\xf6\\xdfe\n")


def test_a_ledger_that_is_down_may_work_later_and_has_an_exit_code_of_its_own(
    document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_LEDGER_URL", "postgresql://me:hunter22@127.0.0.1:1/nowhere")
    told = document("runs", exit_code=4)
    assert told["exit_code"] == 4
    assert "may work later" in told["error"]
    assert "hunter22" not in told["error"]
