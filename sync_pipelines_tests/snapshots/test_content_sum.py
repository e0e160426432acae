"""What all items are, in short: the same for the same items in any order and pages, another for others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from sync_pipelines.errors import ItemError
from sync_pipelines.snapshots.content_sum import ContentSum, _mixed
from sync_pipelines.snapshots.snapshot import FetchedPage, SnapshotWriter

VALUES = st.none() | st.text(max_size=20) | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False)


def sum_of(folder: Path, items: Sequence[Any], page: int = 1_000) -> str:
    with SnapshotWriter(UPath(folder), sums=True) as writer:
        for start in range(0, len(items), page):
            some = items[start : start + page]
            errors = {place: item for place, item in enumerate(some) if isinstance(item, Exception)}
            writer.write(FetchedPage(range(start, start + len(some)), [None] * len(some), some, errors))
        writer.finish({})
        assert writer.content is not None
        return writer.content.text()


ITEMS: list[dict[str, Any]] = [
    {
        "id": f"A-{number}",
        "name": "Größe " * (number % 60),
        "stock": number,
        "price": number / 4 if number % 3 else number,
        "cost": Decimal(number) / 100,
        "seen": datetime(2026, 1, 1, 0, 0, number % 60, tzinfo=UTC),
        "day": date(2026, 1, 1 + number % 28),
        "active": number % 2 == 0,
        "note": None if number % 5 else "x",
        "tags": [number % 7],
        "raw": bytes([number % 256]),
    }
    for number in range(700)
]


@pytest.mark.parametrize("page", [1, 7, 100, 10_000])
def test_neither_order_nor_pages_matter(tmp_path: Path, page: int) -> None:
    mixed = list(ITEMS)
    random.Random(page).shuffle(mixed)
    assert sum_of(tmp_path / "b", mixed, page) == sum_of(tmp_path / "a", ITEMS)


def test_the_order_of_fields_does_not_matter(tmp_path: Path) -> None:
    turned = [dict(reversed(item.items())) for item in ITEMS]
    assert sum_of(tmp_path / "b", turned) == sum_of(tmp_path / "a", ITEMS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "A-1 "),
        ("name", "Größe " * 59),
        ("name", ""),
        ("stock", -1),
        ("price", 0.1),
        ("price", 10**19),
        ("cost", Decimal("0.03")),
        ("seen", datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        ("day", date(2025, 1, 1)),
        ("active", None),
        ("note", "X"),
        ("tags", []),
        ("raw", b""),
        ("more", 1),
    ],
)
def test_each_kind_of_value_counts(tmp_path: Path, field: str, value: Any) -> None:
    changed = [*ITEMS[:2], {**ITEMS[2], field: value}, *ITEMS[3:]]
    assert sum_of(tmp_path / "b", changed) != sum_of(tmp_path / "a", ITEMS)


def test_values_that_change_places_are_a_change(tmp_path: Path) -> None:
    one = [{"id": "A", "stock": 1, "old": 2}, {"id": "B", "stock": 2, "old": 1}]
    between_items = [{"id": "A", "stock": 2, "old": 2}, {"id": "B", "stock": 1, "old": 1}]
    between_fields = [{"id": "A", "stock": 2, "old": 1}, {"id": "B", "stock": 1, "old": 2}]
    found = {sum_of(tmp_path / str(number), each) for number, each in enumerate((one, between_items, between_fields))}
    assert len(found) == 3


def test_an_item_that_comes_twice_counts_twice(tmp_path: Path) -> None:
    assert len({sum_of(tmp_path / str(times), ITEMS[:1] * times) for times in (0, 1, 2, 3)}) == 4


def test_a_number_is_the_same_beside_whatever_it_stands(tmp_path: Path) -> None:
    whole, broken = [{"n": number} for number in (1, 2, 10**17, -5)], [{"n": number} for number in (0.5, 3.0)]
    assert sum_of(tmp_path / "b", whole + broken, 4) == sum_of(tmp_path / "a", whole + broken, 6)


def test_an_item_that_failed_counts(tmp_path: Path) -> None:
    assert sum_of(tmp_path / "b", [*ITEMS, ItemError("no")]) != sum_of(tmp_path / "a", ITEMS)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1), min_size=2, max_size=6))
def test_two_runs_over_the_same_items_agree(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("sums")
    assert sum_of(folder / "a", items) == sum_of(folder / "b", items)


@pytest.mark.parametrize("scale", [0.25, 0.01, 1, 10**6, 2**48, 2.0**60])
def test_forty_thousand_pairs_of_numbers_have_as_many_hashes(scale: float) -> None:
    some = pa.array([(number + 1) * scale for number in range(200)])
    pairs = {"net": np.repeat(np.arange(200), 200), "gross": np.tile(np.arange(200), 200)}
    content, hashes = ContentSum(), np.zeros(40_000, np.uint64)
    for name, which in pairs.items():
        content._add_column(hashes, name, None, pa.chunked_array([some.take(pa.array(which))]))
    assert len(np.unique(_mixed(hashes))) == 40_000


def test_quarters_in_two_fields_are_told_apart(tmp_path: Path) -> None:
    one, other = ({"id": 7, "net": net, "gross": gross} for net, gross in ((71.25, 30.75), (82.25, 4.75)))
    assert sum_of(tmp_path / "a", [one]) != sum_of(tmp_path / "b", [other])
