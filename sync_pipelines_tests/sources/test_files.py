"""CSV and Parquet files as sources."""

from __future__ import annotations

import codecs
import gzip
import pickle
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.completeness import source_ends
from sync_pipelines.errors import ConfigurationError, FetchError, ItemError
from sync_pipelines.sources.files import csv_file, parquet_file
from sync_pipelines.sources.json_lines import json_lines
from sync_pipelines_tests.children import run_child

Write = Callable[..., Path]


def items(fetch: Callable[[], Iterator[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    return [item for page in fetch() for item in page]


@pytest.fixture
def write_csv(tmp_path: Path) -> Write:
    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "stock.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.fixture
def write_parquet(tmp_path: Path) -> Write:
    def write(columns: Any, **options: Any) -> Path:
        path = tmp_path / "stock.parquet"
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, path, **options)
        return path

    return write


def test_csv_values_are_text_exactly_as_written(write_csv: Write) -> None:
    path = write_csv('sku,quantity,note\n007,1.50, x \nÄ-1,"",NULL\nnan,1e3,"a ""b"", c"\n')
    assert items(csv_file(path)) == [
        {"sku": "007", "quantity": "1.50", "note": " x "},
        {"sku": "Ä-1", "quantity": "", "note": "NULL"},
        {"sku": "nan", "quantity": "1e3", "note": 'a "b", c'},
    ]


def test_csv_values_may_hold_line_breaks_and_lines_may_end_in_any_way(write_csv: Write) -> None:
    path = write_csv('sku,note\r\n1,"a\nb"\r\n\r\n2,"c\r\nd"\n\n3,e')
    assert [item["note"] for item in items(csv_file(path))] == ["a\nb", "c\r\nd", "e"]


def test_csv_of_excel_with_byte_order_mark_and_semicolons_reads_the_first_column(write_csv: Write) -> None:
    path = write_csv("sku;price\n1;2,50\n", encoding="utf-8-sig")
    assert items(csv_file(path, delimiter=";")) == [{"sku": "1", "price": "2,50"}]


def test_csv_in_another_encoding_is_read_with_it(write_csv: Write) -> None:
    for encoding in ("cp1252", "utf-16"):
        path = write_csv("sku,name\n1,Größe €\n", encoding=encoding)
        assert items(csv_file(path, encoding=encoding)) == [{"sku": "1", "name": "Größe €"}]


def test_csv_without_quotes_takes_quotes_as_text(write_csv: Write) -> None:
    path = write_csv('sku\tsize\n1\t5" wide\n')
    assert items(csv_file(path, delimiter="\t", quotechar=None)) == [{"sku": "1", "size": '5" wide'}]


def test_csv_empty_values_are_none_only_when_asked_for(write_csv: Write) -> None:
    path = write_csv('sku,quantity\n1,\n2,""\n3, \n')
    assert [item["quantity"] for item in items(csv_file(path))] == ["", "", " "]
    assert [item["quantity"] for item in items(csv_file(path, empty_as_none=True))] == [None, None, " "]


def test_csv_columns_are_converted_as_declared_and_none_is_left_alone(write_csv: Write) -> None:
    path = write_csv("sku,quantity,price,day\n007,5,1.50,2026-11-23\n008,,,\n")
    converters = {"quantity": int, "price": Decimal, "day": date.fromisoformat}
    assert items(csv_file(path, columns=converters, empty_as_none=True)) == [
        {"sku": "007", "quantity": 5, "price": Decimal("1.50"), "day": date(2026, 11, 23)},
        {"sku": "008", "quantity": None, "price": None, "day": None},
    ]


def test_csv_value_that_does_not_convert_fails_its_item_and_no_other(write_csv: Write) -> None:
    path = write_csv("sku,quantity\n1,5\n2,many\n3,7\n")
    good, bad, also_good = items(csv_file(path, columns={"quantity": int}))
    assert (good["quantity"], also_good["quantity"]) == (5, 7)
    assert bad["sku"] == "2"
    assert isinstance(bad["quantity"], ItemError)
    assert str(bad["quantity"]) == (
        f"{path}, line 3: quantity is 'many', which int does not convert "
        "(ValueError: invalid literal for int() with base 10: 'many')"
    )


def test_csv_value_that_does_not_convert_can_never_be_stored(write_csv: Write) -> None:
    """The snapshot between fetch and apply refuses such an item, whatever the target would have made of it."""
    (item,) = items(csv_file(write_csv("sku,price\n1,n/a\n"), columns={"price": Decimal}))
    with pytest.raises(ItemError, match="price"):
        encode(item)


def test_a_converter_that_fails_in_its_own_way_is_an_item_error_too(write_csv: Write) -> None:
    path = write_csv("sku,active\n1,yes\n2,perhaps\n")
    good, bad = items(csv_file(path, columns={"active": {"yes": True, "no": False}.__getitem__}))
    assert good["active"] is True
    assert "line 3: active is 'perhaps'" in str(bad["active"])


def test_csv_comes_in_pages_of_the_asked_size(write_csv: Write) -> None:
    path = write_csv("sku\n" + "".join(f"{number}\n" for number in range(7)))
    assert [len(page) for page in csv_file(path, page_size=3)()] == [3, 3, 1]
    assert [len(page) for page in csv_file(path, page_size=7)()] == [7]


def test_a_file_with_a_header_only_has_no_items(write_csv: Write, write_parquet: Write) -> None:
    assert items(csv_file(write_csv("sku,quantity\n"))) == []
    assert items(parquet_file(write_parquet({"sku": pa.array([], pa.string())}))) == []


def test_every_fetch_reads_the_file_anew(write_csv: Write) -> None:
    path = write_csv("sku\n1\n")
    fetch = csv_file(path)
    assert items(fetch) == items(fetch) == [{"sku": "1"}]
    write_csv("sku\n2\n")
    assert items(fetch) == [{"sku": "2"}]


def test_a_missing_file_is_told_when_it_is_fetched_and_not_when_it_is_declared(tmp_path: Path) -> None:
    for make in (csv_file, parquet_file):
        path = tmp_path / "not-there"
        fetch = make(path)
        with pytest.raises(FetchError, match=re.escape(f"{path} does not exist")):
            items(fetch)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    for make in (csv_file, parquet_file):
        with pytest.raises(FetchError, match=re.escape(f"{tmp_path} can't be read")):
            items(make(tmp_path))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", " is empty: its first line must name the columns"),
        ("\n\n", " is empty: its first line must name the columns"),
        ("sku,,quantity\n1,2,3\n", ", line 1: column 2 of the header has no name"),
        ("sku,quantity,sku\n1,2,3\n", ", line 1: the header names 'sku' more than once"),
        ("sku,quantity\n1,2\n3,4,5\n", ", line 3: 3 values where the header has 2 columns ('sku', 'quantity')"),
        ("sku,quantity\n1,2\n\n3\n", ", line 4: 1 values where the header has 2 columns"),
        ('sku,note\n1,"a\nb\nc"\n2,"x\ny",z\n', ", line 5: 3 values"),
        ('sku,note\n1,a\n2,"b"c\n', ", line 3: ',' expected after '\"'"),
        ('sku,note\n1,a\n2,"b\n3,c\n', ", line 3: unexpected end of data"),
    ],
)
def test_a_broken_csv_names_file_and_line(write_csv: Write, text: str, complaint: str) -> None:
    path = write_csv(text)
    with pytest.raises(FetchError, match=re.escape(f"{path}{complaint}")):
        items(csv_file(path))


