"""Everything in one PostgreSQL: a real ERP, and Dagster as `deploy/` starts it, by its units' own commands."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from string import Template
from typing import Any, Self

import httpx
import psutil
import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import make_url

from demo.child import clean_environment, own_signals
from demo.dagster_server import RunningDagster
from demo.erp import RunningErp, free_port
from demo.shop import create_tables
from sync_pipelines import ConfigurationError, Settings, SyncResults, trigger_sync
from sync_pipelines.database.connections import create_database
from sync_pipelines.orchestration.storage import dagster_database_url
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.results import results_of_run
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
UNITS = ("sync-pipelines-code", "sync-pipelines-webserver", "sync-pipelines-daemon")
STORAGE = "import dagster; dagster.DagsterInstance.get()"
PASSWORD = "not-asked-for-on-this-socket"


def command_of_unit(name: str, environment: Mapping[str, str]) -> list[str]:
    """The unit's command line, as systemd fills it in from the environment."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.read(DEPLOY / "systemd" / f"{name}.service")
    return [Template(word).substitute(environment) for word in shlex.split(unit["Service"]["ExecStart"])]


class Deployed(RunningDagster):
    """The three units on free ports of this machine, in a folder that takes the place of /opt and /var/lib."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.code_port = free_port()
        port = free_port()
        own = {"CODE_SERVER_HOST": "127.0.0.1", "CODE_SERVER_PORT": str(self.code_port)}
        super().__init__(home, port, {**environment, **own}, home / "webserver.log")
        self.environment = self._environment
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for name in UNITS:
            process = self._start(name)
            self._stack.callback(stop, process)
            self.processes[name] = process
        self._process = self.processes["sync-pipelines-webserver"]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def check(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs one of Dagster's commands as a health check would."""
        program, *rest = command
        return run_child([str(Path(sys.executable).with_name(program)), *rest], cwd=self._folder, env=self.environment)

    def _problem(self) -> str | None:
        """All three start at once, as after a power cut: the webserver finds the code server as soon as it is there."""
        problem = super()._problem()
        return None if problem and "DagsterUserCodeUnreachableError" in problem else problem

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        program, *words = command_of_unit(name, self.environment)
        # what a person adapts: the folder, and the port that nothing else has here
        words = [str(self._port) if word == "3000" else word for word in words]
        words = [word.replace("/opt/sync-pipelines", str(self._folder)) for word in words]
        with (self._folder / f"{name.rpartition('-')[2]}.log").open("wb") as log:
            return subprocess.Popen(
                [str(Path(sys.executable).with_name(Path(program).name)), *words],
                cwd=self._folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=own_signals,  # noqa: PLW1509 - nothing here has threads that hold locks yet
            )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it started, as a unit's stop does."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=20)
    for each in alive:
        each.kill()
    process.wait()


def command_lines(pid: int) -> Iterator[str]:
    """What `ps` shows of a process and its children; one that ends meanwhile shows nothing."""
    for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            yield " ".join(each.cmdline())


