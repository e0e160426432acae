"""Tryton as a source: products and stock over its JSON-RPC interface (Tryton 8).

    erp = Tryton()                                   # reads TRYTON_URL, ... when a fetch starts
    SyncJob(name="erp-inventory", fetch_external=erp.inventory, ...)

Tryton is never imported: it runs elsewhere, and its licence (GPL) stays there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from sync_pipelines.engine.completeness import reading_source
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.tryton import load_tryton_settings
from sync_pipelines.sources.http_retries import Patience
from sync_pipelines.sources.tryton_rpc import TrytonConnection, TrytonError

__all__ = ["Product", "StockLevel", "Tryton", "TrytonError"]

Row = dict[str, Any]

_PER_LOCATION = {"quantity", "forecast_quantity", "cost_value"}
_PRODUCT_MODELS = {"product.product", "product.template"}
_ALSO_INACTIVE = {"active_test": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A variant, as one can sell it.

    Args:
        sku: The variant's code; None if nobody gave it one.
        name: The product's name in the user's language.
        price: The list price per unit in the company's currency; None if none is set.
        active: False if the variant or its template is deactivated.
        unit: Symbol of the unit of measure, e.g. `"u"` or `"kg"`.
        kind: `"goods"`, `"assets"` or `"service"`.
        written_at: When the variant or its template was last written. A stock move does not move it.
        product_id: Tryton's own number of the variant.
    """

    sku: str | None
    name: str
    price: Decimal | None
    active: bool
    unit: str
    kind: str
    written_at: datetime
    product_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StockLevel:
    """How much of a variant lies in one warehouse, by the moves that are done.

    Args:
        sku: The variant's code; None if nobody gave it one.
        warehouse: The warehouse's code, or its name if it has no code.
        quantity: The amount in `unit`; below zero if more was taken than was ever put in.
        unit: Symbol of the unit of measure.
        product_id: Tryton's own number of the variant.
    """

    sku: str | None
    warehouse: str
    quantity: Decimal
    unit: str
    product_id: int


