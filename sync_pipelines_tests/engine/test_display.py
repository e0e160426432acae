"""Values are shown readable, as JSON can hold them, and without secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from sync_pipelines.engine.display import shown_text, shown_value


@dataclass
class Part:
    name: str
    password: str = "hunter2"


class Model(BaseModel):
    name: str
    api_key: str = "hunter2"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (Decimal("10.50"), "10.50"),
        (datetime(2026, 5, 1, 12, tzinfo=UTC), "2026-05-01T12:00:00+00:00"),
        (date(2026, 5, 1), "2026-05-01"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"12345", "5 bytes"),
        ({"a": (1, Decimal(2))}, {"a": [1, "2"]}),
        (Part("x"), {"name": "x", "password": "***"}),
        (Model(name="x"), {"name": "x", "api_key": "***"}),
        ("postgresql://me:hunter2@db/shop", "postgresql://me:***@db/shop"),
    ],
    ids=str,
)
def test_values_are_shown(value: Any, shown: Any) -> None:
    assert shown_value("field", value) == shown
    json.dumps(shown_value("field", value), allow_nan=False)


@pytest.mark.parametrize("name", ["password", "db_password", "apiToken", "API-KEY", "client_secret", "passwordHash"])
def test_what_is_called_a_secret_is_not_shown_at_all(name: str) -> None:
    for value in ("hunter2 with blanks", 4711, {"a": "hunter2"}):
        assert shown_value(name, value) == "***"
    assert shown_value(name, None) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), ("null", '"null"'), ("", '""'), (" a", '" a"'), ("Größe", "Größe"), ([1], "[1]"), (5, "5")],
)
def test_a_text_can_be_told_from_what_it_is_not(value: Any, text: str) -> None:
    assert shown_text("field", value) == text


@pytest.mark.parametrize("value", ["one\ntwo", "\x1b[2J", "\x9b2J", "a\u202eb", ["one\ntwo \x7f"]], ids=ascii)
def test_a_line_stays_a_line_and_no_value_gives_orders_to_a_terminal(value: Any) -> None:
    text = shown_text("field", value)
    assert text.isprintable()
    assert json.loads(text) == value


def test_long_texts_are_cut() -> None:
    assert shown_text("field", "x" * 200) == "x" * 79 + "…"
    assert shown_text("field", "x" * 200, None) == "x" * 200
