"""What happened to one record, and the form in which what a sync wrote in bulk is kept: lines, packed into blocks.

A line is the external id as JSON, a tab, a letter for what was written, a tab, and the fields' old and new values as
JSON (nothing where they are not kept). A block is sorted lines, compressed, with the first and the last id in it: a
record's line is found by opening one block in many.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sync_pipelines.engine.codec import decode
from sync_pipelines.engine.plan import FieldChange, Outcome
from sync_pipelines.errors import ConfigurationError

LONGEST_BOUND = 100
"""Bounds of a block are cut to so many characters, which leaves their order as it is."""
_to_json = json.JSONEncoder(ensure_ascii=False).encode
_BLOCK_CHARS = 64_000
_SORTED_CHARS = 16_000_000
_LEVEL = 1
_LETTERS = {Outcome.CREATED: "c", Outcome.UPDATED: "u", Outcome.DELETED: "d"}
_OUTCOMES = {letter: outcome for outcome, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One thing that happened to a record.

    Args:
        at: When, aware. Of a failure: when its run ended. Of a webhook: when it was received.
        kind: `created`, `updated`, `deleted`, `failed` (an item that could not be written) or `webhook` (a delivery
            about the record, also one that `trigger_item` or `apply_item` has stored).
        external_id: The record's canonical external id; of a failure or a webhook as it was given.
        run_id: The run that did it; None for single items that were applied at once, and for webhooks.
        via: How it was written: `full`, `drain`, `apply` (a plan), `retry`, or `single` (one item at once).
        changes: Field -> old and new value. `old` is None for a create, `new` for a delete; of one that only marks, the
            mark's both values. None if they are not known: the target does not name its fields, or the record came
            with a first load into an empty table.
        message: Why it failed.
        delivery: The number of the delivery in the inbox.
        delivery_id: What names it at the sender's.
        state: Of a delivery: `waiting`, `applied` or `failed`.
        action: What became of it: `created`, `unchanged`...
    """

    at: datetime
    kind: str
    external_id: str
    run_id: str | None = None
    via: str | None = None
    changes: Mapping[str, FieldChange] | None = None
    message: str | None = None
    delivery: int | None = None
    delivery_id: str | None = None
    state: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryBlock:
    """What was written of some records: lines, compressed, and how many they are.

    Args:
        first: The id of its first line, as JSON and cut; `last` is that of its last line.
    """

    id: str
    run_id: str
    at: datetime
    first: str
    last: str
    count: int
    lines: bytes


def history_line(id_json: str, outcome: Outcome, changes: str) -> str:
    """Writes one line, of the external id and the fields as JSON; empty if the fields are not kept."""
    return f"{id_json}\t{_LETTERS[outcome]}\t{changes}"


def json_of_id(external_id: str) -> str:
    """Encodes an external id as lines have it."""
    return _to_json(external_id)


def blocks_of(lines: Iterable[str], run_id: str, at: datetime) -> Iterator[HistoryBlock]:
    """Packs lines, each of another record and in any order, into blocks. Holds some 16 MB of them at a time."""
    waiting: list[str] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= _SORTED_CHARS:
            yield from _packed(waiting, run_id, at)
            waiting, size = [], 0
    yield from _packed(waiting, run_id, at)


def _packed(lines: list[str], run_id: str, at: datetime) -> Iterator[HistoryBlock]:
    lines.sort()
    start = size = 0
    for place, line in enumerate(lines):
        size += len(line)
        if size >= _BLOCK_CHARS or place == len(lines) - 1:
            yield _block(lines[start : place + 1], run_id, at)
            start, size = place + 1, 0


def _block(lines: list[str], run_id: str, at: datetime) -> HistoryBlock:
    packed = zlib.compress("\n".join(lines).encode(), _LEVEL)
    return HistoryBlock(uuid4().hex, run_id, at, _bound(lines[0]), _bound(lines[-1]), len(lines), packed)


def _bound(line: str) -> str:
    return line[: LONGEST_BOUND + 1].partition("\t")[0][:LONGEST_BOUND]


def bound_of(external_id: str) -> str:
    """Returns what lies between the bounds of each block that may have a line of the record."""
    return json_of_id(external_id)[:LONGEST_BOUND]


def lines_of(lines: bytes) -> list[str]:
    """Returns the lines of a block."""
    return zlib.decompress(lines).decode().split("\n")


def without(block: HistoryBlock, written: Collection[str]) -> Iterator[HistoryBlock]:
    """Yields the block without the lines of other records than these, by their id as JSON."""
    kept = [line for line in lines_of(block.lines) if line.partition("\t")[0] in written]
    yield from _packed(kept, block.run_id, block.at)


def find_line(lines: bytes, external_id: str) -> tuple[Outcome, str] | None:
    """Finds what a block has of a record: what was written, and the fields as JSON; None if it has no line of it."""
    text, start_of_line = f"\n{zlib.decompress(lines).decode()}\n", f"\n{json_of_id(external_id)}\t"
    start = text.find(start_of_line)
    if start < 0:
        return None
    letter, _, changes = text[start + len(start_of_line) : text.index("\n", start + 1)].partition("\t")
    return _OUTCOMES[letter], changes


def read_changes(text: str | None) -> dict[str, FieldChange] | None:
    """Reads the fields' old and new values; None where they are not kept.

    A value that can't be read back in this process (a class that is gone, a date beyond Python's) stays the JSON that
    was kept of it.
    """
    if not text:
        return None
    try:
        changes: Any = decode(text)
    except (ConfigurationError, ValueError, TypeError, ArithmeticError, LookupError):
        changes = {name: [_decoded(value) for value in pair] for name, pair in json.loads(text).items()}
    return {str(name): FieldChange(old, new) for name, (old, new) in changes.items()}


def _decoded(value: Any) -> Any:
    try:
        return decode(json.dumps(value))
    except (ConfigurationError, ValueError, TypeError, ArithmeticError, LookupError):
        return value
