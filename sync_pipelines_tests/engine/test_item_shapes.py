"""Drift: what is told of fields that items had and have no more, and of what nobody should be bothered with."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb

import pytest

from sync_pipelines.engine.item_shapes import (
    ANY_NAME,
    INNER,
    FieldShape,
    ItemShapes,
    _chance,
    drift_between,
    shapes_from_json,
    shapes_to_json,
)


def shape(of: int, filled: int, kind: str = "text", present: int | None = None) -> FieldShape:
    return FieldShape(of, filled if present is None else present, filled, {kind: filled} if filled else {})


def test_a_field_that_all_items_had_and_none_has_is_told_beside_the_one_that_is_new() -> None:
    before = {"title": shape(20, 20), "price": shape(20, 20)}
    now = {"price": shape(20, 20), "name": shape(20, 20)}

    assert drift_between(before, now) == ["`title` was in 100 % of items, is in none", "new: `name`"]


def test_a_field_that_has_become_null_or_empty_in_most_items_is_told() -> None:
    assert drift_between({"title": shape(200, 190)}, {"title": shape(210, 3, present=210)}) == [
        "`title` was filled in 95 % of items, is in 1.43 %"
    ]


def test_numbers_that_have_become_text_are_told() -> None:
    before, now = {"price": shape(100, 98, "numbers")}, {"price": shape(100, 97, "text", present=100)}

    assert drift_between(before, now) == ["`price` held numbers in 100 % of items, now text in 100 %"]


def test_a_field_inside_of_an_object_is_told_with_both_names() -> None:
    before = {"fields": shape(20, 20, "objects"), f"fields{INNER}title": shape(20, 20)}
    now = {"fields": shape(20, 20, "objects"), f"fields{INNER}title": shape(20, 0, present=20)}

    assert drift_between(before, now) == ["`fields.title` was filled in 100 % of items, is in none"]


def test_of_an_object_that_has_gone_its_fields_are_not_told_one_by_one() -> None:
    before = {"fields": shape(20, 20, "objects"), f"fields{INNER}title": shape(20, 20), "id": shape(20, 20)}

    assert drift_between(before, {"id": shape(20, 20)}) == ["`fields` was in 100 % of items, is in none"]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param({}, {"title": shape(20, 20)}, id="nothing to compare with"),
        pytest.param(
            {"id": shape(20, 20)}, {"id": shape(20, 20), "name": shape(20, 20)}, id="a field is new, none gone"
        ),
        pytest.param({"sale": shape(1_000, 12)}, {"id": shape(1_000, 1_000)}, id="twelve of a thousand"),
        pytest.param({"sale": shape(1_000, 300)}, {"sale": shape(1_000, 100)}, id="seldom, and more seldom"),
        pytest.param({"sale": shape(1_000, 300)}, {"sale": shape(1_000, 16)}, id="more than next to none"),
        pytest.param({"sale": shape(20_000, 40)}, {"id": shape(3_000, 3_000)}, id="six could have been expected"),
        pytest.param({"note": shape(20, 11)}, {"id": shape(20, 20)}, id="chance may be it"),
        pytest.param({"note": shape(15, 9)}, {"id": shape(15, 15)}, id="few items are concerned"),
        pytest.param({"note": shape(2, 2)}, {"id": shape(2, 2)}, id="two items say nothing"),
        pytest.param({"title": shape(100, 90)}, {"title": shape(100, 50)}, id="still in more than half as many"),
        pytest.param({"at": shape(100, 100)}, {"at": shape(12, 6, present=12)}, id="six of twelve"),
        pytest.param({"n": shape(20, 10, "numbers")}, {"n": shape(20, 0, present=20)}, id="ten are few"),
        pytest.param(
            {"n": FieldShape(100, 100, 100, {"numbers": 55, "text": 45})},
            {"n": FieldShape(100, 100, 100, {"numbers": 45, "text": 55})},
            id="both types as before",
        ),
    ],
)
def test_nobody_is_bothered_with(before: ItemShapes, now: ItemShapes) -> None:
    assert drift_between(before, now) == []


@pytest.mark.parametrize(
    ("had", "of", "has", "of_now"),
    [(490, 1_000, 0, 1_000), (300, 1_000, 0, 1_000), (25, 1_000, 0, 1_000), (300, 1_000, 8, 900), (40, 1_000, 0, 900)],
)
def test_a_field_of_few_items_that_has_gone_is_told_if_chance_does_not_explain_it(
    had: int, of: int, has: int, of_now: int
) -> None:
    (told,) = drift_between({"sale": shape(of, had)}, {"sale": shape(of_now, has), "id": shape(of_now, of_now)})[:1]

    assert told.startswith(f"`sale` was in {100 * had / of:.3g} % of items, is in ")


def test_chance_is_that_of_fishers_exact_test() -> None:
    for before, of, now, of_now in ((490, 1_000, 0, 1_000), (19, 20, 2, 20), (60, 100, 30, 100), (9, 15, 0, 15)):
        ways = [comb(of_now, few) * comb(of, before + now - few) for few in range(now + 1)]
        exact = sum(ways) / comb(of + of_now, before + now)
        assert exact <= _chance(before, of, now, of_now) * (1 + 1e-9) <= 2 * exact * (1 + 1e-6)


def inner(of: int, names: Mapping[str, int], outer: str = "by_day") -> dict[str, FieldShape]:
    return {outer: shape(of, of, "objects")} | {f"{outer}{INNER}{name}": shape(of, had) for name, had in names.items()}


def days(first: int, last: int) -> list[str]:
    return [f"2026-11-{day:02}" for day in range(first, last)]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param(dict.fromkeys(days(1, 11), 20), dict.fromkeys(days(2, 12), 20), id="dates"),
        pytest.param({f"SKU-{n}": 20 for n in range(9)}, {f"SKU-{n}": 20 for n in range(4, 13)}, id="ids"),
        pytest.param({str(n): 20 for n in range(9)}, {str(n): 20 for n in range(4)}, id="numbers, some gone"),
        pytest.param({ANY_NAME: 20}, dict.fromkeys("abcde", 20), id="there were too many"),
        pytest.param(dict.fromkeys("abcde", 20), {ANY_NAME: 20}, id="there are too many"),
        pytest.param(
            {f"{a}{b}": 40 for a in "abcde" for b in "vwxyz"},
            {f"{a}{b}": 40 for a in "fghij" for b in "vwxyz"},
            id="each in few",
        ),
    ],
)
def test_names_that_are_data_come_and_go_without_a_note(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    of = 1_000 if 40 in before.values() else 20

    assert drift_between(inner(of, before), inner(of, now)) == []


def test_what_is_in_all_fields_whose_names_are_data_is_told_once() -> None:
    before = inner(20, dict.fromkeys(days(1, 11), 20))
    now = {
        name: shape(20, 0 if INNER in name else 20, present=20) for name in inner(20, dict.fromkeys(days(2, 12), 20))
    }

    assert "`by_day.*` was filled in 100 % of items, is in none" in drift_between(before, now)


def test_fields_in_fields_of_such_names_are_compared_as_one() -> None:
    def prices(first: int, name: str) -> dict[str, FieldShape]:
        level = inner(20, dict.fromkeys(days(first, first + 10), 20))
        return level | {f"{day}{INNER}{name}": shape(20, 20) for day in level if INNER in day}

    assert drift_between(prices(1, "amount"), prices(2, "amount")) == []
    assert drift_between(prices(1, "amount"), prices(2, "value")) == [
        "`by_day.*.amount` was in 100 % of items, is in none",
        "new: `by_day.*.value`",
    ]


def test_columns_that_are_numbered_are_told() -> None:
    before = {str(number): shape(20, 20) for number in range(8)}

    assert drift_between(before, {**before, "3": shape(20, 0, present=20)}) == [
        "`3` was filled in 100 % of items, is in none"
    ]


def test_of_many_fields_the_first_are_named() -> None:
    before = {f"f{number}": shape(20, 20) for number in range(14)} | {"id": shape(20, 20)}

    told = drift_between(before, {"id": shape(20, 20)})

    assert len(told) == 11
    assert told[-1] == "4 fields more"


def test_shapes_come_back_from_the_manifest_as_they_were() -> None:
    shapes = {"title": FieldShape(3, 2, 1, {"text": 1}), f"a{INNER}b.c": FieldShape(3, 0, 0)}

    assert shapes_from_json(shapes_to_json(shapes)) == shapes
