"""An error of a user's function says in which it was raised, and where: file, line, function, and the way to it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from sync_pipelines.engine.calls import call_own
from sync_pipelines.engine.causes import template_of
from sync_pipelines.engine.places import is_users, note_place, place_of
from sync_pipelines.engine.redaction import described, message_of
from sync_pipelines.engine.results import SyncError
from sync_pipelines.errors import ItemError, RetryableError
from sync_pipelines.testing import MemoryTarget

HERE = "test_places.py"


def price_of(item: dict[str, Any]) -> Any:
    return item["price"]


def columns(item: dict[str, Any]) -> Any:
    return {"price": price_of(item)}


async def fetch(item: dict[str, Any]) -> Any:
    await asyncio.sleep(0)
    return price_of(item)


def raised(function: Callable[..., Any], *arguments: Any, what: str = "create") -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        call_own(what, function, *arguments)
    return caught.value


def line_of(function: Callable[..., Any], offset: int = 1) -> int:
    return function.__code__.co_firstlineno + offset


def test_a_message_names_function_error_file_line_and_the_function_that_raised() -> None:
    error = raised(columns, {}, what="columns")

    assert message_of(error) == f"columns: KeyError: 'price' ({HERE}:{line_of(price_of)}, in price_of)"
    assert described(error) == message_of(error)


def test_what_a_library_has_generated_is_no_place() -> None:
    @dataclasses.dataclass
    class Item:
        sku: str

        def __post_init__(self) -> None:
            int(self.sku)

    generated: dict[str, Any] = {}
    exec(compile("def refuse(item):\n    raise ValueError('no')\n", "<string>", "exec"), generated)

    def make(sku: str) -> None:
        generated["refuse"](sku)

    assert message_of(raised(make, "x")) == f"create: ValueError: no ({HERE}:{line_of(make)}, in make)"
    assert "<string>" not in str(place_of(raised(Item, "x")))


def test_an_async_function_says_it_too() -> None:
    assert message_of(raised(fetch, {})) == f"create: KeyError: 'price' ({HERE}:{line_of(price_of)}, in price_of)"


def test_an_error_that_a_library_raised_is_at_the_users_call_of_it() -> None:
    import json

    def parse(text: str) -> Any:
        return json.loads(text)

    assert message_of(raised(parse, "{")).endswith(f"({HERE}:{line_of(parse)}, in parse)")


def test_what_python_itself_raises_has_no_place_but_a_name() -> None:
    assert message_of(raised(int, "x")) == "create: ValueError: invalid literal for int() with base 10: 'x'"


@pytest.mark.parametrize("error", [ItemError("the colour is unknown"), RetryableError("503")])
def test_an_error_that_is_raised_on_purpose_says_what_its_author_wants(error: Exception) -> None:
    def create(_item: Any) -> None:
        raise error

    assert message_of(raised(create, {})) == str(error)


def test_an_error_without_words_says_what_it_is() -> None:
    def create(_item: Any) -> None:
        raise AssertionError

    assert message_of(raised(create, {})) == f"create: AssertionError ({HERE}:{line_of(create)}, in create)"


def test_the_innermost_function_counts() -> None:
    def create(item: Any) -> None:
        call_own("column 'price'", price_of, item)

    assert message_of(raised(create, {})).startswith("column 'price': KeyError")


def test_a_long_message_keeps_its_place_and_no_secret() -> None:
    def create(_item: Any) -> None:
        raise ValueError("password=hunter2 " + "x" * 5_000)

    message = message_of(raised(create, {}))

    assert len(message) <= 2_000
    assert message.endswith(f"({HERE}:{line_of(create)}, in create)")
    assert "hunter2" not in message


def test_an_exception_that_takes_no_attributes_has_its_place_too() -> None:
    class Odd(Exception):  # noqa: N818 - for this test
        def __setattr__(self, _name: str, _value: object) -> None:
            raise AttributeError

    def create(_item: Any) -> None:
        raise Odd("odd")

    assert message_of(raised(create, {})) == f"create: Odd: odd ({HERE}:{line_of(create)}, in create)"


def test_two_bugs_are_two_causes_and_one_bug_with_many_values_is_one() -> None:
    rates = {"EUR": 1}

    def rate_of(item: dict[str, Any]) -> Any:
        return rates[item["currency"]]

    def template(function: Callable[..., Any], item: dict[str, Any], what: str = "column 'price'") -> str:
        error = raised(function, item, what=what)
        return template_of(type(error).__name__, message_of(error), item.get("id"))

    many = {template(rate_of, {"currency": f"X-{number}", "id": str(number)}) for number in range(1_000)}
    assert len(many) == 1
    assert template(rate_of, {}) not in {template(price_of, {}), template(price_of, {}, "column 'cost'")}
    assert template(price_of, {}) == (f"column 'price': KeyError: <text> ({HERE}:{line_of(price_of)}, in price_of)")


def test_the_trace_shows_all_of_the_users_functions_on_the_way() -> None:
    kept = SyncError.of(raised(columns, {}), "A-1", 0)

    lines = kept.trace.splitlines()
    assert [line.rpartition(" in ")[2] for line in lines[::2]] == ["columns", "price_of"]
    assert lines[-1].strip() == 'return item["price"]'


def test_what_is_kept_holds_no_frame_alive() -> None:
    class Page(dict[str, Any]):
        pass

    page = Page()
    alive = weakref.ref(page)
    error = raised(columns, page)
    kept = SyncError.of(error, "A-1", 0)
    del page
    gc.collect()

    assert alive() is None
    assert kept.message.startswith("create: KeyError")
    assert place_of(error) is not None


def test_only_what_is_not_this_packages_is_a_users() -> None:
    assert is_users(price_of)
    assert is_users({}.get)
    assert is_users(type("Target", (), {}))
    assert not is_users(MemoryTarget)


def test_it_is_told_once_where_an_error_comes_by_again() -> None:
    error = raised(price_of, {}, what="column 'price'")

    note_place(error, "create")

    assert message_of(error).startswith("column 'price'")


def test_one_error_that_two_functions_raise_names_the_one_that_did() -> None:
    """A constant of a module, say."""
    shared = ValueError("no")

    def create(_item: Any) -> None:
        raise shared

    def update(_item: Any) -> None:
        raise shared

    for function in (create, update, create):
        told = SyncError.of(raised(function, {}, what=function.__name__), "A", 0)
        assert (
            told.message == f"{function.__name__}: ValueError: no ({HERE}:{line_of(function)}, in {function.__name__})"
        )


def test_an_error_that_is_raised_again_where_its_last_raising_began_has_no_old_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its frames are gone, so the next ones may lie at the same place in memory: luck, which this test rules out."""
    monkeypatch.setattr("sync_pipelines.engine.places._raised", lambda _traceback: 4_711)
    shared = ValueError("no")

    def find(_item: Any) -> None:
        raise shared

    def create(_item: Any) -> None:
        raise shared

    messages = [SyncError.of(raised(each, {}, what=each.__name__), "A", 0).message for each in (find, create)]

    assert [message.partition(":")[0] for message in messages] == ["find", "create"]
