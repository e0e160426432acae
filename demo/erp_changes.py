"""What happens in a shop's ERP over a day, in a second: called over JSON-RPC on the running server."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sync_pipelines.sources.tryton_rpc import TrytonConnection, TrytonError

_NEW = 3
_MOVES = 12
_PRICES = 5
_NAMES = ["Laterne", "Übertopf", "Étagère", "Kännchen", "Windlicht", "Müslischale"]

_FIELDS = ["code", "name", "template", "list_price_used", "default_uom"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one call has changed.

    Args:
        number: Which call it was, starting at 1.
        created: SKUs of new products, which have stock in the first warehouse.
        moved: SKUs whose stock has changed.
        repriced: SKUs and their new list prices.
        renamed: SKU of the renamed product; its variant's own write date does not move.
        deactivated: SKU of the product that was deactivated although it has stock.
    """

    number: int
    created: tuple[str, ...]
    moved: tuple[str, ...]
    repriced: dict[str, Decimal]
    renamed: str
    deactivated: str

    def __str__(self) -> str:
        prices = ", ".join(f"{sku} {price}" for sku, price in self.repriced.items())
        return (
            f"{len(self.moved)} stock moves ({', '.join(self.moved)}); new: {', '.join(self.created)}; "
            f"prices: {prices}; renamed: {self.renamed}; deactivated: {self.deactivated}"
        )


def make_changes(connection: TrytonConnection) -> Changes:
    """Makes the next day's changes.

    Args:
        connection: To the running server, with a single attempt per call.
    """
    created_before = connection.call("product.template", "search_count", [["products.code", "like", "N-%"]])
    number = created_before // _NEW + 1
    chance = random.Random(number)  # noqa: S311 - demo data, the same every time
    products = _sellable(connection)
    drawn = chance.sample(products, _MOVES + _PRICES + 2)
    moving, pricing, (renamed, leaving) = drawn[:_MOVES], drawn[_MOVES:-2], drawn[-2:]
    created = _create(connection, number, chance)
    _move(connection, [*moving, *created], chance)
    repriced = {row["code"]: _reprice(connection, row, chance) for row in pricing}
    name = f"{renamed['name']} ({number})"
    connection.call("product.template", "write", [renamed["template"]], {"name": name})
    _deactivate(connection, leaving["id"])
    return Changes(
        number=number,
        created=tuple(row["code"] for row in created),
        moved=tuple(row["code"] for row in moving),
        repriced=repriced,
        renamed=renamed["code"],
        deactivated=leaving["code"],
    )


def _search(connection: TrytonConnection, model: str, domain: Sequence[Any], fields: Sequence[str]) -> list[Row]:
    rows: list[Row] = connection.call(model, "search_read", domain, 0, None, [["id", "ASC"]], fields)
    return rows


def _sellable(connection: TrytonConnection) -> list[Row]:
    """The active products with stock in the first warehouse, which a move can take from."""
    location = _place(connection, "warehouse")["id"]
    domain = [["type", "=", "goods"], ["code", "like", "A-%"]]
    context = {"locations": [location], "with_childs": True}
    rows = connection.call(
        "product.product", "search_read", domain, 0, None, [["id", "ASC"]], [*_FIELDS, "quantity"], context=context
    )
    return [row for row in rows if row["quantity"] > 0]


def _place(connection: TrytonConnection, kind: str) -> Row:
    return _search(connection, "stock.location", [["type", "=", kind]], ["storage_location"])[0]


def _create(connection: TrytonConnection, number: int, chance: random.Random) -> list[Row]:
    unit = _search(connection, "product.uom", [["symbol", "=", "u"]], [])[0]["id"]
    values = [
        {
            "name": f"{chance.choice(_NAMES)} № {number}.{n}",
            "type": "goods",
            "default_uom": unit,
            "list_price": Decimal(chance.randrange(500, 9000)) / 100,
            "products": [["create", [{"suffix_code": f"N-{number * 100 + n}", "cost_price": Decimal("1.50")}]]],
        }
        for n in range(_NEW)
    ]
    ids = connection.call("product.template", "create", values)
    return _search(connection, "product.product", [["template", "in", ids]], _FIELDS)


def _move(connection: TrytonConnection, rows: Sequence[Row], chance: random.Random) -> None:
    """Counts some more into the first warehouse, as after an inventory."""
    source, target = _place(connection, "lost_found")["id"], _place(connection, "warehouse")["storage_location"]
    values = [
        {
            "product": row["id"],
            "unit": row["default_uom"],
            "quantity": float(chance.randrange(1, 40)),
            "from_location": source,
            "to_location": target,
        }
        for row in rows
    ]
    ids = connection.call("stock.move", "create", values)
    connection.call("stock.move", "do", ids)


def _reprice(connection: TrytonConnection, row: Row, chance: random.Random) -> Decimal:
    price = Decimal(row["list_price_used"] * chance.randrange(105, 140) / 100).quantize(Decimal("0.01"))
    connection.call("product.template", "write", [row["template"]], {"list_price": price})
    return price


def _deactivate(connection: TrytonConnection, product: int) -> None:
    """Deactivates a product with stock: Tryton warns, and does it when the warning is skipped by its name."""
    try:
        connection.call("product.product", "write", [product], {"active": False})
    except TrytonError as error:
        if error.kind != "UserWarning":
            raise
        connection.call("res.user.warning", "skip", error.details[0])
        connection.call("product.product", "write", [product], {"active": False})