@dataclass(frozen=True, kw_only=True)
class Tryton:
    """A Tryton server. Making one connects nowhere and reads nothing; each fetch opens and closes its own session.

    Args:
        url: Scheme, host and port; by default the environment variable TRYTON_URL, read when a fetch starts.
        database: By default TRYTON_DATABASE.
        user: By default TRYTON_USER.
        password: By default TRYTON_PASSWORD.
        timeout_s: Seconds to wait for a connection, and for each piece of an answer.
        page_size: Records per request.
        attempts: How often a request is tried in all.
        longest_wait_s: Seconds that a fetch waits at most when the server names a time to come back.
        transport: Replaces the network, for tests.
    """

    source_kind: ClassVar[str] = "tryton"
    """What Dagster shows of it as a badge."""

    url: str | None = None
    database: str | None = None
    user: str | None = None
    password: str | SecretStr | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    page_size: int = 500
    attempts: int = 4
    longest_wait_s: float = 60.0
    transport: httpx.BaseTransport | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.page_size < 1 or self.attempts < 1:
            raise ConfigurationError("Tryton(...): page_size and attempts start at 1")
        if isinstance(self.password, str):
            object.__setattr__(self, "password", SecretStr(self.password))

    def connect(self) -> TrytonConnection:
        """Returns a connection, to be opened with `with`; the first call on it logs in.

        Raises:
            ConfigurationError: A setting is missing or wrong.
        """
        settings = load_tryton_settings(url=self.url, database=self.database, user=self.user, password=self.password)
        return TrytonConnection(settings, Patience(self.timeout_s, self.attempts, self.longest_wait_s), self.transport)

    def search_read(
        self, model: str, domain: Sequence[Any], fields: Sequence[str], *, context: Mapping[str, Any] | None = None
    ) -> Iterator[list[Row]]:
        """Reads all records that match, as pages of dicts ordered by id.

        Args:
            model: E.g. `"product.product"`.
            domain: Tryton's search clauses, e.g. `[["code", "like", "A%"]]`; empty for all.
            fields: Names of fields; `"template.name"` comes as `{"template.": {"name": ...}}`. `id` always comes.
            context: E.g. `{"active_test": False}` to see deactivated records too.

        Raises:
            ConfigurationError: Quantities are asked for without locations; see also `TrytonConnection.call`.
            RetryableError: The server could not be reached or asked to wait, in all attempts.
        """
        _refuse_quantity_of_nowhere(model, fields, context or {})
        return self._search_read(model, domain, fields, context or {})

    def products(self) -> Iterator[list[Product]]:
        """Reads all variants, deactivated ones too, as pages of `Product`.

        A deactivated variant whose code an active one has taken over is left out: the code means the active one.

        Raises:
            ConfigurationError: See `TrytonConnection.call`.
            RetryableError: The server could not be reached or asked to wait, in all attempts.
        """
        with self.connect() as connection:
            yield from self._products(connection, [])

    def product(self, sku: str) -> Product | None:
        """Reads one variant by its code, as `products` would give it; None if there is none. For `fetch_one`.

        Raises:
            ConfigurationError: See `TrytonConnection.call`.
            RetryableError: The server could not be reached or asked to wait, in all attempts.
        """
        with self.connect() as connection:
            products = [product for page in self._products(connection, [["code", "=", sku]]) for product in page]
        return products[-1] if products else None

    def _products(self, connection: TrytonConnection, domain: Sequence[Any]) -> Iterator[list[Product]]:
        names = ["code", "name", "list_price_used", "type", "active", "create_date", "write_date"]
        related = ["default_uom.symbol", "template.active", "template.create_date", "template.write_date"]
        for rows in self._pages(connection, "product.product", domain, [*names, *related], _ALSO_INACTIVE):
            if page := [_product(row) for row in _without_replaced(connection, rows)]:
                yield page

    def inventory(self, *, warehouses: Collection[str] | None = None) -> Iterator[list[StockLevel]]:
        """Reads the stock of every variant in every warehouse, zeros too, as pages of `StockLevel`.

        Services have no stock and are left out; deactivated variants come as in `products`.

        Args:
            warehouses: Codes of the warehouses to read; by default all.

        Raises:
            ConfigurationError: There is no such warehouse, or two share a code; see also `TrytonConnection.call`.
            RetryableError: The server could not be reached or asked to wait, in all attempts.
        """
        names = ["code", "quantity", "active", "default_uom.symbol", "template.active"]
        domain = [["type", "!=", "service"]]
        with self.connect() as connection:
            for warehouse, location in self._warehouses(connection, warehouses).items():
                # Without `locations` every quantity reads 0.0, silently.
                context = {**_ALSO_INACTIVE, "locations": [location], "with_childs": True}
                for rows in self._pages(connection, "product.product", domain, names, context):
                    if page := [_stock_level(row, warehouse) for row in _without_replaced(connection, rows)]:
                        yield page

    def _search_read(
        self, model: str, domain: Sequence[Any], fields: Sequence[str], context: Mapping[str, Any]
    ) -> Iterator[list[Row]]:
        with self.connect() as connection:
            yield from self._pages(connection, model, domain, fields, context)

    def _pages(
        self,
        connection: TrytonConnection,
        model: str,
        domain: Sequence[Any],
        fields: Sequence[str],
        context: Mapping[str, Any],
    ) -> Iterator[list[Row]]:
        # "After the last id seen" instead of an offset: records that come or go while we read would shift all later
        # offsets, so that some are read twice and others never, and a record never read looks deleted.
        # The end is an empty page, not a short one: a server that gives less than asked for must not end the fetch.
        last_id = 0
        with reading_source(f"Tryton's {model}") as said:
            while True:
                clauses = [["id", ">", last_id], list(domain)]
                order = [["id", "ASC"]]
                rows = connection.call(
                    model, "search_read", clauses, 0, self.page_size, order, list(fields), context=context
                )
                ids = _ids(rows, model, last_id)
                if not ids:
                    said.ended(f"there is none after id {last_id}")
                    return
                last_id = ids[-1]
                yield rows

    def _warehouses(self, connection: TrytonConnection, codes: Collection[str] | None) -> dict[str, int]:
        pages = self._pages(connection, "stock.location", [["type", "=", "warehouse"]], ["code", "name"], {})
        named = [(row["code"] or row["name"], row["id"]) for rows in pages for row in rows]
        warehouses = dict(named)
        if len(warehouses) < len(named):
            raise ConfigurationError("two warehouses in Tryton share a code; their stock could not be told apart")
        if missing := sorted(set(codes or ()) - set(warehouses)):
            known = ", ".join(warehouses) or "none"
            raise ConfigurationError(f"Tryton has no warehouse {', '.join(missing)}; it has: {known}")
        if not warehouses:
            raise ConfigurationError("Tryton shows this user no warehouse: check the user's company and access rights")
        return {code: number for code, number in warehouses.items() if codes is None or code in codes}


