"""`item`: one item through the very same path."""

from __future__ import annotations

import sys
from typing import Any

from sync_pipelines.cli.output import show_json, show_line
from sync_pipelines.delivery.single_items import STORED, apply_item
from sync_pipelines.engine.json_text import parse_json
from sync_pipelines.errors import ConfigurationError


def apply_one(name: str, text: str, *, as_json: bool) -> None:
    """Applies an item, notes it in the inbox and the history of its record, and shows what became of it."""
    item = _item(sys.stdin.buffer.read() if text == "-" else text)
    result = apply_item(name, item)
    if as_json:
        show_json({"job": name, "action": result.action, "external_id": result.external_id})
        return
    show_line(f"{result.action} {result.external_id}")
    if result.action == STORED:
        show_line("a run of this sync is under way: the item waits in the inbox, and is applied after that run")


def _item(text: str | bytes) -> dict[str, Any]:
    try:
        item = parse_json(text)
    except ValueError as error:
        raise ConfigurationError(f'the item is not JSON: {error}; write it like \'{{"sku": "A-1"}}\'') from error
    if not isinstance(item, dict):
        raise ConfigurationError(f"the item is a JSON {type(item).__name__}; give one object with the item's fields")
    return item
