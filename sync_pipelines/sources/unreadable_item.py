"""An item that a source could not read: it fails on its own, and the fetch goes on."""

from __future__ import annotations

from typing import Any, NoReturn

from sync_pipelines.errors import ItemError


class UnreadableItem(dict[str, Any]):
    """Stands in a page where an item should be; whoever looks into it gets an `ItemError` that says what is wrong.

    So whatever asks for its external id fails with that message, and a snapshot can't keep it, just as it can't keep
    the `ItemError` that a source leaves in a single field.

    Args:
        message: What is wrong, naming the place: file and line, or URL and position.
    """

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def __eq__(self, other: object) -> bool:
        return self is other  # not as the empty dicts that they are: each stands for an item of its own

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"UnreadableItem({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return UnreadableItem, (self.message,)

    def _refuse(self, *_: Any) -> NoReturn:
        raise ItemError(self.message)

    __contains__ = __getitem__ = __iter__ = get = items = keys = values = _refuse