def _refuse_quantity_of_nowhere(model: str, fields: Iterable[str], context: Mapping[str, Any]) -> None:
    """Stops a question whose answer would be a silent zero."""
    asked = sorted(name for name in fields if _is_per_location(model, name))
    if asked and not context.get("locations"):
        raise ConfigurationError(
            f"{model}: {', '.join(asked)} would read 0 everywhere; name the places in the context, as in "
            'context={"locations": [warehouse id]}'
        )


def _is_per_location(model: str, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    of_product = owner.rpartition(".")[2] in {"product", "template"} if owner else model in _PRODUCT_MODELS
    return of_product and last in _PER_LOCATION


def _ids(rows: Any, model: str, after: int) -> list[int]:
    """Reads the ids of a page, after making sure that it is the page we asked for (or paging might never end)."""
    numbers = [row.get("id") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else [None]
    ids = [number for number in numbers if isinstance(number, int) and number > after]
    if len(ids) < len(numbers) or any(first >= second for first, second in pairwise(ids)):
        raise ConfigurationError(
            f"Tryton answered a search of {model} with something that is no page of records in the order of their "
            "ids: is a customised search_read installed there?"
        )
    return ids


def _without_replaced(connection: TrytonConnection, rows: Sequence[Row]) -> list[Row]:
    """Leaves out deactivated variants whose code is in use by an active one, which Tryton allows."""
    codes = sorted({row["code"] for row in rows if row["code"] and not _is_active(row)})
    if not codes:
        return list(rows)
    domain = [["code", "in", codes]]
    taken = connection.call("product.product", "search_read", domain, 0, None, None, ["code"])
    active_codes = {row["code"] for row in taken}
    return [row for row in rows if _is_active(row) or row["code"] not in active_codes]


def _is_active(row: Row) -> bool:
    # `active` comes as 1 or 0. A variant keeps its 1 when its template is deactivated, yet it can't be sold.
    return bool(row["active"]) and bool(row["template."]["active"])


def _product(row: Row) -> Product:
    template = row["template."]
    written = (row["create_date"], row["write_date"], template["create_date"], template["write_date"])
    return Product(
        sku=row["code"] or None,
        name=row["name"],
        price=row["list_price_used"],
        active=_is_active(row),
        unit=row["default_uom."]["symbol"],
        kind=row["type"],
        written_at=max(moment for moment in written if moment is not None),
        product_id=row["id"],
    )


def _stock_level(row: Row, warehouse: str) -> StockLevel:
    return StockLevel(
        sku=row["code"] or None,
        warehouse=warehouse,
        # The server sends a float that it has rounded to the unit's digits; its shortest decimal form is that number.
        quantity=Decimal(str(row["quantity"])),
        unit=row["default_uom."]["symbol"],
        product_id=row["id"],
    )