@pytest.mark.parametrize("lines_before", [0, 1, 5_000, 400_000])
def test_bytes_in_another_encoding_name_their_line(tmp_path: Path, lines_before: int) -> None:
    """However far ahead of the reader the file is decoded."""
    path = tmp_path / "stock.csv"
    path.write_bytes(b"name\n" + b"abc\n" * lines_before + "Größe\n".encode("cp1252") + b"xyz\n" * 9)
    with pytest.raises(FetchError, match=rf"stock\.csv, line {lines_before + 2}: not utf-8-sig, give csv_file\(enc"):
        items(csv_file(path))


def test_a_file_that_ends_within_a_character_names_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "stock.csv"
    path.write_bytes(b"name\nabc\n" + "ö".encode()[:1])
    with pytest.raises(FetchError, match=r"line 3: not utf-8-sig"):
        items(csv_file(path))


def test_pages_before_a_broken_line_have_come_already(write_csv: Write) -> None:
    pages = csv_file(write_csv("sku\n1\n2\n3,4\n"), page_size=2)()
    assert next(pages) == [{"sku": "1"}, {"sku": "2"}]
    with pytest.raises(FetchError, match="line 4"):
        next(pages)


def test_a_converter_for_a_column_that_the_file_lacks_is_a_mistake_in_the_declaration(write_csv: Write) -> None:
    fetch = csv_file(write_csv("sku,quantity\n1,2\n"), columns={"qty": int})
    with pytest.raises(ConfigurationError, match=r"converts 'qty', but the header of .* has 'sku', 'quantity'"):
        items(fetch)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"page_size": 0}, "page_size=0"),
        ({"page_size": True}, "page_size=True"),
        ({"delimiter": ""}, "delimiter=''"),
        ({"delimiter": "::"}, "delimiter='::'"),
        ({"quotechar": "\n"}, r"quotechar='\n'"),
        ({"delimiter": ";", "quotechar": ";"}, "both delimiter and quotechar"),
        ({"encoding": "utf-9"}, "encoding='utf-9'"),
        ({"encoding": "rot13"}, "encoding='rot13'"),
        ({"columns": {"quantity": "int"}}, "the converter of 'quantity' is 'int'"),
    ],
)
def test_wrong_csv_options_are_refused_when_declared(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        csv_file("stock.csv", **options)


@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.sampled_from('",\n\r ;x'))),
        max_size=8,
    )
)
def test_whatever_a_csv_writer_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "stock.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("sku", "note"), *rows])
    assert items(csv_file(path, page_size=3)) == [{"sku": sku, "note": note} for sku, note in rows]


