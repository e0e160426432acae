"""The stage for the tests of the UI: a real ERP, a real `dagster dev`, a history of runs, and Chromium to look."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from demo.child import clean_environment
from demo.dagster_server import RunningDagster
from demo.erp import Changes, RunningErp, change, free_port
from demo.shop import create_tables
from sync_pipelines import Settings, trigger_item, trigger_sync
from sync_pipelines.sources.tryton import StockLevel
from sync_pipelines_tests.end_to_end.conftest import seeded

__all__ = ["seeded"]

REPOSITORY = Path(__file__).parents[2]
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# No GPU, no first-run pages, no traffic of its own; as root, as in a container, its sandbox does not start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DRAINS = '{ runsOrError(filter: {pipelineName: "erp_inventory_items"}) { ... on Runs { results { runId } } } }'
PATIENCE_S = 30.0
LOOK_EVERY_MS = 200


@dataclass(frozen=True)
class History:
    """What has happened before anybody looks.

    Args:
        url: Where the UI answers.
        erp_url: Where the ERP answers.
        changes: What was changed in the ERP before the second runs.
        updated: The Dagster run of erp-products after the changes.
        drained: The Dagster run that applied a single item, which failed.
        broken: The Dagster run of erp-products while the ERP was down.
    """

    url: str
    erp_url: str
    changes: Changes
    updated: str
    drained: str
    broken: str


class Reader:
    """A person in front of the browser, who reads what the page shows.

    Args:
        page: A fresh page.
        url: Where the UI answers.
        pictures: Folder for a picture of each page that was read.
    """

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self.page = page
        self._url = url
        self._pictures = pictures

    def opens(self, path: str, name: str, *texts: str) -> str:
        """Opens a page and waits until it shows all of the texts; gives everything it shows, as one line."""
        self.page.goto(self._url + path)
        return self.sees(name, *texts)

    def sees(self, name: str, *texts: str) -> str:
        """Waits until the page shows all of the texts, and takes a picture of it."""
        until = time.monotonic() + PATIENCE_S
        while True:
            shown = " ".join(self.page.inner_text("body").split())
            missing = [text for text in texts if text not in shown]
            if not missing or time.monotonic() > until:
                break
            self.page.wait_for_timeout(LOOK_EVERY_MS)
        if not missing:
            self.page.wait_for_timeout(2 * LOOK_EVERY_MS)  # for the picture: what moves comes to rest
        picture = self._pictures / f"{name}.png"
        self.page.screenshot(path=picture)
        assert not missing, f"{self.page.url} does not show {missing} (picture: {picture}); it shows: {shown}"
        return shown


@pytest.fixture(scope="session")
def chromium() -> Iterator[BrowserContext]:
    """Chromium, as the system has it. Pages share it, so that they need not load the UI's code anew."""
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.fail("Chromium is missing: install Debian's package `chromium` (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser.new_context()
        browser.close()


@pytest.fixture(scope="session")
def history(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Creates, updates, an item that fails and a fetch that breaks off, seen by a Dagster that still runs."""
    home = tmp_path_factory.mktemp("seen")
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, home)
    shutil.copytree(seeded, home / "erp")
    port = free_port()
    settings = Settings(data_dir=home / ".sync_pipelines", dagster_url=f"http://127.0.0.1:{port}")
    create_tables(settings.local_url())
    with RunningErp(home / "erp") as erp:
        own = {**erp.environment(), "SYNC_PIPELINES_DATA_DIR": str(settings.data_dir)}
        environment = clean_environment(REPOSITORY, own)
        with RunningDagster(home, port, environment, home / "dagster.log") as dagster:
            dagster.wait_until_it_answers()
            yield _make_history(erp, dagster, settings)


def _make_history(erp: RunningErp, dagster: RunningDagster, settings: Settings) -> History:
    def run(*names: str) -> list[tuple[str, str]]:
        """Runs syncs side by side."""
        run_ids = [trigger_sync(name, settings=settings) for name in names]
        return [(run_id, dagster.wait_for_run(run_id)) for run_id in run_ids]

    first = run("erp-products", "erp-inventory")
    changes = change(erp)
    second = run("erp-products", "erp-inventory")
    assert {status for _, status in (*first, *second)} == {"SUCCESS"}
    # the ERP never says such a thing, but a webhook may
    item = StockLevel(sku="BROKEN", warehouse="NORD", quantity=None, unit="u", product_id=1)  # type: ignore[arg-type]
    trigger_item("erp-inventory", item, settings=settings)
    erp.stop()
    ((broken, status),) = run("erp-products")
    assert status == "FAILURE"
    return History(dagster.url, erp.url, changes, second[0][0], _first_drain(dagster), broken)


def _first_drain(dagster: RunningDagster) -> str:
    until = time.monotonic() + 60
    while not (found := dagster.ask(DRAINS)["runsOrError"]["results"]):
        assert time.monotonic() < until, "the sensor has started no run for the item that waits"
        time.sleep(LOOK_EVERY_MS / 1000)
    run_id = str(found[0]["runId"])
    assert dagster.wait_for_run(run_id) == "SUCCESS"
    return run_id


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of this session go."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def reader(chromium: BrowserContext, history: History, pictures: Path) -> Iterator[Reader]:
    """Somebody who has never used this UI before: with no filters or settings kept from earlier."""
    page = chromium.new_page()
    page.set_viewport_size({"width": 1300, "height": 850})
    try:
        yield Reader(page, history.url, pictures)
    finally:
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.close()
