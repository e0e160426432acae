"""Drift: what is told of fields that items had and have no more, and of what nobody should be bothered with."""

from __future__ import annotations

import pytest

from sync_pipelines.engine.item_shapes import (
    INNER,
    FieldShape,
    ItemShapes,
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
        pytest.param({"sale": shape(1_000, 300)}, {"id": shape(1_000, 1_000)}, id="less than half of the items had it"),
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


def test_of_many_fields_the_first_are_named() -> None:
    before = {f"f{number}": shape(20, 20) for number in range(14)} | {"id": shape(20, 20)}

    told = drift_between(before, {"id": shape(20, 20)})

    assert len(told) == 11
    assert told[-1] == "4 fields more"


def test_shapes_come_back_from_the_manifest_as_they_were() -> None:
    shapes = {"title": FieldShape(3, 2, 1, {"text": 1}), f"a{INNER}b.c": FieldShape(3, 0, 0)}

    assert shapes_from_json(shapes_to_json(shapes)) == shapes