def test_parquet_values_have_their_exact_types(write_parquet: Write) -> None:
    moment = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    columns = {
        "sku": pa.array(["007", ""]).dictionary_encode(),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(12, 2)),
        "quantity": pa.array([2**60 + 1, None], pa.int64()),
        "weight": pa.array([0.1, float("inf")]),
        "active": pa.array([True, None]),
        "seen_at": pa.array([moment, None], pa.timestamp("us", tz="Europe/Berlin")),
        "naive_at": pa.array([moment.replace(tzinfo=None), None], pa.timestamp("ms")).cast(pa.timestamp("us")),
        "day": pa.array([date(2026, 3, 29), None]),
        "blob": pa.array([b"\x00\xff", None]),
        "tags": pa.array([["a", None], []]),
        "size": pa.array(
            [{"w": Decimal("1.0"), "h": None}, None], pa.struct([("w", pa.decimal128(3, 1)), ("h", pa.int8())])
        ),
        "prices": pa.array([[("EUR", 1)], None], pa.map_(pa.string(), pa.int64())),
    }
    first, second = items(parquet_file(write_parquet(columns)))
    assert first == {
        "sku": "007",
        "price": Decimal("1.50"),
        "quantity": 2**60 + 1,
        "weight": 0.1,
        "active": True,
        "seen_at": moment,
        "naive_at": datetime(2026, 3, 29, 1, 30, 0, 123000),  # noqa: DTZ001
        "day": date(2026, 3, 29),
        "blob": b"\x00\xff",
        "tags": ["a", None],
        "size": {"w": Decimal("1.0"), "h": None},
        "prices": [("EUR", 1)],
    }
    assert first["seen_at"].utcoffset() == timedelta(hours=2)
    assert str(first["price"]) == "1.50"
    assert second == {
        **dict.fromkeys(columns),
        "sku": "",
        "weight": float("inf"),
        "tags": [],
    }
    assert type(first["seen_at"]) is datetime
    assert type(first["day"]) is date


