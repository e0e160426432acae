"""Tells that no two staged items have the same key, without asking the database, which would have to sort them all."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.targets.staging.staged_columns import StagedColumn

MOST_KEYS = 2_000_000
"""Of so many keys the hashes are kept, 8 bytes each; of more the database finds the duplicates."""
# for the memory: they are looked at one after the other, and in pieces
_PARTS = 16
_PIECE = 50_000


class KeysSeen:
    """The hashes of all staged keys.

    Args:
        columns: The key columns as they are staged.
    """

    def __init__(self, columns: Sequence[StagedColumn]) -> None:
        self._can_tell = all(_has_one_form(column) for column in columns)
        self._hashes = array("q")

    def add(self, keys: Sequence[Any]) -> None:
        """Takes note of a page of keys, given column by column."""
        if not self._can_tell:
            return
        values = [column.to_pylist() for column in keys]
        self._hashes.extend(map(hash, values[0] if len(values) == 1 else zip(*values, strict=True)))
        if len(self._hashes) > MOST_KEYS:
            self._can_tell, self._hashes = False, array("q")

    @cached_property
    def are_distinct(self) -> bool:
        """True if no two keys are the same; False if two may be, or if it can't be told here. Asked at the end."""
        if not self._can_tell:
            return False
        hashes = pa.Array.from_buffers(pa.int64(), len(self._hashes), [None, pa.py_buffer(self._hashes)])
        pieces = [hashes.slice(start, _PIECE) for start in range(0, len(hashes), _PIECE)]
        self._hashes = array("q")
        return all(_has_distinct(pieces, number) for number in range(_PARTS))


def _has_distinct(pieces: Sequence[pa.Array], number: int) -> bool:
    """True if no two of the hashes that end in that number are the same."""
    parts = [piece.filter(pc.equal(pc.bit_wise_and(piece, _PARTS - 1), number)) for piece in pieces]
    part = pa.chunked_array(parts, pa.int64())
    return bool(pc.count_distinct(part).as_py() == len(part))


def _has_one_form(column: StagedColumn) -> bool:
    """True if two values of the column that the database finds equal are written alike."""
    facts = column.codec.facts
    return facts.family == "int" or (facts.family == "text" and not facts.padded)
