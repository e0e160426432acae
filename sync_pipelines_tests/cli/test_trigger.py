"""`trigger`: a run on Dagster's queue, through its web server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
RUN_ID = "0f7c1f5e-1111-4222-8333-444455556666"
NODE = {"name": "__repository__", "location": {"name": "shop"}, "pipelines": [{"name": "erp_stock"}]}


class DagsterStandIn(BaseHTTPRequestHandler):
    """Answers the two questions that a trigger asks of Dagster."""

    asked: ClassVar[list[Any]] = []
    nodes: ClassVar[list[Any]] = [NODE]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body.get("variables"))
        if "launchPipelineExecution" in body["query"]:
            run = {"runId": RUN_ID}
            data: Any = {"launchPipelineExecution": {"__typename": "LaunchRunSuccess", "run": run}}
        else:
            data = {"repositoriesOrError": {"__typename": "RepositoryConnection", "nodes": self.nodes}}
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def dagster_url(monkeypatch: Any, invoke: Invoke) -> Iterator[str]:
    """The address of a stand-in for Dagster's web server, set."""
    DagsterStandIn.asked.clear()
    with HTTPServer(("127.0.0.1", 0), DagsterStandIn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("SYNC_PIPELINES_DAGSTER_URL", url)
        yield url
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("dagster_url")
def test_the_run_id_is_all_that_is_printed(invoke: Invoke) -> None:
    result = invoke("trigger", "erp-stock")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{RUN_ID}\n", "")
    assert DagsterStandIn.asked[-1]["executionParams"]["selector"]["pipelineName"] == "erp_stock"


@pytest.mark.usefixtures("dagster_url")
def test_the_document_has_the_run_id(document: Callable[..., Any]) -> None:
    assert document("trigger", "erp-stock") == {"job": "erp-stock", "dagster_run_id": RUN_ID}


@pytest.mark.usefixtures("dagster_url")
def test_a_job_that_dagster_lacks_ends_with_2(invoke: Invoke) -> None:
    result = invoke("trigger", "erp-stok")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has no sync 'erp-stok'" in result.stderr


def test_a_dagster_that_does_not_answer_ends_with_1(place: Any) -> None:
    place.environment["SYNC_PIPELINES_DAGSTER_URL"] = "http://127.0.0.1:1"
    done = place.run("trigger", "erp-stock")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Dagster at http://127.0.0.1:1 does not answer; start it, or set SYNC_PIPELINES_")


OTHER = {**NODE, "location": {"name": "warehouse"}}


@pytest.fixture
def in_two_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two code locations have the sync."""
    monkeypatch.setattr(DagsterStandIn, "nodes", [NODE, OTHER])


@pytest.mark.usefixtures("dagster_url", "in_two_locations")
def test_a_sync_of_two_code_locations_is_said_to_be_there_twice_and_how_to_choose(invoke: Invoke) -> None:
    result = invoke("trigger", "erp-stock")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "has the sync 'erp-stock' in 2 code locations, shop, warehouse; " in result.stderr
    assert (
        "--location shop, or trigger_sync('erp-stock', location='shop'), or SYNC_PIPELINES_DAGSTER_LOCATION=shop"
        in (result.stderr)
    )


@pytest.mark.usefixtures("dagster_url", "in_two_locations")
@pytest.mark.parametrize("location", ["warehouse", "__repository__@warehouse"])
def test_the_code_location_that_is_named_gets_the_run(invoke: Invoke, location: str) -> None:
    result = invoke("trigger", "erp-stock", "--location", location)

    assert (result.exit_code, result.stdout) == (0, f"{RUN_ID}\n")
    selector = DagsterStandIn.asked[-1]["executionParams"]["selector"]
    assert (selector["repositoryLocationName"], selector["repositoryName"]) == ("warehouse", "__repository__")


@pytest.mark.usefixtures("dagster_url", "in_two_locations")
def test_a_code_location_without_the_sync_is_refused_and_those_with_it_are_named(invoke: Invoke) -> None:
    result = invoke("trigger", "erp-stock", "--location", "office")

    assert result.exit_code == 2
    assert "the code location 'office' of Dagster at" in result.stderr
    assert "has no sync 'erp-stock'; there it is in shop, warehouse" in result.stderr


@pytest.mark.usefixtures("dagster_url", "in_two_locations")
def test_the_setting_names_the_code_location_where_the_option_does_not(invoke: Invoke, monkeypatch: Any) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_DAGSTER_LOCATION", "warehouse")

    assert invoke("trigger", "erp-stock").exit_code == 0
    assert invoke("trigger", "erp-stock", "--location", "shop").exit_code == 0

    selectors = [asked["executionParams"]["selector"] for asked in DagsterStandIn.asked if asked]
    assert [each["repositoryLocationName"] for each in selectors] == ["warehouse", "shop"]


@pytest.mark.usefixtures("dagster_url")
def test_a_setting_that_names_a_code_location_without_the_sync_is_named(invoke: Invoke, monkeypatch: Any) -> None:
    """Also if only one has it: on a machine that is set to the one, nobody means the other."""
    monkeypatch.setenv("SYNC_PIPELINES_DAGSTER_LOCATION", "office")

    result = invoke("trigger", "erp-stock")

    assert result.exit_code == 2
    assert "SYNC_PIPELINES_DAGSTER_LOCATION: the code location 'office' of Dagster at" in result.stderr
    assert "has no sync 'erp-stock'; there it is in shop" in result.stderr