def test_parquet_nanoseconds_are_cut_off_everywhere(write_parquet: Write) -> None:
    nanoseconds = 1_000_001_999
    columns = {
        "at": pa.array([nanoseconds, None], pa.timestamp("ns", tz="UTC")),
        "took": pa.array([nanoseconds, None], pa.duration("ns")),
        "steps": pa.array([[nanoseconds], None], pa.list_(pa.timestamp("ns"))),
        "log": pa.array([{"at": nanoseconds}, None], pa.struct([("at", pa.timestamp("ns"))])),
        "times": pa.array([[("x", nanoseconds)], None], pa.map_(pa.string(), pa.timestamp("ns"))),
    }
    first, second = items(parquet_file(write_parquet(columns)))
    naive = datetime(1970, 1, 1, 0, 0, 1, 1)  # noqa: DTZ001
    assert first == {
        "at": naive.replace(tzinfo=UTC),
        "took": timedelta(seconds=1, microseconds=1),
        "steps": [naive],
        "log": {"at": naive},
        "times": [("x", naive)],
    }
    inner = [first["at"], first["took"], first["steps"][0], first["log"]["at"], first["times"][0][1]]
    assert [type(value) for value in inner] == [datetime, timedelta, datetime, datetime, datetime]
    assert second == dict.fromkeys(columns)


def test_parquet_reads_only_the_columns_asked_for_in_that_order(write_parquet: Write) -> None:
    path = write_parquet({"sku": ["1"], "note": ["x"], "quantity": [5]})
    (item,) = items(parquet_file(path, columns=["quantity", "sku"]))
    assert list(item.items()) == [("quantity", 5), ("sku", "1")]


def test_parquet_comes_in_pages_across_row_groups(write_parquet: Write) -> None:
    path = write_parquet({"n": list(range(10))}, row_group_size=3)
    pages = list(parquet_file(path, page_size=4)())
    assert max(len(page) for page in pages) <= 4
    assert [item["n"] for page in pages for item in page] == list(range(10))


def test_parquet_without_a_column_asked_for_says_what_it_has(write_parquet: Write) -> None:
    fetch = parquet_file(write_parquet({"sku": ["1"], "quantity": [5]}), columns=["sku", "qty"])
    with pytest.raises(ConfigurationError, match=r"wants 'qty', but .* has 'sku', 'quantity'"):
        items(fetch)


def test_parquet_with_two_columns_of_one_name_is_refused(write_parquet: Write) -> None:
    path = write_parquet(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["sku", "sku"]))
    with pytest.raises(FetchError, match=re.escape(f"{path} has more than one column called 'sku'")):
        items(parquet_file(path))


def test_a_file_that_is_no_parquet_or_is_cut_off_is_named(write_csv: Write, write_parquet: Write) -> None:
    path = write_csv("sku\n1\n")
    with pytest.raises(FetchError, match=re.escape(f"{path} can't be read")):
        items(parquet_file(path))
    path = write_parquet({"sku": [str(number) for number in range(1000)]})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FetchError, match=re.escape(f"{path} can't be read")):
        items(parquet_file(path))


