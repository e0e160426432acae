"""The Tryton source: what it reads, page by page, from a stand-in with the real server's traps."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import stamina

from sync_pipelines.engine.completeness import source_ends
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.tryton import Tryton
from sync_pipelines_tests.sources.tryton_stand_in import (
    ALL,
    PASSWORD,
    SEARCH,
    WRITTEN_MICRO,
    StandIn,
    make_client,
    product,
    read_names,
    result,
)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def server() -> StandIn:
    return StandIn()


@pytest.fixture
def erp(server: StandIn) -> Tryton:
    return make_client(server)


def test_connection_arguments_come_from_the_environment_when_a_fetch_starts(monkeypatch, server):
    erp = Tryton(transport=server)
    for name, value in {"URL": "http://erp.test/", "DATABASE": "shop", "USER": "sync", "PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(f"TRYTON_{name}", value)
    assert read_names(erp) == ALL


@pytest.mark.parametrize("name", ["URL", "DATABASE", "USER", "PASSWORD"])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_variable_is_named_with_what_to_do(monkeypatch, name, empty):
    for other in ("URL", "DATABASE", "USER", "PASSWORD"):
        monkeypatch.setenv(f"TRYTON_{other}", "http://erp.test")
    if empty:
        monkeypatch.setenv(f"TRYTON_{name}", "")
    else:
        monkeypatch.delenv(f"TRYTON_{name}")
    with pytest.raises(
        ConfigurationError, match=rf"TRYTON_{name} not set; set the environment .* {name.lower()}=\.\.\."
    ):
        next(Tryton().products())


@pytest.mark.parametrize(
    "url",
    ["erp.test:8000", "ftp://erp.test", "http://", "http://sync:hunter2@erp.test", "http://a.test/?k=hunter2", ""],
)
def test_useless_url_is_refused_without_echoing_it(url):
    with pytest.raises(ConfigurationError, match="TRYTON_URL") as caught:
        next(make_client(None, url=url).products())
    assert "hunter2" not in str(caught.value)


def test_given_argument_wins_over_the_environment(monkeypatch, server, erp):
    monkeypatch.setenv("TRYTON_DATABASE", "another")
    assert read_names(erp) == ALL


@pytest.mark.parametrize("changes", [{"page_size": 0}, {"attempts": 0}])
def test_page_size_and_attempts_start_at_one(changes):
    with pytest.raises(ConfigurationError, match="start at 1"):
        Tryton(**changes)


def test_pages_hold_all_records_in_the_order_of_their_ids(erp):
    pages = list(erp.search_read("product.product", [], ["name"]))
    assert [[row["id"] for row in page] for page in pages] == [[1, 2], [3, 4], [5]]


def test_record_that_vanishes_while_paging_does_not_hide_another(server, erp):
    pages = erp.search_read("product.product", [], ["name"])
    seen = next(pages)
    del server.records["product.product"][0]
    assert [row["id"] for page in [seen, *pages] for row in page] == [1, 2, 3, 4, 5]


def test_record_that_appears_while_paging_is_read_once_and_repeats_none(server, erp):
    pages = erp.search_read("product.product", [], ["name"])
    seen = next(pages)
    server.records["product.product"].append(product(6))
    assert [row["id"] for page in [seen, *pages] for row in page] == [1, 2, 3, 4, 5, 6]


def test_short_page_does_not_end_the_fetch(server, erp):
    server.answers[SEARCH] = [lambda body: result([product(1)])]
    assert read_names(erp) == ALL


def test_domain_and_context_reach_the_server_with_the_users_company(server, erp):
    list(erp.search_read("product.product", [["code", "=", "A-1"]], ["name"], context={"active_test": False}))
    params = server.params[server.calls.index(SEARCH)]
    assert params[0] == [["id", ">", 0], [["code", "=", "A-1"]]]
    assert params[5] == {"company": 7, "active_test": False}


@pytest.mark.parametrize(
    "answer", [None, {}, [1], [{"name": "x"}], [product(2), product(1)], [product(1), product(1)], [product(0)]]
)
def test_answer_that_is_no_page_in_order_is_refused_instead_of_paging_for_ever(server, erp, answer):
    server.answers[SEARCH] = [lambda body: result(answer)]
    with pytest.raises(ConfigurationError, match=r"search of product\.product"):
        read_names(erp)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("product.product", ["code", "quantity"]),
        ("product.template", ["forecast_quantity"]),
        ("product.product", ["template.quantity"]),
        ("stock.move", ["product.cost_value"]),
    ],
)
@pytest.mark.parametrize("context", [None, {}, {"locations": []}])
def test_quantity_without_locations_is_refused_before_it_reads_zero(server, erp, model, fields, context):
    with pytest.raises(ConfigurationError, match="locations"):
        erp.search_read(model, [], fields, context=context)
    assert server.calls == []


def test_quantity_of_a_move_needs_no_locations(erp):
    erp.search_read("stock.move", [], ["quantity", "moves.quantity"])


def test_inventory_has_one_item_per_variant_and_warehouse(erp):
    items = [item for page in erp.inventory() for item in page]
    assert [(item.sku, item.warehouse) for item in items] == [
        (f"A-{n}", warehouse) for warehouse in ("WH", "Zürich") for n in range(1, 6)
    ]
    assert [items[0].quantity, items[-1].quantity] == [Decimal("1.1"), Decimal("2.1")]


def test_inventory_asks_for_goods_in_the_location_of_each_warehouse(server, erp):
    list(erp.inventory())
    asked = [params for call, params in zip(server.calls, server.params, strict=True) if call == SEARCH]
    assert [params[5]["locations"] for params in asked] == [[1]] * 4 + [[2]] * 4
    assert all(params[0][1] == [["type", "!=", "service"]] for params in asked)


def test_inventory_of_chosen_warehouses_only(erp):
    assert {item.warehouse for page in erp.inventory(warehouses=["Zürich"]) for item in page} == {"Zürich"}


def test_unknown_warehouse_is_refused_with_those_that_exist(erp):
    with pytest.raises(ConfigurationError, match="no warehouse Basel; it has: WH, Zürich"):
        next(erp.inventory(warehouses=["Basel"]))


def test_two_warehouses_with_one_code_are_refused(server, erp):
    server.records["stock.location"].append({"id": 3, "code": "WH", "name": "Ulm"})
    with pytest.raises(ConfigurationError, match="share a code"):
        next(erp.inventory())


def test_no_warehouse_at_all_is_refused_instead_of_an_empty_fetch(server, erp):
    server.records["stock.location"] = []
    with pytest.raises(ConfigurationError, match="no warehouse"):
        next(erp.inventory())


def test_product_carries_plain_types(erp):
    first = next(erp.products())[0]
    assert (first.sku, first.name, first.unit, first.kind, first.product_id) == ("A-1", "Becher 1", "u", "goods", 1)
    assert first.active is True
    assert first.price == Decimal("10.50")
    assert isinstance(first.price, Decimal)
    assert first.written_at == datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


def test_products_ask_for_deactivated_ones_too(server, erp):
    list(erp.products())
    assert server.params[server.calls.index(SEARCH)][5]["active_test"] is False


@pytest.mark.parametrize("changes", [{"active": 0}, {"template.": {**product(1)["template."], "active": 0}}])
def test_product_is_inactive_if_its_variant_or_its_template_is(server, erp, changes):
    server.records["product.product"] = [product(1, **changes)]
    assert [item.active for page in erp.products() for item in page] == [False]


def test_renaming_the_template_moves_the_time_of_the_product(server, erp):
    later = {**WRITTEN_MICRO, "year": 2027}
    template = {"active": 1, "create_date": WRITTEN_MICRO, "write_date": later}
    server.records["product.product"] = [product(1, **{"template.": template})]
    assert next(erp.products())[0].written_at.year == 2027


@pytest.mark.parametrize("code", [None, ""])
def test_variant_without_code_comes_with_sku_none(server, erp, code):
    server.records["product.product"] = [product(1, code=code)]
    assert [item.sku for page in erp.products() for item in page] == [None]
    assert [item.sku for page in erp.inventory() for item in page] == [None, None]


def test_deactivated_variant_whose_code_is_in_use_again_is_left_out(server, erp):
    server.records["product.product"] = [
        product(1, code="A", active=0),
        product(2, code="B", active=0),
        product(3, code="A"),
    ]
    assert [(item.sku, item.active) for page in erp.products() for item in page] == [("B", False), ("A", True)]
    assert [item.product_id for page in erp.inventory(warehouses=["WH"]) for item in page] == [2, 3]


def test_product_without_price_has_none(server, erp):
    server.records["product.product"] = [product(1, list_price_used=None)]
    assert next(erp.products())[0].price is None


def test_records_are_complete_once_there_is_none_after_the_last_id(erp):
    with source_ends() as ends:
        list(erp.products())
    completeness = ends.completeness(took_all=True)
    assert completeness.is_complete
    assert "there is none after id" in completeness.ended_by[0]
