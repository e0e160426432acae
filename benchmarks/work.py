"""The work that every contestant does: items out of a generator, and what the table holds when all is done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Item = dict[str, Any]

KEY = "sku"
FIELDS = ("name", "stock", "price", "changed_at", "color", "size", "brand", "category")
COLUMNS = (KEY, *FIELDS)
PAGE_SIZE = 5_000
POISONED_ITEMS = 100

SCENARIOS = {
    "A": "all new: the table is empty",
    "B": "nothing changed",
    "C": "10 % changed, 1 % new, 1 % gone",
    "D": "all changed",
    "E": "all new, 100 items break a CHECK",
}

_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
_COLORS = ("black", "white", "red", "navy", "green", "grey", "orange", "purple")
_SIZES = ("XS", "S", "M", "L", "XL", "XXL", "one size")
_BRANDS = tuple(f"Brand {letter}" for letter in "ABCDEFGHIJK")
_CATEGORIES = ("shirts", "trousers", "shoes", "jackets", "socks", "hats", "bags", "belts", "scarves")
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Work:
    """One scenario at one size.

    Args:
        scenario: A letter of `SCENARIOS`.
        size: Number of items in the fetch.
    """

    scenario: str
    size: int

    @property
    def local_rows(self) -> int:
        """How many rows the table has at the start."""
        return 0 if self.scenario in {"A", "E"} else self.size

    @property
    def deletes(self) -> bool:
        """True if what is gone from the source must go from the table."""
        return self.scenario == "C"

    @property
    def poisoned(self) -> int:
        """How many items break a CHECK."""
        return min(POISONED_ITEMS, self.size // 2) if self.scenario == "E" else 0

    @property
    def gone(self) -> int:
        """How many rows the source no longer has; as many others are new there."""
        return self.size // 100 if self.scenario == "C" else 0

    def pages(self, page_size: int = PAGE_SIZE) -> Iterator[list[Item]]:
        """Gives the items lazily, in no order of the key and in another order than the rows have in the table."""
        stride = _coprime(self.size)
        for first in range(0, self.size, page_size):
            page = range(first, min(first + page_size, self.size))
            items = [self._item(at * stride % self.size) for at in page]
            for at in self._poisoned_among(page):
                _poison(items[at - first], at)
            yield items

    def local_items(self) -> Iterator[Item]:
        """The rows of the table at the start, without their surrogate keys, which are 1, 2, 3, ..."""
        return (make_item(number, 0) for number in range(self.local_rows))

    def expected_items(self) -> Iterator[Item]:
        """The rows of the table at the end."""
        stride = _coprime(self.size)
        left_out = {at * stride % self.size for at in self._poisoned_among(range(self.size))}
        return (self._item(place) for place in range(self.size) if place not in left_out)

    def expected_counts(self) -> dict[str, int]:
        """What a sync has to report."""
        created = {"A": self.size, "C": self.gone, "E": self.size - self.poisoned}.get(self.scenario, 0)
        updated = sum(self._version(place) for place in range(self.size))
        return {
            "fetched": self.size,
            "created": created,
            "updated": updated,
            "deleted": self.gone,
            "unchanged": self.size - created - updated - self.poisoned,
            "failed": self.poisoned,
        }

    def _item(self, place: int) -> Item:
        kept = self.size - self.gone
        return make_item(place if place < kept else place + self.gone, self._version(place))

    def _version(self, place: int) -> int:
        if self.scenario == "C":
            return 1 if place % 10 == 3 and place < self.size - self.gone else 0  # noqa: PLR2004 - one in ten
        return 1 if self.scenario == "D" else 0

    def _poisoned_among(self, page: range) -> Iterator[int]:
        """The places of the fetch, spread evenly, whose items break a CHECK."""
        if self.poisoned:
            step = self.size // self.poisoned
            places = range(step // 2, step * self.poisoned, step)
            yield from (at for at in page if at in places)


def make_item(number: int, version: int) -> Item:
    """An item of about 200 bytes. Every version of it differs in stock, price and time.

    Args:
        number: Which one; its key is a scrambled form of it, so that neighbours are strangers.
        version: 0 is what the table has at the start.
    """
    scrambled = _scramble(number)
    cents = scrambled % 100_000 + version
    return {
        "sku": f"V-{scrambled:08X}",
        "name": f"Variant {number} of product {scrambled % 50021}, catalogue item",
        "stock": scrambled % 1000 + version,
        "price": Decimal(f"{cents // 100}.{cents % 100:02d}"),
        "changed_at": _EPOCH + timedelta(seconds=scrambled % 30_000_000 + version),
        "color": _COLORS[scrambled % 8],
        "size": _SIZES[scrambled % 7],
        "brand": _BRANDS[scrambled % 11],
        "category": _CATEGORIES[number % 9],
    }


def _scramble(number: int) -> int:
    """A one-to-one mapping of 32 bits on 32 bits."""
    mixed = number * 0x9E3779B1 & 0xFFFFFFFF
    mixed ^= mixed >> 15
    mixed = mixed * 0x85EBCA77 & 0xFFFFFFFF
    return mixed ^ (mixed >> 13)


def _coprime(size: int) -> int:
    """A stride that visits every place once and leaves neighbours far apart."""
    stride = max(1, int(size * _GOLDEN))
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


def _poison(item: Item, at: int) -> None:
    if at % 2:
        item["stock"] = -1
    else:
        item["price"] = Decimal("-0.01")
