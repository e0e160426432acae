"""A stand-in for a Tryton server, in memory, that a test can make misbehave."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx

from sync_pipelines.sources.tryton import Tryton

PASSWORD = "correct horse battery"
TOKEN = "0123456789abcdef"
WRITTEN = {"__class__": "datetime", "year": 2026, "month": 2, "day": 3, "hour": 4, "minute": 5, "second": 6}
WRITTEN_MICRO = {**WRITTEN, "microsecond": 789}

Answer = Callable[[dict[str, Any]], httpx.Response]


class StandIn(httpx.BaseTransport):
    """A Tryton in memory: sessions, products, two warehouses; `answers` come first, for a test to misbehave."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.params: list[list[Any]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.sessions: set[str] = set()
        self.logins = self.closed = 0
        self.records: dict[str, list[dict[str, Any]]] = {
            "product.product": [product(n) for n in range(1, 6)],
            "stock.location": [{"id": 1, "code": "WH", "name": "Köln"}, {"id": 2, "code": None, "name": "Zürich"}],
        }

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/shop/rpc/"
        body = json.loads(request.content)
        method = body["method"]
        self.calls.append(method)
        self.params.append(body["params"])
        if waiting := self.answers.get(method):
            return waiting.pop(0)(body)
        if method == "common.db.login":
            return self.login(body["params"])
        session = request.headers.get("authorization", "").removeprefix("Session ")
        if base64.b64decode(session).decode().rpartition(":")[2] not in self.sessions:
            return httpx.Response(401)
        return result(self.read(method, body["params"]))

    def close(self) -> None:
        self.closed += 1

    def login(self, params: list[Any]) -> httpx.Response:
        self.logins += 1
        if params[1] != {"password": PASSWORD}:
            return httpx.Response(401)
        self.sessions.add(TOKEN)
        return result([1, TOKEN, None])

    def read(self, method: str, params: list[Any]) -> Any:
        if not method.endswith("search_read"):
            return {"company": 7} if method.endswith("get_preferences") else None
        model = method.removeprefix("model.").removesuffix(".search_read")
        domain, _, limit, _, _, context = params
        after = domain[0][2] if domain[0][1] == ">" else 0
        found = [row for row in self.records[model] if row["id"] > after]
        if domain[0][1] == "in":
            found = [row for row in found if is_active(row) and row["code"] in domain[0][2]]
        stock = {"quantity": float(context["locations"][0]) + 0.1} if "locations" in context else {}
        return [{**row, **stock} for row in found[:limit]]


def is_active(row: dict[str, Any]) -> bool:
    return bool(row["active"] and row["template."]["active"])


def product(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": number,
        "code": f"A-{number}",
        "name": f"Becher {number}",
        "active": 1,
        "type": "goods",
        "list_price": None,
        "list_price_used": {"__class__": "Decimal", "decimal": "10.50"},
        "create_date": WRITTEN_MICRO,
        "write_date": None,
        "template.": {"active": 1, "create_date": WRITTEN_MICRO, "write_date": None},
        "default_uom.": {"symbol": "u"},
        "quantity": 0.0,
    }
    return {**row, **changes}


def result(value: Any) -> httpx.Response:
    return httpx.Response(200, json={"id": 0, "result": value})


def error(*parts: Any) -> Answer:
    return lambda body: httpx.Response(200, json={"id": 0, "error": parts})


def status(code: int, **headers: str) -> Answer:
    return lambda body: httpx.Response(code, headers={name.replace("_", "-"): text for name, text in headers.items()})


def breaks_off(body: dict[str, Any]) -> httpx.Response:
    raise httpx.RemoteProtocolError("peer closed connection")


def make_client(server: httpx.BaseTransport | None, **changes: Any) -> Tryton:
    given = {"url": "http://erp.test", "database": "shop", "user": "sync", "password": PASSWORD, "page_size": 2}
    return Tryton(**{**given, "transport": server, **changes})


SEARCH = "model.product.product.search_read"


def read_names(erp: Tryton) -> list[str]:
    return [row["name"] for page in erp.search_read("product.product", [], ["name"]) for row in page]


ALL = [f"Becher {n}" for n in range(1, 6)]
