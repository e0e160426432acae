"""JSON lines files as sources."""

import gzip
import json
import pickle
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.items import read_field
from sync_pipelines.engine.json_text import parse_json
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError
from sync_pipelines.runner.run_sync import run_sync
from sync_pipelines.sources import json_lines as module
from sync_pipelines.sources.json_lines import json_lines
from sync_pipelines.targets.sql_table import SqlTable

Write = Callable[..., Path]


def items(fetch: Callable[[], Any]) -> list[dict[str, Any]]:
    return [item for page in fetch() for item in page]


def complaint(item: Any) -> str:
    """What a run would say about an item that could not be read."""
    with pytest.raises(ItemError) as caught:
        read_field(item, "sku")
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes | str, name: str = "stock.jsonl") -> Path:
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.mark.parametrize("name", ["stock.jsonl", "stock.jsonl.gz"])
def test_each_line_is_an_item_and_blank_lines_are_none(write, name):
    path = write('{"sku": "007", "name": "Größe \\u20ac"}\r\n\n   \n\t{"sku": "8", "more": {"a": [1, null]}}  ', name)
    assert items(json_lines(path)) == [
        {"sku": "007", "name": "Größe €"},
        {"sku": "8", "more": {"a": [1, None]}},
    ]


def test_decimals_keep_their_digits_unless_floats_are_asked_for(write):
    path = write('{"price": 10.10, "tiny": 1e-30, "stock": 123456789012345678901}')
    (item,) = items(json_lines(path))
    assert item == {"price": Decimal("10.10"), "tiny": Decimal("1E-30"), "stock": 123456789012345678901}
    assert str(item["price"]) == "10.10"
    assert type(items(json_lines(path, decimals=False))[0]["price"]) is float


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"sku": ', "Expecting value"),
        (b'{"sku": "1"} {"sku": "2"}', "Extra data"),
        (b"[1]", "a list where each line must be one JSON object"),
        (b"null", "a NoneType where"),
        (b'"text"', "a str where"),
        (b'{"sku": "1", "price": 1, "price": 2}', "an object has more than one 'price'"),
        (b'{"sku": "1", "deep": [{"a": 1, "a": 1}]}', "an object has more than one 'a'"),
        (b'{"price": NaN}', "NaN is no JSON number"),
        (b'{"price": -Infinity}', "-Infinity is no JSON number"),
        (b'{"price": 1e99999999999999999999}', "out of range"),
        (b'{"stock": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"a":' * 30_000, "nested too deeply"),
        (b'{"sku": "\xff"}', "not utf-8, give json_lines(encoding=...)"),
    ],
)
def test_bad_line_fails_alone_and_names_file_and_line(write, line, said):
    path = write(b'{"sku": "1"}\n\n' + line + b'\n{"sku": "4"}\n')
    good, bad, also_good = items(json_lines(path))
    assert (good, also_good) == ({"sku": "1"}, {"sku": "4"})
    assert complaint(bad).startswith(f"{path}, line 3: ")
    assert said in complaint(bad)


def test_bad_line_can_never_be_stored_however_a_job_looks_at_it(write):
    (bad,) = items(json_lines(write("oops")))
    for look in (
        encode,
        lambda item: item["sku"],
        lambda item: item.get("sku", "none"),
        dict,
        list,
        lambda item: {**item},
    ):
        with pytest.raises(ItemError, match="line 1: Expecting value"):
            look(bad)
    assert "line 1: Expecting value" in complaint(pickle.loads(pickle.dumps(bad)))
    assert "line 1" in repr(bad)


@pytest.mark.parametrize("key", ["field", "function", "key column"])
def test_bad_line_is_one_failed_item_of_a_sync_and_the_others_land(write, database, monkeypatch, tmp_path, key):
    monkeypatch.setenv("SYNC_PIPELINES_DATA_DIR", str(tmp_path / "data"))
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE stock (sku VARCHAR(9) PRIMARY KEY, quantity INTEGER)"))
    path = write('{"sku": "1", "quantity": 1}\noops\n{"sku": "3", "quantity": 3}\n')
    identify = {"field": "sku", "function": lambda item: item["sku"], "key column": None}[key]
    job: SyncJob[Any, Any] = SyncJob(
        name="stock",
        fetch_external=json_lines(path),
        get_external_id=identify,
        target=SqlTable(table="stock", key="sku", database=database),
    )
    results = run_sync(job)
    assert (results.created, results.error_count) == (2, 1)
    assert results.errors[0].message.startswith(f"{path}, line 2: Expecting value")


