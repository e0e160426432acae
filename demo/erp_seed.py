"""Makes a Tryton database with a company, two warehouses, products and stock. Runs as a process of its own.

    python demo/erp_seed.py <database name>      # the settings come as TRYTOND_* variables, see demo/erp.py

Everything happens in one process and in few, large calls: started and connected per step it takes three times as long.
"""

from __future__ import annotations

import gc
import random
import sys
from decimal import Decimal
from itertools import islice, product
from typing import Any

import trytond.admin
from trytond import commandline
from trytond.model import ModelStorage
from trytond.pool import Pool
from trytond.transaction import Transaction

_COLOURS = ["Weiß", "Grün", "Café", "Niño", "Żółty", "Blå", "Ύλη", "Синий", "茶色", "Noir", "Rot", "Crème", "Ocre"]
_THINGS = [
    "Becher",
    "Teekanne",
    "Schüssel",
    "Crêpière",
    "Leuchte „Möwe“",
    "Vase",
    "Kissen",
    "Smørrebrødbrett",
    "Tablett",
    "Korb 30 auf 40",
    "Tischläufer",
    "Kerze",
    "Untersetzer 4-teilig",
    "Garderobe",
    "Spiegel Ø 60",
    "Hocker",
    "Teppich",
    "Decke",
    "Uhr",
    "Brotkasten",
]
_GOODS = 240
_BATCH = 40  # the check that codes are unique nests one bracket per product; 100 are too many for SQLite
_WITHOUT_STOCK = 20
_DEACTIVATED = 5
_WEIGHED = ["Kaffee Äthiopien", "Earl Grey", "Ölsaaten", "Gewürz №5", "Reis 米", "Linsen"]
_SERVICES = ["Gravur", "Geschenkverpackung", "Expressversand", "Aufbau à domicile", "Beratung", "Reparatur"]


def _install(database: str) -> None:
    """Creates the tables and loads the modules' own records."""
    options = commandline.get_parser_admin().parse_args(
        ["-d", database, "-u", "product", "stock", "--activate-dependencies", "--email", "admin@example.org"]
    )
    options.indexes = True
    # The modules' own records were validated by those who released them. Not doing it again halves the time; what
    # the demo itself writes is validated as ever.
    validate = ModelStorage.__dict__["_validate"]
    ModelStorage._validate = classmethod(lambda _cls, _records, field_names=None: None)  # noqa: SLF001, ARG005 - see above
    try:
        trytond.admin.run(options)
    finally:
        ModelStorage._validate = validate  # noqa: SLF001 - puts back what was taken


def _create_company(pool: Any) -> None:
    (currency,) = pool.get("currency.currency").create([{"name": "Euro", "code": "EUR", "symbol": "€"}])
    (party,) = pool.get("party.party").create([{"name": "Möwe & Söhne"}])
    (company,) = pool.get("company.company").create([{"party": party.id, "currency": currency.id}])
    user_class = pool.get("res.user")
    (admin,) = user_class.search([("login", "=", "admin")])
    user_class.write([admin], {"companies": [("add", [company.id])], "company": company.id})


def _create_warehouses(pool: Any) -> list[Any]:
    """Renames the warehouse that comes with Tryton and adds a second one. Gives both."""
    location_class = pool.get("stock.location")
    (first,) = location_class.search([("type", "=", "warehouse")])
    location_class.write([first], {"name": "Köln", "code": "CGN"})
    names = {"input": "Eingang", "output": "Ausgang", "storage": "Lager"}
    zones = location_class.create([{"name": f"Zürich {name}", "type": "storage"} for name in names.values()])
    places = {f"{kind}_location": zone.id for kind, zone in zip(names, zones, strict=True)}
    (second,) = location_class.create([{"name": "Zürich", "code": "ZRH", "type": "warehouse", **places}])
    return [first, second]


def _template(name: str, sku: str, kind: str, unit: int, price: Decimal) -> dict[str, Any]:
    cost = (price / 2).quantize(Decimal("0.01"))
    values = {"name": name, "type": kind, "default_uom": unit, "list_price": price}
    return {**values, "products": [("create", [{"suffix_code": sku, "cost_price": cost}])]}


def _create_products(pool: Any, chance: random.Random) -> list[Any]:
    """Creates goods by piece and by weight, and services. Gives the goods."""
    data = pool.get("ir.model.data")
    piece, kilogram = data.get_id("product", "uom_unit"), data.get_id("product", "uom_kilogram")
    names = [f"{thing} {colour}" for colour, thing in islice(product(_COLOURS, _THINGS), _GOODS)]

    def price() -> Decimal:
        return Decimal(chance.randrange(150, 25000)) / 100

    pieces = [_template(name, f"A-{1000 + n}", "goods", piece, price()) for n, name in enumerate(names)]
    weighed = [_template(name, f"K-{100 + n}", "goods", kilogram, price()) for n, name in enumerate(_WEIGHED)]
    services = [_template(name, f"S-{10 + n}", "service", piece, price()) for n, name in enumerate(_SERVICES)]
    create, values = pool.get("product.template").create, [*pieces, *weighed, *services]
    batches = [create(values[start : start + _BATCH]) for start in range(0, len(values), _BATCH)]
    templates = [template for batch in batches for template in batch]
    return [template.products[0] for template in templates[: len(pieces) + len(weighed)]]


def _move(pool: Any, goods: list[Any], warehouses: list[Any], chance: random.Random) -> None:
    """Brings stock from the lost and found into the warehouses; some goods stay without."""
    (source,) = pool.get("stock.location").search([("type", "=", "lost_found")])
    values = [
        {
            "product": variant.id,
            "unit": variant.default_uom.id,
            "quantity": chance.randrange(1, 9000) / 100 if variant.default_uom.digits else chance.randrange(1, 200),
            "from_location": source.id,
            "to_location": warehouse.storage_location.id,
        }
        for variant in goods
        for warehouse in warehouses
    ]
    move_class = pool.get("stock.move")
    move_class.do(move_class.create(values))


def _seed(database: str) -> None:
    pool, chance = Pool(database), random.Random(1)  # noqa: S311 - demo data, the same every time
    with Transaction().start(database, 0):
        _create_company(pool)
        (admin,) = pool.get("res.user").search([("login", "=", "admin")])
    with Transaction().start(database, admin.id) as transaction:
        context = pool.get("res.user").get_preferences(context_only=True)
        with transaction.set_context(context):
            warehouses = _create_warehouses(pool)
            goods = _create_products(pool, chance)
            _move(pool, goods[_WITHOUT_STOCK:], warehouses, chance)
            pool.get("product.product").write(goods[:_DEACTIVATED], {"active": False})


def main() -> None:
    """Makes the database that the command line names."""
    gc.disable()  # a short life and much memory: collecting is a twentieth of the time
    (database,) = sys.argv[1:]
    _install(database)
    _seed(database)


if __name__ == "__main__":
    main()
