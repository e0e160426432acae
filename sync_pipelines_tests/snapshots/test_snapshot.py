"""What a fetch brought comes back from its snapshot exactly, whatever it was."""

from __future__ import annotations

import dataclasses
import errno
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import UUID
from zoneinfo import ZoneInfo

import dateutil.tz
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from upath import UPath

from sync_pipelines import RunError
from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.engine.redaction import exception_type, message_of
from sync_pipelines.snapshots.parquet_pages import PageWriter
from sync_pipelines.snapshots.snapshot import (
    MAX_PARTS,
    SNAPSHOT_PAGE,
    FetchedPage,
    Snapshot,
    SnapshotRow,
    SnapshotWriter,
)
from sync_pipelines.snapshots.typed_columns import MAX_COLUMNS, MAX_SHAPES
from sync_pipelines_tests.two_speeds import few_and_many, spread


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Right(Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Plain:
    sku: Any
    price: Any = None


@dataclass(frozen=True, slots=True)
class Slotted:
    sku: Any
    price: Any = None


@dataclass
class Derived:
    """Has more in its `__dict__` than its fields."""

    sku: Any
    price: Any = None
    twice: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.extra = [self.sku]


@dataclass(slots=True)
class Unset:
    sku: Any
    later: Any = field(init=False)


@dataclass
class Rows(list):  # type: ignore[type-arg]
    """A list that has a field besides."""

    sku: Any = None


@dataclass(eq=False)
class TroubleError(ValueError):
    """An exception can't be made again from its fields alone."""

    sku: Any = None


class Model(BaseModel):
    model_config = {"extra": "allow"}
    sku: Any = None
    price: Any = None


ZONES: list[Any] = [None, UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("UTC")]
ZONES += [dateutil.tz.tzutc(), dateutil.tz.gettz("America/New_York"), timezone(timedelta(0), "Zulu")]

PLAIN: list[Any] = [
    *(None, "", "a", "Größe\x00\n", "x" * 3_000, "\ud800", 0, 1, -1, 2**63 - 1, -(2**63), 2**63, 10**30, True, False),
    *(
        0.0,
        -0.0,
        1.5,
        1e308,
        math.inf,
        -math.inf,
        math.nan,
        Decimal("10.50"),
        Decimal("NaN"),
        Decimal("-0"),
        b"",
        b"\xff",
    ),
    *(date(2024, 2, 29), date.min, date.max, datetime.min, datetime.max, time(1, 2, 3), timedelta(days=-1, seconds=5)),  # noqa: DTZ901
    *(
        UUID(int=7),
        Colour.RED,
        Right.READ | Right.WRITE,
        Pair(1, "b"),
        bytearray(b"a"),
        object(),
        Rows([1]),
        TroubleError("x"),
    ),
]
MOMENTS = [datetime(2024, 10, 27, 2, 30, 0, 123456, zone) for zone in ZONES]
SCALARS = st.sampled_from([*PLAIN, *MOMENTS]) | st.text(max_size=5) | st.integers() | st.floats() | st.datetimes()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(["a", "$", ""]), inner, max_size=2)
    ),
    max_leaves=3,
)
NAMES = ["sku", "price", "$", "", "position", "shape", "external_id", "item", "message", "field_0", "Größe", "\ud800"]
DICTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
ITEMS = (
    DICTS
    | st.dictionaries(st.integers() | st.text(max_size=1), VALUES, max_size=2)
    | st.builds(Plain, VALUES, VALUES)
    | st.builds(Slotted, VALUES, VALUES)
    | st.builds(Derived, VALUES, VALUES)
    | st.builds(Model, sku=VALUES, price=VALUES)
    | st.builds(Model, sku=VALUES, more=VALUES)
    | st.builds(Pair, VALUES, VALUES)
    | VALUES
)


