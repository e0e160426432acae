"""What all items of a fetch are, in short: the same for the same items in whatever order and pages they come.

Each item is hashed, and the hashes are added up, so that it takes no memory. All of a page is hashed at once, column by
column, which is why it needs numpy.

A number is hashed by its value, and a field that an item lacks as one that is null. A field that is a text in some
items and an object in others is kept, and hashed, in a form that depends on the page: then another order may look like
other items, never the other way round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sync_pipelines.snapshots.column_kinds import NUMBER, Kind

Hashes = npt.NDArray[np.uint64]

_WORD = 8
_LONG_TEXT = 256
"""A longer text is hashed by itself: the others need not wait for it, word by word."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ODD_TOO = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_TAILS = np.array([(1 << (8 * size)) - 1 for size in range(_WORD)] + [2**64 - 1], dtype=np.uint64)
"""How many bytes are left of a text -> which of a word belong to it."""


class ContentSum:
    """Adds up the hashes of all items of a snapshot."""

    def __init__(self) -> None:
        self._sum = 0
        self._items = 0
        self._salts: dict[str, np.uint64] = {}

    def add(self, kinds: Mapping[str, Kind], table: pa.Table) -> None:
        """Takes a page.

        Args:
            kinds: Field -> kind of its column `field_0`, `field_1` and so on.
        """
        hashes: Hashes = np.zeros(len(table), dtype=np.uint64)
        self._add_column(hashes, "", None, table.column("item"))
        for number, (name, kind) in enumerate(kinds.items()):
            self._add_column(hashes, f"field {name}", kind, table.column(f"field_{number}"))
        self._sum += int(_mixed(hashes).sum(dtype=np.uint64))
        self._items += len(table)

    def _add_column(self, hashes: Hashes, name: str, kind: Kind | None, column: pa.ChunkedArray) -> None:
        """Adds the hashes of a column's values to those of their items; a null adds nothing."""
        values = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if values.null_count == len(values):
            return
        salt = self._salts.get(name)
        if salt is None:
            salt = self._salts[name] = _salt_of(name)
        own = _hash_values(kind, values)
        own += salt
        own *= salt
        if values.null_count:
            own *= _bits(pc.is_valid(values))
        hashes += own

    def text(self) -> str:
        """Returns the sum: of how many items, and of which."""
        return f"{self._items}-{self._sum % 2**64:016x}"


def _salt_of(name: str) -> np.uint64:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_WORD).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)  # odd, so that nothing is lost where it multiplies


def _spread(bits: Hashes, odd: np.uint64) -> Hashes:
    """Moves the high bits down: a short fraction has no others, and after a product alone the low ones stay zero."""
    hashes: Hashes = (bits ^ (bits >> _HALF)) * odd
    hashes ^= hashes >> _HALF
    return hashes


def _mixed(hashes: Hashes) -> Hashes:
    """Spreads each bit over all: only then do sums of hashes say which values stand together."""
    hashes = _spread(hashes, _ODD_TOO) * _ODD_TOO
    return hashes ^ (hashes >> _HALF)


def _hash_values(kind: Kind | None, values: pa.Array) -> Hashes:
    hasher: Callable[[pa.Array], Hashes] | None = _BY_TYPE.get(values.type)
    if kind is NUMBER:
        return _of_number_texts(values)
    return hasher(values) if hasher is not None else _of_integers(values.cast(pa.int64()))


def _of_dates(values: pa.Array) -> Hashes:
    return _of_integers(values.cast(pa.int32()).cast(pa.int64()))  # Arrow knows no shorter way


def _of_integers(values: pa.Array) -> Hashes:
    whole: npt.NDArray[np.int64] = _filled(values).to_numpy(zero_copy_only=False)
    return _spread(whole.view(np.uint64), _ODD)


def _of_floats(values: pa.Array) -> Hashes:
    """Hashes numbers, a whole one as the integer that it is."""
    numbers: npt.NDArray[np.float64] = _filled(values).to_numpy(zero_copy_only=False) + 0.0  # makes -0.0 to 0.0
    hashes = _spread(numbers.view(np.uint64), _ODD_TOO)
    is_whole = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
    hashes[is_whole] = _spread(numbers[is_whole].astype(np.int64).view(np.uint64), _ODD)
    hashes[np.isnan(numbers)] = _ODD_TOO
    return hashes


def _of_number_texts(values: pa.Array) -> Hashes:
    """Hashes numbers that are kept as texts as what they are, of whatever size."""
    is_whole = pc.fill_null(pc.match_substring_regex(values, r"^-?\d{1,18}$"), fill_value=False)
    hashes = _of_integers(pc.cast(pc.if_else(is_whole, values, "0"), pa.int64()))
    others = np.flatnonzero(~_bits(is_whole))
    texts = values.take(pa.array(others, pa.int64()))
    is_huge = pc.fill_null(pc.match_substring_regex(texts, r"^-?\d+$"), fill_value=False)
    numbers = pc.cast(pc.if_else(is_huge, "0", texts), pa.float64())
    hashes[others] = np.where(_bits(is_huge), _of_texts(texts), _of_floats(numbers))
    return hashes


def _of_texts(values: pa.Array) -> Hashes:
    """Hashes texts or bytes: all of their first words, then all of the second, and so on."""
    validity, offsets, data = values.buffers()
    del validity
    count = len(values)
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + count + 1].astype(np.int64)
    starts, lengths = bounds[:-1], np.diff(bounds)
    hashes = lengths.view(np.uint64) * _ODD
    first, last = int(bounds[0]), int(bounds[-1])
    if first == last:
        return hashes
    padded = np.zeros(last - first + _WORD, np.uint8)
    padded[: last - first] = np.frombuffer(data, np.uint8)[first:last]
    words = np.ndarray((last - first + 1,), "<u8", padded, strides=(1,))
    rows = np.flatnonzero((lengths > 0) & (lengths <= _LONG_TEXT))
    at, left = starts[rows] - first, lengths[rows]
    own = hashes[rows]
    while len(rows):
        word = words[at]
        shortest = left.min()
        if shortest < _WORD:
            word &= _TAILS[np.minimum(left, _WORD)]
        own ^= word
        own *= _ODD
        own ^= own >> _HALF
        at += _WORD
        left -= _WORD
        if shortest <= _WORD:
            hashes[rows] = own
            goes_on = np.flatnonzero(left > 0)
            rows, at, left, own = rows[goes_on], at[goes_on], left[goes_on], own[goes_on]
    for row in np.flatnonzero(lengths > _LONG_TEXT):
        text = padded[starts[row] - first : starts[row] - first + lengths[row]].tobytes()
        hashes[row] = int.from_bytes(hashlib.blake2b(text, digest_size=_WORD).digest(), "little")
    return hashes


def _of_bools(values: pa.Array) -> Hashes:
    return _bits(_filled(values)).astype(np.uint64) * _ODD + _ODD_TOO


def _filled(values: pa.Array) -> pa.Array:
    """Returns the values with zeros in the place of nulls, which count for nothing anyway."""
    return pc.fill_null(values, pa.scalar(0, pa.int64()).cast(values.type)) if values.null_count else values


def _bits(values: pa.Array) -> npt.NDArray[Any]:
    bits: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return bits


_BY_TYPE: Mapping[pa.DataType, Callable[[pa.Array], Hashes]] = {
    pa.string(): _of_texts,
    pa.binary(): _of_texts,
    pa.int64(): _of_integers,
    pa.float64(): _of_floats,
    pa.bool_(): _of_bools,
    pa.date32(): _of_dates,
}
"""How columns are hashed; those of other types, which are moments, as the integers that they are."""