@dataclass
class Stage:
    """Everything that runs."""

    erp: RunningErp
    dagster: Deployed
    settings: Settings
    database: Engine
    home: Path

    def run(self, name: str) -> tuple[str, SyncResults]:
        """Runs a sync through the run queue."""
        run_id = trigger_sync(name, settings=self.settings)
        assert self.dagster.wait_for_run(run_id) == "SUCCESS"
        with open_workspace(self.settings) as workspace:
            row = workspace.ledger.run_of_dagster(run_id)
            assert row is not None
            return run_id, results_of_run(workspace, row.id)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def event_types(self, run_id: str) -> set[str]:
        """What the run's page in the UI shows."""
        query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {
            events { __typename } } } }"""
        answer = self.dagster.ask(query, {"id": run_id})["logsForRun"]
        return {event["__typename"] for event in answer["events"]}


@pytest.fixture(scope="module")
def one_url(postgres_admin: Engine) -> Iterator[str]:
    """The URL of a database for this file, with a password that must show up nowhere."""
    name = f"deployed_{os.getpid()}"
    with postgres_admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    url = postgres_admin.url.set(drivername="postgresql", database=name, password=PASSWORD)
    yield url.render_as_string(hide_password=False)
    with postgres_admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def stage(seeded: Path, one_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("deployed")
    dagster_home = home / "dagster"
    dagster_home.mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", dagster_home)
    shutil.copy(DEPLOY / "workspace.yaml", home)
    shutil.copytree(seeded, home / "erp")
    create_tables(one_url)
    database = create_database(one_url)
    with RunningErp(home / "erp") as erp:
        own = {
            "SYNC_PIPELINES_DATABASE_URL": one_url,
            "SYNC_PIPELINES_DATA_DIR": str(home / "data"),
            "DAGSTER_HOME": str(dagster_home),
        }
        environment = clean_environment(REPOSITORY, {**erp.environment(), **own})
        with Deployed(home, environment) as dagster:
            dagster.wait_until_it_answers()
            settings = Settings(database_url=SecretStr(one_url), data_dir=home / "data", dagster_url=dagster.url)
            yield Stage(erp, dagster, settings, database, home)
    database.dispose()


@pytest.mark.soak
def test_both_syncs_equal_the_erp_and_a_second_run_changes_nothing(stage: Stage) -> None:
    stage.run("erp-products")
    stage.run("erp-inventory")

    products = {
        (item.sku, item.name, None if item.price is None else round(item.price, 2), item.active)
        for page in stage.erp.client().products()
        for item in page
    }
    stock = {(i.sku, i.warehouse, Decimal(i.quantity)) for page in stage.erp.client().inventory() for i in page}
    assert len(products) >= 200
    assert len({warehouse for _, warehouse, _ in stock}) == 2
    assert set(stage.rows("SELECT sku, name, price, active FROM products")) == products
    assert set(stage.rows("SELECT sku, warehouse, quantity FROM stock_levels")) == stock

    for name in ("erp-products", "erp-inventory"):
        _, again = stage.run(name)
        assert (again.created, again.updated, again.error_count) == (0, 0, 0)
        assert again.unchanged == again.fetched > 0


@pytest.mark.soak
def test_the_events_of_a_run_arrive(stage: Stage) -> None:
    """With psycopg 3 in Dagster's storage everything starts, and the first event of a run fails."""
    run_id, results = stage.run("erp-products")

    assert {"RunStartEvent", "MaterializationEvent", "AssetCheckEvaluationEvent", "RunSuccessEvent"} <= (
        stage.event_types(run_id)
    )
    (stored,) = stage.rows(f"SELECT count(*) FROM public.event_logs WHERE run_id = '{run_id}'")
    assert stored[0] > 10
    assert results.outcome == "clean"


@pytest.mark.soak
def test_ledger_and_dagster_do_not_meet_in_one_schema(stage: Stage) -> None:
    stage.run("erp-inventory")
    tables = inspect(stage.database)

    assert {"runs", "event_logs", "job_ticks", "alembic_version"} <= set(tables.get_table_names("public"))
    assert {"runs", "inbox", "alembic_version"} <= set(tables.get_table_names("sync_pipelines"))
    versions = {
        schema: stage.rows(f"SELECT version_num FROM {schema}.alembic_version")
        for schema in ("public", "sync_pipelines")
    }
    assert len(versions["public"]) == len(versions["sync_pipelines"]) == 1
    assert versions["public"] != versions["sync_pipelines"]
    assert list(stage.home.rglob("*.sqlite")) == [stage.home / "erp" / "erp" / "erp.sqlite"]
    assert list(stage.home.rglob("*.db")) == []


@pytest.mark.soak
def test_the_health_checks_of_the_how_to_say_yes_while_it_runs_and_no_when_it_does_not(stage: Stage) -> None:
    assert httpx.get(f"{stage.dagster.url}/server_info", trust_env=False).status_code == 200
    assert (
        stage.dagster.check("dagster", "api", "grpc-health-check", "--port", f"{stage.dagster.code_port}").returncode
        == 0
    )
    until = time.monotonic() + 60
    while (alive := stage.dagster.check("dagster-daemon", "liveness-check")).returncode and time.monotonic() < until:
        time.sleep(1)
    assert alive.returncode == 0, alive.stderr

    down = stage.dagster.check("dagster", "api", "grpc-health-check", "--port", str(free_port()))
    assert down.returncode != 0