@pytest.mark.parametrize("options", [{"page_size": -1}, {"page_size": 2.0}, {"columns": "sku"}])
def test_wrong_parquet_options_are_refused_when_declared(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        parquet_file("stock.parquet", **options)


def test_sources_can_be_sent_to_another_process(write_csv: Write, write_parquet: Write) -> None:
    for fetch in (
        csv_file(write_csv("sku,quantity\n1,2\n"), columns={"quantity": int}),
        parquet_file(write_parquet({"sku": ["1"], "quantity": [2]})),
    ):
        assert items(pickle.loads(pickle.dumps(fetch))) == [{"sku": "1", "quantity": 2}]


def test_memory_does_not_grow_with_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "stock.csv"
    path.write_text("sku,name\n" + "".join(f"{number},{'x' * 40}\n" for number in range(100_000)), encoding="utf-8")
    tracemalloc.start()
    try:
        assert sum(len(page) for page in csv_file(path, page_size=500)()) == 100_000
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < path.stat().st_size / 5


def test_memory_does_not_grow_with_a_parquet_file(write_parquet: Write) -> None:
    names = pa.array([f"{number:0100}" for number in range(200_000)])
    path = write_parquet({"name": names}, use_dictionary=False, compression="none")
    assert pq.read_metadata(path).num_row_groups == 1
    before = pa.total_allocated_bytes()
    highest = max(pa.total_allocated_bytes() - before for _ in parquet_file(path, page_size=1_000)())
    assert highest < names.nbytes / 5


def test_a_csv_source_waits_for_neither_pyarrow_nor_pandas() -> None:
    code = (
        "import sys\n"
        "from sync_pipelines.sources.files import csv_file\n"
        "csv_file('stock.csv')\n"
        "assert not {'pyarrow', 'pandas', 'dagster'} & set(sys.modules)"
    )
    run_child([sys.executable, "-c", code], check=True)


class TestCutOff:
    """Files that end too early, or are still being written."""

    def doubts(self, fetch: Any, between: Callable[[], object] = lambda: None) -> tuple[str, ...]:
        with source_ends() as ends:
            pages = fetch()
            next(pages)
            between()
            list(pages)
        completeness = ends.completeness(took_all=True)
        assert completeness.ended_by[0].endswith(": the file's end")
        return completeness.doubts

    def test_file_is_complete_at_its_end(self, tmp_path: Path) -> None:
        path = tmp_path / "stock.csv"
        path.write_text("sku,stock\nA,1\nB,2\nC,3")
        assert self.doubts(csv_file(path, page_size=1)) == ()

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_file_that_is_written_to_while_it_is_read_is_doubted(self, tmp_path: Path, kind: str) -> None:
        path, line = tmp_path / f"stock.{kind}", "A,1\n" if kind == "csv" else '{"sku": "A", "stock": 1}\n'
        path.write_text(("sku,stock\n" if kind == "csv" else "") + 3 * line)
        fetch = csv_file(path, page_size=1) if kind == "csv" else json_lines(path, page_size=1)
        with path.open("a") as file:
            (doubt,) = self.doubts(fetch, lambda: file.write(line) and file.flush())
        assert "was written to while it was read" in doubt

    def test_file_that_takes_the_place_of_another_is_not_doubted(self, tmp_path: Path) -> None:
        path, new = tmp_path / "stock.csv", tmp_path / "new.csv"
        path.write_text("sku,stock\nA,1\nB,2\n")
        new.write_text("sku,stock\nA,1\n")
        assert self.doubts(csv_file(path, page_size=1), lambda: new.replace(path)) == ()

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "cp1252"])
    def test_last_line_that_is_cut_off_is_an_error_where_lines_end_in_breaks(
        self, tmp_path: Path, encoding: str
    ) -> None:
        path = tmp_path / "stock.csv"
        whole = "sku,stock\r\nA,100\r\nB,125\r\n".encode(encoding)
        fetch = csv_file(path, encoding=encoding, line_break_at_end=True)
        path.write_bytes(whole)
        assert len(next(fetch())) == 2
        path.write_bytes(whole.removesuffix("5\r\n".encode(encoding).removeprefix(codecs.BOM_UTF8)))
        with pytest.raises(FetchError, match="no line break at its end"):
            list(fetch())
        assert next(csv_file(path, encoding=encoding)())[-1]["stock"] == "12"

    def test_csv_that_is_cut_off_within_a_record_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "stock.csv"
        for text in ('sku,title\nA,"one\nB', "sku,title,stock\nA,one,1\nB,tw"):
            path.write_text(text)
            with pytest.raises(FetchError, match=r"line [23]"):
                list(csv_file(path)())

    @pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
    def test_packed_files_that_are_cut_off_are_an_error(self, tmp_path: Path, left: float) -> None:
        packed, parquet = tmp_path / "stock.jsonl.gz", tmp_path / "stock.parquet"
        packed.write_bytes(gzip.compress(b"".join(b'{"sku": "%d"}\n' % number for number in range(999))))
        pq.write_table(pa.table({"sku": list(map(str, range(999)))}), parquet)
        for fetch, path in ((json_lines(packed), packed), (parquet_file(parquet), parquet)):
            path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
            with pytest.raises(FetchError, match="can't be read"):
                list(fetch())

    def test_line_of_json_that_is_cut_off_fails_and_has_no_id(self, tmp_path: Path) -> None:
        path = tmp_path / "stock.jsonl"
        path.write_text('{"sku": "A"}\n{"sku": "B", "st')
        _, bad = next(json_lines(path)())
        with pytest.raises(ItemError, match="line 2"):
            bad["sku"]
