"""Resources of the real dlt as sources."""

import json
import os
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import pandas as pd
import pyarrow as pa
import pytest
from dlt.extract.exceptions import ResourceExtractionError
from pydantic import BaseModel

from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.completeness import source_ends
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.sources.dlt import dlt_resource
from sync_pipelines_tests.children import run_child

closed: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_closed():
    closed.clear()


@dlt.resource
def numbers(count: int = 5):
    try:
        for number in range(count):
            yield {"sku": number}
    finally:
        closed.append("numbers")


@dlt.resource
def paged():
    yield [{"sku": 0}, {"sku": 1}, {"sku": 2}]
    yield None
    yield []
    yield ({"sku": 3})
    yield [{"sku": 4}]


@dlt.resource
async def awaited():
    try:
        for number in range(5):
            yield {"sku": number}
    finally:
        closed.append("awaited")


@dlt.resource
def deferred():
    @dlt.defer
    def one(number: int) -> dict[str, int]:
        return {"sku": number}

    for number in range(5):
        yield one(number)


@dlt.transformer(data_from=numbers)
def transformed(item):
    yield {**item, "double": item["sku"] * 2}


@dlt.resource
def incremental(sku=dlt.sources.incremental("sku", initial_value=2)):  # noqa: B008 - that is how dlt is told
    yield [{"sku": number} for number in range(5)]


@dlt.resource
def arrow():
    yield pa.table({"sku": list(range(5)), "at": [datetime(2026, 1, 2, tzinfo=UTC)] * 5})


@dlt.resource
def frames():
    yield pd.DataFrame({"sku": range(3)})
    yield pd.DataFrame({"sku": [3, 4]})


class Product(BaseModel):
    sku: int


@dlt.resource
def models():
    for number in range(5):
        yield Product(sku=number)


@dlt.resource(standalone=True)
def parametrized(count):
    yield from ({"sku": number} for number in range(count))


@dlt.source
def shop():
    return [numbers, awaited]


def skus(given: Any) -> list[int]:
    return sorted(item["sku"] for page in dlt_resource(given)() for item in page)


@pytest.mark.parametrize(
    "given",
    [
        numbers,
        paged,
        awaited,
        deferred,
        transformed,
        arrow,
        frames,
        models,
        lambda: numbers,
        lambda: numbers(5),
        lambda: parametrized(5),
        parametrized(5),
        lambda: dlt.resource(({"sku": number} for number in range(5)), name="generated"),
        lambda: shop().with_resources("numbers"),
        shop().with_resources("awaited"),
    ],
)
def test_every_kind_of_resource_gives_its_items_at_every_fetch(given):
    assert skus(given) == skus(given) == [0, 1, 2, 3, 4]


def test_transformer_gives_what_it_makes():
    assert [page[1] for page in dlt_resource(transformed)()] == [{"sku": 1, "double": 2}]


def test_incremental_resource_starts_at_its_initial_value_each_time():
    assert skus(incremental) == skus(incremental) == [2, 3, 4]


def test_items_come_in_pages_of_the_asked_size():
    for given in (numbers, paged, awaited, arrow):
        assert [len(page) for page in dlt_resource(given, page_size=2)()] == [2, 2, 1]


def test_items_keep_their_types():
    (item, *_), *_ = dlt_resource(arrow)()
    assert item == {"sku": 0, "at": datetime(2026, 1, 2, tzinfo=UTC)}
    assert decode(encode(item)) == item


def test_element_that_is_no_dict_fails_alone():
    good, bad, also_good = next(dlt_resource(dlt.resource([{"sku": 1}, 7, {"sku": 3}], name="mixed"))())
    assert (good, also_good) == ({"sku": 1}, {"sku": 3})
    with pytest.raises(ItemError, match="item 2 of the dlt resource is a int, not a dict"):
        encode(bad)


@dlt.resource
def endless():
    try:
        for number in range(10**9):
            yield {"sku": number}
    finally:
        closed.append("endless")


@dlt.resource
async def endless_awaited():
    try:
        for number in range(10**9):
            yield {"sku": number}
    finally:
        closed.append("endless")


@dlt.transformer(data_from=endless)
def endless_transformed(item):
    yield item


