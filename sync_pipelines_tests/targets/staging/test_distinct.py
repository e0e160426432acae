"""That no two items have one key is told without the database, where it can be told."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from sync_pipelines.targets.staging.distinct_keys import KeysSeen
from sync_pipelines.targets.staging.staged_columns import StagedColumn
from sync_pipelines.targets.types.choose_codec import build_codec


def key_column(kind: TypeEngine[Any], type_name: str) -> StagedColumn:
    codec = build_codec("key", kind, dialect=postgresql.dialect(), type_name=type_name)
    return StagedColumn(codec, "sp_k0", type_name)


TEXT, NUMBER = key_column(sa.Text(), "text"), key_column(sa.BigInteger(), "bigint")


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=5))
def test_texts_are_distinct_exactly_if_none_is_there_twice(pages: list[list[str]]) -> None:
    seen = KeysSeen([TEXT])
    for page in pages:
        seen.add([pa.array(page, pa.string())])
    keys = [key for page in pages for key in page]
    assert seen.are_distinct == (len(set(keys)) == len(keys))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b"])), max_size=8))
def test_keys_of_several_columns_are_taken_together(keys: list[tuple[int, str]]) -> None:
    seen = KeysSeen([NUMBER, TEXT])
    seen.add([pa.array([key[0] for key in keys], pa.int64()), pa.array([key[1] for key in keys], pa.string())])
    assert seen.are_distinct == (len(set(keys)) == len(keys))


@pytest.mark.parametrize(
    ("kind", "type_name"), [(sa.Numeric(), "numeric"), (sa.CHAR(3), "character(3)"), (sa.Uuid(), "uuid")]
)
def test_keys_that_can_be_written_in_several_ways_are_left_to_the_database(
    kind: TypeEngine[Any], type_name: str
) -> None:
    seen = KeysSeen([key_column(kind, type_name)])
    seen.add([pa.array(["1"], pa.string())])
    assert not seen.are_distinct


def test_of_very_many_keys_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync_pipelines.targets.staging.distinct_keys.MOST_KEYS", 10)
    seen = KeysSeen([NUMBER])
    for start in range(0, 12, 6):
        seen.add([pa.array(range(start, start + 6), pa.int64())])
    assert not seen.are_distinct