def test_line_that_is_too_long_fails_alone(write, monkeypatch):
    monkeypatch.setattr(module, "_LONGEST_LINE_BYTES", 20)
    fits, too_long = b'{"sku":"123456789"}\n', b'{"sku":"1234567890"}\n'
    path = write(fits + too_long + b'{"sku":"' + b"x" * 100 + b'"}\n' + fits)
    assert (len(fits), len(too_long)) == (20, 21)
    first, second, third, last = items(json_lines(path))
    assert first == last == {"sku": "123456789"}
    assert [complaint(item).partition(" is ")[0] for item in (second, third)] == [f"{path}, line 2", f"{path}, line 3"]


def test_byte_order_mark_at_the_beginning_is_left_out(write):
    path = write('{"sku": "1"}\n{"sku": "2"}'.encode("utf-8-sig"))
    assert items(json_lines(path)) == items(json_lines(path, encoding="utf-8-sig")) == [{"sku": "1"}, {"sku": "2"}]


def test_file_in_another_encoding_is_read_with_it(write):
    path = write('{"sku": "Größe €"}\n'.encode("cp1252"))
    assert items(json_lines(path, encoding="cp1252")) == [{"sku": "Größe €"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "nonsense", None])
def test_encoding_that_can_not_be_cut_into_lines_is_said_at_once(encoding):
    with pytest.raises(ConfigurationError, match=r"json_lines\(encoding="):
        json_lines("stock.jsonl", encoding=encoding)


@pytest.mark.parametrize("page_size", [0, -1, 1.5, True, "9"])
def test_page_size_must_be_a_positive_number(page_size):
    with pytest.raises(ConfigurationError, match="page_size"):
        json_lines("stock.jsonl", page_size=page_size)


def test_items_come_in_pages_of_the_asked_size(write):
    path = write("".join(f'{{"sku": {number}}}\n' for number in range(7)))
    assert [len(page) for page in json_lines(path, page_size=3)()] == [3, 3, 1]


@pytest.mark.parametrize("name", ["stock.jsonl", "stock.jsonl.gz"])
def test_missing_file_is_named_when_a_sync_fetches(tmp_path, name):
    fetch = json_lines(tmp_path / name)
    with pytest.raises(FetchError, match=rf"{name} does not exist"):
        items(fetch)
    with pytest.raises(FetchError, match="can't be read"):
        items(json_lines(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "plain", "garbled"])
def test_broken_gzip_ends_the_fetch_and_names_the_file(write, damage):
    path = write("".join(f'{{"sku": "{number * 7919}"}}\n' for number in range(9999)), "stock.jsonl.gz")
    data = path.read_bytes()
    middle = len(data) // 2
    broken = {
        "cut": data[:middle],
        "plain": b'{"sku": 1}',
        "garbled": data[:middle] + b"\xff" * 99 + data[middle + 99 :],
    }
    path.write_bytes(broken[damage])
    with pytest.raises(FetchError, match=r"stock\.jsonl\.gz can't be read"):
        items(json_lines(path))


def test_empty_file_has_no_items(write):
    assert items(json_lines(write(""))) == items(json_lines(write("", "empty.jsonl.gz"))) == []


def test_file_is_closed_when_a_fetch_is_broken_off(write):
    """An open file would warn when it is collected, and warnings are errors."""
    pages = json_lines(write('{"sku": 1}\n{"sku": 2}\n'), page_size=1)()
    next(pages)
    pages.close()
    assert list(pages) == []


def test_memory_does_not_grow_with_the_file(write):
    path = write("".join(f'{{"sku": "{number}", "name": "{"x" * 50}"}}\n' for number in range(60_000)), "big.jsonl.gz")
    tracemalloc.start()
    try:
        count = sum(len(page) for page in json_lines(path, page_size=500)())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 60_000
    assert peak < 2_000_000


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(written=st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5))
def test_whatever_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("lines") / "any.jsonl"
    lines = [encode_exactly(item) for item in written]
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    assert items(json_lines(path)) == written


def encode_exactly(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{encode_exactly(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode_exactly, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def test_last_of_equal_names_wins_where_nobody_minds():
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
