"""The JSON that Tryton speaks."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.tryton_wire import from_wire, to_wire


@pytest.mark.parametrize(
    "value",
    [
        Decimal("10.50"),
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        date(2026, 1, 2),
        time(3, 4, 5, 6),
        timedelta(days=-1, microseconds=5),
        b"\x00\xff" * 99,
        [1, 2.5, None, True, "茶碗", {"a": {"b": []}}],
    ],
)
def test_wire_types_survive_the_way_there_and_back(value):
    again = from_wire(to_wire(value))
    assert again == value
    assert type(again) is type(value)


def test_datetime_of_another_zone_is_sent_as_utc():
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert from_wire(to_wire(moment)) == datetime(2025, 12, 31, 23, 30, tzinfo=UTC)


def test_object_of_an_unknown_class_stays_a_dict():
    assert from_wire('{"__class__": "Point", "x": 1}') == {"__class__": "Point", "x": 1}
    assert from_wire('{"__class__": [1]}') == {"__class__": [1]}


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), object(), float("nan")])  # noqa: DTZ001 - naive on purpose
def test_value_without_a_form_on_the_wire_is_refused(value):
    with pytest.raises(ConfigurationError, match="can't be sent"):
        to_wire([["write_date", ">", value]])


def test_sets_are_sent_as_lists():
    assert from_wire(to_wire([["code", "in", {"b", "a"}]])) == [["code", "in", ["a", "b"]]]


def test_an_answer_is_utf_8_whatever_charset_its_header_declares() -> None:
    assert from_wire('{"result": "Größe"}'.encode(), "iso-8859-1") == {"result": "Größe"}
    assert from_wire('{"result": 0.5}') == {"result": 0.5}
