"""The Tryton source against a real Tryton server, with the demo's data."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.erp import RunningErp, change, set_up
from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.tryton import Product, Tryton, TrytonError
from sync_pipelines_tests.children import Child

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def erp(server: RunningErp) -> Tryton:
    return server.client(page_size=50)


def products(erp: Tryton) -> dict[str | None, Product]:
    return {item.sku: item for page in erp.products() for item in page}


def stock(erp: Tryton) -> dict[tuple[str | None, str], Decimal]:
    return {(item.sku, item.warehouse): item.quantity for page in erp.inventory() for item in page}


def call(server: RunningErp, model: str, method: str, *arguments: Any) -> Any:
    with server.client(attempts=1).connect() as connection:
        return connection.call(model, method, *arguments)


def create_product(server: RunningErp, name: str, code: str | None, **changes: Any) -> dict[str, Any]:
    """Creates a product. Gives the row of its variant."""
    (unit,) = call(server, "product.uom", "search", [["symbol", "=", "u"]])
    values = {"name": name, "type": "goods", "default_uom": unit, "list_price": Decimal("12.3456"), **changes}
    values["products"] = [["create", [{"suffix_code": code, "cost_price": Decimal(1)}]]]
    (template,) = call(server, "product.template", "create", [values])
    (row,) = call(server, "product.product", "search_read", [["template", "=", template]], 0, None, None, ["template"])
    return row


def test_demo_has_products_of_all_sorts(erp):
    found = products(erp)
    assert len(found) >= 200
    assert None not in found
    assert {item.kind for item in found.values()} == {"goods", "service"}
    assert {item.unit for item in found.values()} == {"u", "kg"}
    assert {item.active for item in found.values()} == {True, False}
    assert any(not item.name.isascii() for item in found.values())
    assert all(isinstance(item.price, Decimal) and item.price > 0 for item in found.values())


def test_both_warehouses_hold_stock_and_services_hold_none(erp):
    found = stock(erp)
    assert {warehouse for (_, warehouse), quantity in found.items() if quantity} == {"CGN", "ZRH"}
    assert not [sku for sku, _ in found if sku and sku.startswith("S-")]
    assert any(quantity % 1 for quantity in found.values())
    assert any(quantity == 0 for quantity in found.values())


def test_page_size_changes_nothing_but_the_pages(server):
    assert products(server.client(page_size=7)) == products(server.client(page_size=1000))


def test_change_does_what_it_says_and_a_second_one_does_something_else(server, erp):
    before, stock_before = products(erp), stock(erp)
    first = change(server)
    after, stock_after = products(erp), stock(erp)
    assert set(first.created) == {sku for sku in after if sku not in before}
    more = {sku for (sku, where), quantity in stock_after.items() if quantity > stock_before.get((sku, where), 0)}
    assert more == {*first.moved, *first.created}
    assert {sku: after[sku].price for sku in first.repriced} == first.repriced
    assert [sku for sku in before if before[sku].name != after[sku].name] == [first.renamed]
    assert [sku for sku in before if before[sku].active != after[sku].active] == [first.deactivated]
    assert stock_after[first.deactivated, "CGN"] > 0
    second = change(server)
    assert not {*first.created} & {*second.created}
    assert second.number == first.number + 1
    assert all(sku in str(second) for sku in (*second.created, *second.moved, second.deactivated))


def test_renaming_a_template_moves_the_time_of_its_products(server, erp):
    row = create_product(server, "Alt", "R-1")
    before = products(erp)["R-1"].written_at
    call(server, "product.template", "write", [row["template"]], {"name": "Neu"})
    assert products(erp)["R-1"].written_at > before


def test_product_of_a_deactivated_template_is_inactive_and_still_there(server, erp):
    row = create_product(server, "Ausgelistet", "T-1")
    call(server, "product.template", "write", [row["template"]], {"active": False})
    assert products(erp)["T-1"].active is False


def test_code_of_a_deactivated_variant_can_be_used_again_and_means_the_active_one(server, erp):
    row = create_product(server, "Vorher", "U-1")
    call(server, "product.product", "write", [row["id"]], {"active": False})
    create_product(server, "Nachher", "U-1")
    assert [item.name for page in erp.products() for item in page if item.sku == "U-1"] == ["Nachher"]
    assert len([item for page in erp.inventory() for item in page if item.sku == "U-1"]) == 2


def test_variant_without_code_comes_with_sku_none(server, erp):
    row = create_product(server, "Namenlos", None)
    try:
        assert products(erp)[None].name == "Namenlos"
    finally:
        call(server, "product.template", "delete", [row["template"]])


def test_price_with_four_digits_arrives_exactly(server, erp):
    create_product(server, "Schraube", "P-1")
    assert products(erp)["P-1"].price == Decimal("12.3456")


def test_unknown_field_is_an_error_that_names_model_and_method(erp):
    with pytest.raises(TrytonError, match=r"model\.product\.product\.search_read.*nonsense"):
        next(erp.search_read("product.product", [], ["nonsense"]))


def test_unknown_model_is_an_error_that_names_it(erp):
    with pytest.raises(ConfigurationError, match=r"no\.such\.model"):
        next(erp.search_read("no.such.model", [], ["name"]))


def test_quantity_is_refused_without_locations(erp):
    with pytest.raises(ConfigurationError, match="locations"):
        erp.search_read("product.product", [], ["quantity"])


def test_wrong_password_is_refused_with_what_to_do(server):
    wrong = Tryton(url=server.url, database=server.database, user="nobody", password="wrong", attempts=1)
    with pytest.raises(ConfigurationError, match="TRYTON_PASSWORD"):
        next(wrong.products())


def test_login_locked_after_a_burst_of_bad_ones_names_the_time_to_wait(folder, server):
    # Put into the table by hand: the server answers each bad login more slowly than the one before.
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    with closing(sqlite3.connect(folder / "erp" / "erp.sqlite", timeout=30)) as database, database:
        insert = "INSERT INTO res_user_login_attempt (create_date, create_uid, login) VALUES (?, 0, 'burst')"
        database.executemany(insert, [(now,)] * 7)
    locked = Tryton(url=server.url, database=server.database, user="burst", password="wrong")
    with pytest.raises(RetryableError, match=r"429.*TRYTON_PASSWORD") as caught:
        next(locked.products())
    assert caught.value.retry_after_s == 300


def test_unknown_database_is_named(server):
    other = Tryton(url=server.url, database="other", user="admin", password="x")
    with pytest.raises(ConfigurationError, match="no database 'other'"):
        next(other.products())


def test_session_forgotten_by_the_server_while_paging_is_renewed(folder, erp):
    pages = erp.search_read("product.product", [], ["code"], context={"active_test": False})
    first = next(pages)
    with closing(sqlite3.connect(folder / "erp" / "erp.sqlite", timeout=30)) as database, database:
        assert database.execute("DELETE FROM ir_session").rowcount
    found = [row["id"] for page in [first, *pages] for row in page]
    assert len(found) == len(set(found)) >= 200


def test_fetches_leave_no_session_behind(folder, erp):
    def count() -> int:
        with closing(sqlite3.connect(folder / "erp" / "erp.sqlite", timeout=30)) as database:
            return int(database.execute("SELECT count(*) FROM ir_session").fetchone()[0])

    before = count()
    products(erp)
    next(erp.inventory())
    assert count() == before


def test_set_up_twice_keeps_the_data_and_throws_away_a_broken_one(folder, server):
    password = (folder / "erp" / "password").read_text()
    partial = folder / "erp.1.partial"
    partial.mkdir()
    (partial / "erp.sqlite").write_text("half a database")
    set_up(folder)
    assert not partial.exists()
    assert (folder / "erp" / "password").read_text() == password


@pytest.mark.soak
def test_set_up_that_was_killed_is_begun_anew(tmp_path):
    code = "import sys; from pathlib import Path; from demo.erp import set_up; set_up(Path(sys.argv[1]))"
    process = Child([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    begun = lambda: [path for path in tmp_path.glob("erp.*.partial/erp.sqlite") if path.stat().st_size]  # noqa: E731
    process.wait_until(begun, "has not begun")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "erp").exists()
    set_up(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["erp"]
    with RunningErp(tmp_path) as server:
        assert len(products(server.client())) >= 200


def test_password_is_for_its_owner_only(folder):
    assert (folder / "erp" / "password").stat().st_mode & 0o777 == 0o600


def test_server_dies_with_the_process_that_started_it(folder, server):
    code = (
        "import sys, time; from pathlib import Path; from demo.erp import RunningErp\n"
        "erp = RunningErp(Path(sys.argv[1])); erp.start(); print(erp.pid, flush=True); time.sleep(600)"
    )
    with Child([sys.executable, "-c", code, str(folder)], cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
        pid = int(parent.read_line())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid))


def test_server_that_finds_its_port_taken_says_so(folder, server):
    with pytest.raises(RuntimeError, match="in use"):
        RunningErp(folder, server.port).start()


def test_stop_ends_the_server_and_start_brings_it_back(folder):
    server = RunningErp(folder)
    server.start()
    pid = server.pid
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(RetryableError):
        next(server.client(attempts=1).products())
    with server:
        assert server.pid not in {None, pid}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Any, timeout_s: float = 30) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