@pytest.mark.parametrize("given", [endless, endless_awaited, endless_transformed])
def test_resource_is_closed_when_a_fetch_is_broken_off(given):
    """Also its thread and its event loop; dlt itself would leave them to the end of the process."""
    before = threading.active_count()
    with closing(dlt_resource(given, page_size=1)()) as pages:
        next(pages)
        assert closed == []
    assert closed == ["endless"]
    assert threading.active_count() == before


def test_resource_itself_is_not_changed():
    with closing(dlt_resource(numbers, page_size=1)()) as pages:
        next(pages)
    assert len(list(numbers)) == 5


def test_error_of_the_resource_comes_with_its_own_words():
    @dlt.resource
    def broken():
        yield {"sku": 1}
        raise ValueError("the shop is closed")

    with pytest.raises(ResourceExtractionError, match="the shop is closed") as caught:
        skus(broken)
    assert isinstance(caught.value.__cause__, ValueError)


def test_generator_that_was_read_already_is_an_error_and_no_empty_source():
    """Without this the second run would find an empty shop."""
    once = dlt.resource(({"sku": number} for number in range(3)), name="once")
    fetch = dlt_resource(once)
    assert skus(once) == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="give the function that makes it"):
        next(fetch())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (parametrized, r"parametrized and expects following arguments: `\(count\)`"),
        (shop, r"2 resources of the dlt source 'shop' are selected \(numbers, awaited\); choose one"),
        (lambda: shop().with_resources(), r"0 resources .* \(none\)"),
        (lambda: 7, "a int where a dlt resource or source belongs"),
        (lambda: [{"sku": 1}], "a list where a dlt resource or source belongs"),
    ],
)
def test_mistake_is_said_when_a_sync_fetches(given, said):
    with pytest.raises(ConfigurationError, match=said):
        skus(given)


def test_setting_that_dlt_misses_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @dlt.resource
    def guarded(api_key: str = dlt.secrets.value):
        yield {"sku": api_key}

    with pytest.raises(ConfigurationError, match="api_key"):
        skus(guarded)


def test_option_that_is_not_valid_is_said_at_once():
    with pytest.raises(ConfigurationError, match="got a int"):
        dlt_resource(7)
    with pytest.raises(ConfigurationError, match="page_size"):
        dlt_resource(numbers, page_size=0)


def test_dlt_serves_a_sync(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path))
    made: list[Any] = []
    job: SyncJob[Any, Any] = SyncJob(
        name="dlt-shop",
        fetch_external=dlt_resource(awaited),
        get_external_id=lambda item: str(item["sku"]),
        find_local=lambda _: None,
        create=made.append,
        update=lambda _item, _local: None,
    )
    assert run_sync(job).created == len(made) == 5


IN_ANOTHER_PROCESS = """
import json, socket, sys
def refuse(*args): raise SystemExit(f"connects to {args}")
socket.socket.connect = socket.getaddrinfo = refuse
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and "w" in str(args[1]) else None)
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "os.mkdir" else None)
from sync_pipelines.sources.dlt import dlt_resource
fetch = dlt_resource(lambda: make())
assert not any(name.partition(".")[0] == "dlt" for name in sys.modules)
import dlt
@dlt.resource
def make():
    yield {"sku": 1}
assert list(fetch()) == [[{"sku": 1}]]
print(json.dumps(opened))
"""


def test_dlt_tells_nobody_and_writes_nothing(tmp_path):
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "DLT_DATA_DIR": str(tmp_path / "data"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    root = Path(__file__).parents[2]
    done = run_child(
        [sys.executable, "-W", "error", "-c", IN_ANOTHER_PROCESS],
        env={**environment, "PYTHONPATH": str(root)},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in json.loads(done.stdout) if name != os.devnull] == []
    assert list(tmp_path.iterdir()) == []


def test_missing_dlt_is_said_with_what_to_install(monkeypatch):
    fetch = dlt_resource(lambda: None)
    monkeypatch.setitem(sys.modules, "dlt", None)
    with pytest.raises(ConfigurationError, match=r"pip install sync-pipelines\[dlt\]"):
        next(fetch())


def test_resource_that_is_limited_is_not_complete():
    for resource, doubts in ((numbers(3), 0), (numbers(3).add_limit(2), 1)):
        with source_ends() as ends:
            assert len(next(dlt_resource(lambda resource=resource: resource, page_size=9)())) > 1
            list(dlt_resource(lambda resource=resource: resource)())
        assert len([each for each in ends.completeness(took_all=True).doubts if "add_limit" in each]) == doubts
