"""Errors are told by cause: what changes from item to item is left out, what tells causes apart is not."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.engine.causes import MAX_CAUSES, Cause, CauseCounter, compared, fingerprint, template_of

WORDS = st.lists(st.text(string.ascii_letters, min_size=2, max_size=9), min_size=1, max_size=6).map(" ".join)
CHANGING = st.one_of(
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
    st.uuids().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.dates().map(str),
    st.integers(min_value=0).map(hex),
    st.from_regex(r"[A-Z]{1,4}-\d{1,6}", fullmatch=True),
    st.text(string.ascii_letters + " ", max_size=20).map(lambda text: f"'{text}'"),
    st.from_regex(r"[a-z.]{1,9}@shop\.example", fullmatch=True),
)


@pytest.mark.parametrize(
    ("error", "template"),
    [
        (("ValueError", "A-1 is not wanted", "A-1"), "<id> is not wanted"),
        (("ValueError", "red is not wanted", "red"), "<id> is not wanted"),
        (("KeyError", "'stock'", "A-1"), "'stock'"),
        (("ValueError", "invalid literal for int() with base 10: 'abc'", None),
         "invalid literal for int() with base <number>: <text>"),
        (("IntegrityError", "UNIQUE constraint failed: variants.sku", None), "UNIQUE constraint failed: variants.sku"),
        (("UniqueViolation",
          'duplicate key value violates unique constraint "variants_pkey"\nDETAIL:  Key (sku)=(A-1) already exists.',
          None),
         'duplicate key value violates unique constraint "variants_pkey" DETAIL: Key (sku)=(<value>) already exists.'),
        (("CheckViolation", "violates it\nDETAIL:  Failing row contains (A-1, -5, some (text), 2026-01-02).", None),
         "violates it DETAIL: Failing row contains (<value>)."),
        (("HTTPStatusError", "HTTP 404 for https://shop.example/items/4711?page=3", None),
         "HTTP 404 for https://shop.example/items/<number>?page=<number>"),
        (("HTTPStatusError", "status 503 after 3.5 s", None), "status 503 after <number> s"),
        (("ItemError", "field 'price' holds '12,x'", None), "field 'price' holds <text>"),
        (("E", "at 2026-01-31T12:00:00.5+02:00 by a.b@shop.example", None), "at <date> by <email>"),
        (("E", "", None), ""),
    ],
)  # fmt: skip
def test_values_are_left_out_and_names_are_kept(error: tuple[str, str, str | None], template: str) -> None:
    assert template_of(*error) == template


@given(before=WORDS, first=CHANGING, second=CHANGING, after=WORDS)
def test_messages_that_differ_in_a_value_of_one_kind_have_one_template(
    before: str, first: str, second: str, after: str
) -> None:
    one, other = (template_of("E", f"{before}: {each} {after}") for each in (first, second))
    if _shape(one) == _shape(other):
        assert one == other
    assert "<" in one


def _shape(template: str) -> list[str]:
    return [word for word in template.split() if word.startswith("<")]


@given(st.text(max_size=400), st.one_of(st.none(), st.text(max_size=30)))
def test_any_message_has_a_template_that_is_its_own_template(message: str, external_id: str | None) -> None:
    template = template_of("ValueError", message, external_id)
    assert len(template) <= 500
    assert fingerprint("E", template)
    assert template_of("ValueError", template_of("ValueError", template)) == template_of("ValueError", template)


@given(st.text(string.ascii_letters, min_size=1), st.text(string.ascii_letters, min_size=1))
def test_messages_in_other_words_are_other_causes(one: str, other: str) -> None:
    same = template_of("E", one) == template_of("E", other)
    assert same == (one == other)


def test_a_message_of_megabytes_takes_no_time_and_little_space() -> None:
    for part in ("'", '"', "1", "a", "(", "A-1 ", "= (", "0x", "@", "."):
        assert len(template_of("E", part * 1_000_000)) <= 500


def test_causes_come_by_their_number_with_five_samples() -> None:
    counter = CauseCounter()
    for number in range(9):
        counter.add("ValueError", "no", f"A{number}")
    counter.add("KeyError", "'x'", None)
    assert counter.causes() == [
        Cause("ValueError", "no", 9, ("A0", "A1", "A2", "A3", "A4")),
        Cause("KeyError", "'x'", 1),
    ]


def test_of_many_causes_the_most_frequent_are_kept_and_the_rest_is_counted() -> None:
    counter = CauseCounter()
    for number in range(10_000):
        counter.add("E", f"cause {number}", "A")
    for _ in range(5):
        counter.add("E", "cause 1500", "A")
    causes = counter.causes()
    assert (len(causes), causes[0].template, causes[0].count) == (MAX_CAUSES + 1, "cause 1500", 6)
    assert causes[-1] == Cause("", "other causes", 10_005 - 6 - (MAX_CAUSES - 1))


def cause(template: str, **fields: Any) -> Cause:
    return Cause(**{"exception_type": "E", "template": template, "count": 1, **fields})


def test_what_the_run_before_did_not_have_is_new_and_what_this_one_has_not_is_gone() -> None:
    now, gone = compared([cause("a"), cause("b")], [cause("b", count=7), cause("c", count=3, is_new=True)])
    assert now == [cause("a", is_new=True), cause("b")]
    assert gone == [cause("c", count=3)]


def test_where_not_all_causes_are_kept_none_is_called_new_or_gone() -> None:
    other = Cause("", "other causes", 9)
    assert compared([cause("a")], [cause("b"), other]) == ([cause("a")], [cause("b")])
    now, gone = compared([cause("a"), other], [cause("b")])
    assert [each.is_new for each in now] == [True, False]
    assert gone == []


def test_a_line_has_number_error_samples_and_whether_it_is_new() -> None:
    found = Cause("ValueError", "no", 1_200, ("A", "B"), is_new=True)
    assert found.line() == "1,200 x ValueError: no (e.g. A, B); new since the last run"
    assert Cause("", "other causes", 3).line() == "3 x other causes"
