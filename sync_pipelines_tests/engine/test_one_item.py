"""What goes wrong with one item is handed on, and what is no item's own goes through."""

from __future__ import annotations

import pytest

from sync_pipelines.engine.one_item import OneItem
from sync_pipelines.errors import ConfigurationError, ItemError


def test_whatever_one_item_raises_is_handed_on_and_the_others_go_on() -> None:
    errors: list[Exception] = []
    for place in range(3):
        with OneItem(errors.append):
            _ = 1 // (place - 1)
    assert [str(each) for each in errors] == ["integer division or modulo by zero"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), ConfigurationError("wrong")])
def test_what_ends_a_process_and_what_the_caller_wants_to_see_is_raised(error: BaseException) -> None:
    errors: list[Exception] = []
    with pytest.raises(type(error)), OneItem(errors.append, lets_through=ConfigurationError):
        raise error
    assert errors == []


def test_what_the_keeper_raises_is_raised_in_its_place() -> None:
    def keep(error: Exception) -> None:
        raise ItemError("of an item") from error

    with pytest.raises(ItemError, match="of an item") as caught, OneItem(keep):
        raise ValueError("no")
    assert isinstance(caught.value.__cause__, ValueError)