@pytest.mark.soak
def test_the_password_is_in_no_file_no_log_and_no_command_line(stage: Stage) -> None:
    """Each process takes the URL from its environment; Dagster hands none on."""
    stage.run("erp-products")

    commands = [told for each in stage.dagster.processes.values() for told in command_lines(each.pid)]
    assert len(commands) >= 3
    assert [told for told in commands if PASSWORD in told] == []
    files = [path for path in stage.home.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    for table in ("runs", "event_logs", "instance_info", "kvs", "snapshots"):
        assert stage.rows(f"SELECT 1 FROM public.{table} t WHERE t::text LIKE '%{PASSWORD}%'") == []


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://me:secret@/shop?host=/run/pg",
        "postgres://me:secret@/shop?host=/run/pg",
        "postgresql+psycopg://me:secret@/shop?host=/run/pg",
        "postgresql+psycopg2://me:secret@/shop?host=/run/pg",
    ],
)
def test_whatever_driver_the_one_url_names_dagster_gets_its_own(given: str) -> None:
    found = make_url(dagster_database_url(Settings(database_url=SecretStr(given))))

    assert found == make_url("postgresql+psycopg2://me:secret@/shop?host=/run/pg")


def test_dagster_goes_where_the_ledger_is() -> None:
    settings = Settings(
        database_url=SecretStr("sqlite:///shop.sqlite"), ledger_url=SecretStr("postgresql://me@db/ledger")
    )

    assert dagster_database_url(settings) == "postgresql+psycopg2://me@db/ledger"


def test_the_instance_file_without_a_postgresql_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """One unit without the variable must not start on a database of its own."""
    with pytest.raises(ConfigurationError, match="SYNC_PIPELINES_DATABASE_URL=postgresql://"):
        dagster_database_url(Settings(data_dir=tmp_path))

    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    environment = clean_environment(REPOSITORY, {"DAGSTER_HOME": str(tmp_path)})
    environment.pop("SYNC_PIPELINES_DATABASE_URL", None)
    refused = run_child([sys.executable, "-c", STORAGE], cwd=tmp_path, env=environment)

    assert refused.returncode == 1
    assert "set SYNC_PIPELINES_DATABASE_URL=postgresql://user:password@host/name" in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"dagster.yaml"}


def test_a_second_url_in_the_instance_file_is_refused(tmp_path: Path) -> None:
    instance = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    instance["storage"]["custom"]["config"] = {"postgres_url": "postgresql://elsewhere/other"}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance), encoding="utf-8")
    environment = clean_environment(
        REPOSITORY, {"DAGSTER_HOME": str(tmp_path), "SYNC_PIPELINES_DATABASE_URL": "postgresql://nowhere.invalid/x"}
    )

    refused = run_child([sys.executable, "-c", STORAGE], cwd=tmp_path, env=environment)

    assert refused.returncode == 1
    assert "postgres_url" in refused.stderr


def test_compose_starts_what_the_units_start() -> None:
    """Compose was not run; its commands, apart from hosts, are those that the tests above ran."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    environment = {"CODE_SERVER_HOST": "127.0.0.1", "CODE_SERVER_PORT": "4000"}

    for unit in UNITS:
        program, *words = command_of_unit(unit, environment)
        expected = [Path(program).name, *("0.0.0.0" if word == "127.0.0.1" else word for word in words)]
        assert services[unit.rpartition("-")[2]]["command"] == expected


def test_every_unit_and_service_takes_its_settings_from_one_place() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    own = [services[name] for name in ("code", "webserver", "daemon")]
    assert all(each["environment"] == own[0]["environment"] for each in own)
    assert all(each["volumes"] == own[0]["volumes"] for each in own)

    for unit in UNITS:
        lines = (DEPLOY / "systemd" / f"{unit}.service").read_text(encoding="utf-8").splitlines()
        assert "EnvironmentFile=/etc/sync-pipelines/sync-pipelines.env" in lines


def test_both_instance_files_agree_in_all_but_where_the_state_is() -> None:
    ours = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text(encoding="utf-8"))
    deployed = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    for place in ("storage", "local_artifact_storage", "compute_logs"):
        ours.pop(place)
        deployed.pop(place, None)

    assert deployed == ours