def wanted(item: Any) -> Any:
    """The item as its JSON gives it back, or why it can't be kept."""
    try:
        return decode(encode(item))
    except Exception as error:  # noqa: BLE001 - what a snapshot says of it
        return exception_type(error), message_of(error)


def same(one: Any, other: Any) -> bool:
    """True if both are of the same type and hold the same, NaN and zones included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, BaseModel):
        return same(one.__dict__, other.__dict__) and same(one.model_extra, other.model_extra)
    if dataclasses.is_dataclass(one):
        return all(
            same(getattr(one, each.name), getattr(other, each.name)) for each in dataclasses.fields(one)
        ) and same(getattr(one, "__dict__", {}), getattr(other, "__dict__", {}))
    return repr(one) == repr(other)


def write(folder: UPath, pages: Sequence[Sequence[Any]]) -> Snapshot:
    with SnapshotWriter(folder) as writer:
        for items in pages:
            positions = range(writer.rows, writer.rows + len(items))
            writer.write(FetchedPage(positions, [str(position) for position in positions], items))
        writer.finish({"items": writer.rows, "complete": True})
    return Snapshot(folder)


def rows_of(snapshot: Snapshot) -> list[SnapshotRow]:
    return [row for page in snapshot.pages() for row in page.rows()]


def assert_kept(folder: UPath, pages: Sequence[Sequence[Any]]) -> Snapshot:
    snapshot = write(folder, pages)
    rows = rows_of(snapshot)
    items = [item for page in pages for item in page]
    assert [row.position for row in rows] == list(range(len(items)))
    assert [row.external_id for row in rows] == [str(position) for position in range(len(items))]
    for item, row in zip(items, rows, strict=True):
        expected = wanted(item)
        if row.message is None:
            assert same(row.item, expected), (row.item, expected)
        else:
            assert (row.exception_type, row.message) == expected
            assert row.item is None
    return snapshot


@few_and_many(60, 250)
def test_items_of_any_kind_in_any_order_come_back_as_their_json_gives_them(tmp_path: Path, examples: int) -> None:
    @given(pages=st.lists(st.lists(ITEMS, max_size=6), max_size=8))
    @settings(max_examples=examples, deadline=None)
    def keep(pages: list[Any]) -> None:
        assert_kept(UPath(tmp_path), pages)

    keep()


@few_and_many(20, 80)
def test_items_come_back_past_the_last_new_part_as_well(tmp_path: Path, examples: int) -> None:
    @given(pages=st.lists(st.lists(DICTS, min_size=1, max_size=3), min_size=5, max_size=12), most=st.integers(0, 2))
    @settings(max_examples=examples, deadline=None)
    def keep(pages: list[Any], most: int) -> None:
        with patch("sync_pipelines.snapshots.snapshot.MAX_PARTS", most):
            assert_kept(UPath(tmp_path), pages)

    keep()


@pytest.mark.parametrize("first", spread(PLAIN + MOMENTS, 9), ids=lambda value: ascii(value).partition(" at 0x")[0])
def test_every_pair_of_values_may_follow_each_other_in_a_field(tmp_path: Path, first: Any) -> None:
    for number, second in enumerate(PLAIN + MOMENTS):
        assert_kept(UPath(tmp_path / str(number)), [[{"v": first}], [{"v": second}, {"v": first}], [{"v": None}]])


def test_a_field_that_keeps_changing_its_type_makes_no_more_than_so_many_parts(tmp_path: Path) -> None:
    values: list[Any] = [1, "a", 2.5, b"x", None, Decimal(1), True, date(2024, 1, 1), MOMENTS[0], MOMENTS[1]]
    pages = [[{f"f{each}": values[(page + each) % len(values)] for each in range(40)}] for page in range(60)]
    snapshot = assert_kept(UPath(tmp_path), pages)
    assert len(snapshot.summary()["parts"]) <= MAX_PARTS + 2


def test_items_of_more_than_two_hundred_fields_come_back(tmp_path: Path) -> None:
    wide = {f"f{number}": number for number in range(250)}
    assert_kept(UPath(tmp_path), [[wide, {"sku": 1}], [{"sku": 2}, wide]])


def test_keys_that_are_data_do_not_make_a_column_each(tmp_path: Path) -> None:
    """Items whose keys are ids would make a file of ten thousand columns."""
    pages = [[{f"id-{page}-{each}-{key}": key for key in range(8)} for each in range(60)] for page in range(12)]
    snapshot = assert_kept(UPath(tmp_path), pages)
    for page in snapshot.pages():
        assert len(page.schema.kinds) <= MAX_COLUMNS
        assert len(page.schema.shapes) <= MAX_SHAPES


def test_an_item_without_items_and_none_itself_come_back(tmp_path: Path) -> None:
    assert_kept(UPath(tmp_path), [[{}, None, {}], [None], [{"sku": None}], [Plain(None), {}]])


def test_an_item_whose_field_is_not_set_fails_alone(tmp_path: Path) -> None:
    whole = Unset(2)
    whole.later = 3
    snapshot = assert_kept(UPath(tmp_path), [[Unset(1), whole]])
    assert [row.exception_type for row in rows_of(snapshot)] == ["AttributeError", None]


def test_an_item_that_cannot_be_kept_fails_alone_with_the_field_named(tmp_path: Path) -> None:
    snapshot = write(UPath(tmp_path), [[{"v": 1}, {"v": object()}, {"v": "\ud800"}, {"v": 2}]])
    first, second, third, last = rows_of(snapshot)
    assert (first.item, last.item) == ({"v": 1}, {"v": 2})
    assert second.message is not None
    assert second.message.startswith("the item, field 'v' holds a builtins.object, which a snapshot can't keep")
    assert third.message == r"the item holds text that is not Unicode: '\ud800'"


def test_an_error_that_is_known_already_is_kept_with_its_place(tmp_path: Path) -> None:
    with SnapshotWriter(UPath(tmp_path)) as writer:
        writer.write(FetchedPage([5, 7], [None, "B"], [{"v": object()}, {"v": 1}], {0: KeyError("sku \ud800")}))
        writer.finish({"items": 2, "complete": True})
    assert rows_of(Snapshot(UPath(tmp_path))) == [
        SnapshotRow(5, None, None, "KeyError", r"'sku \ud800'"),
        SnapshotRow(7, "B", {"v": 1}),
    ]


class TestComplete:
    def test_a_snapshot_is_complete_when_its_manifest_is_there_and_not_before(self, tmp_path: Path) -> None:
        snapshot = Snapshot(UPath(tmp_path))
        with SnapshotWriter(UPath(tmp_path)) as writer:
            for items in ([{"v": 1}], [{"v": "a"}], [{"v": b""}]):
                writer.write(FetchedPage([writer.rows], ["A"], items))
                assert not snapshot.is_complete()
            with pytest.raises(RunError, match=r"snapshot\.json of run .* is not in the snapshot store"):
                snapshot.summary()
            writer.finish({"items": writer.rows, "complete": False})
        assert snapshot.is_complete()
        assert snapshot.summary()["items"] == 3

    def test_a_new_attempt_makes_the_old_snapshot_incomplete_at_once(self, tmp_path: Path) -> None:
        snapshot = write(UPath(tmp_path), [[{"v": 1}], [{"v": "a"}]])
        with SnapshotWriter(UPath(tmp_path)):
            assert not snapshot.is_complete()
        assert not snapshot.is_complete()
        write(UPath(tmp_path), [[{"v": 2}]])
        assert [row.item for row in rows_of(snapshot)] == [{"v": 2}]

    def test_what_breaks_off_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        def break_off() -> None:
            with SnapshotWriter(UPath(tmp_path)) as writer:
                writer.write(FetchedPage([0], ["A"], [{"v": 1}]))
                raise ConnectionError

        with pytest.raises(ConnectionError):
            break_off()
        assert list(tmp_path.iterdir()) == []

    def test_no_items_at_all_are_a_snapshot_too(self, tmp_path: Path) -> None:
        snapshot = write(UPath(tmp_path), [[], []])
        assert (snapshot.summary(), rows_of(snapshot)) == ({"items": 0, "complete": True, "parts": []}, [])

    @pytest.mark.parametrize("page", [1, 2, 5])
    def test_a_full_disk_in_the_background_ends_the_writing_with_a_clear_word(self, tmp_path: Path, page: int) -> None:
        writes = 0
        function = PageWriter.write_table

        def full(writer: PageWriter, table: Any) -> None:
            nonlocal writes
            writes += 1
            if writes >= page:
                with writer._explaining_failures():
                    raise OSError(errno.ENOSPC, "No space left on device")
            function(writer, table)

        pages = [[{"v": "a" if number > 2 else number}] for number in range(5)]
        with (
            patch.object(PageWriter, "write_table", full),
            pytest.raises(RunError, match=r"No space left on device.*SYNC_PIPELINES_DATA_DIR"),
        ):
            write(UPath(tmp_path), pages)
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("snapshot-00000.parquet")] == []
        assert not Snapshot(UPath(tmp_path)).is_complete()


class TestRowsAt:
    @given(positions=st.sets(st.integers(0, 59)), wider=st.integers(1, 5))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_gives_exactly_the_asked_positions_and_reads_only_their_pages(
        self, tmp_path: Path, positions: set[int], wider: int
    ) -> None:
        pages = [[{"v": f"{number}" if page > wider else number} for number in range(10)] for page in range(6)]
        snapshot = write(UPath(tmp_path), pages)
        read: list[int] = []
        function = pq.ParquetFile.read_row_group

        def counted(file: Any, number: int, *args: Any, **options: Any) -> Any:
            read.append(number)
            return function(file, number, *args, **options)

        with patch.object(pq.ParquetFile, "read_row_group", counted):
            rows = list(snapshot.rows_at(iter(sorted(positions))))
        assert [row.position for row in rows] == sorted(positions)
        assert [row.item for row in rows] == [pages[each // 10][each % 10] for each in sorted(positions)]
        assert len(read) == len({each // 10 for each in positions})

    def test_of_no_positions_there_are_no_rows(self, tmp_path: Path) -> None:
        assert list(write(UPath(tmp_path), [[{"v": 1}]]).rows_at(iter([]))) == []


class TestPages:
    def test_pages_of_large_items_are_small(self, tmp_path: Path) -> None:
        with SnapshotWriter(UPath(tmp_path)) as writer:
            assert writer.page_size() < SNAPSHOT_PAGE
            writer.write(FetchedPage(range(50), ["A"] * 50, [{"v": "x" * 100_000}] * 50))
            assert writer.page_size() == 100
            writer.write(FetchedPage(range(50, 150), ["A"] * 100, [{"v": "x"}] * 100))
            assert writer.page_size() == SNAPSHOT_PAGE
            assert writer.page_size(7) == 7
            writer.finish({"items": 150, "complete": True})

    def test_ids_and_positions_can_be_read_without_the_items(self, tmp_path: Path) -> None:
        snapshot = write(UPath(tmp_path), [[{"v": 1}, {"v": 2}], [{"v": "a"}]])
        pages = list(snapshot.pages(fields=False))
        assert [page.positions() for page in pages] == [[0, 1], [2]]
        assert [page.external_ids() for page in pages] == [["0", "1"], ["2"]]
        assert all("item" not in page.table.column_names for page in pages)

    def test_a_page_can_be_had_in_pieces(self, tmp_path: Path) -> None:
        [page] = write(UPath(tmp_path), [[{"v": number} for number in range(7)]]).pages()
        assert [[row.item["v"] for row in piece.rows()] for piece in page.slices(3)] == [[0, 1, 2], [3, 4, 5], [6]]
