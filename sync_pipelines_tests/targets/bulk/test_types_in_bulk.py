"""Promise 1 in bulk: the second run changes nothing, whatever the types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines_tests.targets import test_second_run as types
from sync_pipelines_tests.targets.bulk.conftest import Syncs, counts

GROUPS = [
    ["small", "whole", "big", "price", "exact", "digits", "ratio", "single", "flag"],
    ["note", "code", "padded", "guid", "hex", "name", "flexible", "untyped"],
    ["day", "naive", "clock", "rounded", "millis", "aware", "clock2", "zoned", "length", "length1"],
    ["extra"],
    ["jsonb", "objects"],
    ["id", "raw", "tens", "tags", "codes", "prices", "moments"],
    ["host", "span", "money", "mood", "moods", "cost"],
]


def test_every_type_is_in_a_group() -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(types.VALUES)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_the_second_run_in_bulk_changes_nothing(sync: Syncs, group: list[str]) -> None:
    """Created, unchanged, updated to other values, unchanged; and page by page everything is unchanged as well."""
    known = types.columns_of(sync.database)
    columns = [name for name in group if name in known]
    if not columns:
        return  # types of the other database
    types.make_table(sync.database, {name: known[name] for name in columns})
    row = st.fixed_dictionaries({name: types.VALUES[name] | types.MISSING for name in columns})

    @given(pairs=st.lists(st.tuples(row, row), min_size=20, max_size=30))
    @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def run_four_times(pairs: list[tuple[Any, Any]]) -> None:
        sync.execute("DELETE FROM things")
        first = [{"sku": f"S{number}", **pair[0]} for number, pair in enumerate(pairs)]
        second = [{"sku": f"S{number}", **pair[1]} for number, pair in enumerate(pairs)]
        assert counts(sync(first, columns=columns)) == {"created": len(pairs)}
        assert_up_to_date(sync, first, columns)
        updated = sync(second, columns=columns)
        assert updated.updated + updated.unchanged == len(pairs)
        assert_up_to_date(sync, second, columns)

    run_four_times()


def assert_up_to_date(sync: Syncs, items: list[dict[str, Any]], columns: list[str]) -> None:
    with types.opened(sync.database, columns=columns) as target:
        types.assert_up_to_date(target, items)
    assert counts(sync(items, columns=columns)) == {"unchanged": len(items)}
