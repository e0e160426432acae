"""A REST server in a process of its own, for tests: it pages, limits, fails, hangs, drops, redirects, checks who asks.

Started with `python rest_server.py`; it prints the ports of two servers, which differ in nothing else, and runs until
its standard input is closed. `/<run>/<behaviour>/<options as JSON>` behaves; `/seen/<run>` tells what was asked there.
"""

import base64
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlsplit

ITEMS = [{"sku": f"A-{number}", "price": number + 0.1} for number in range(1, 8)]
seen: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
ended = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet; else each answer takes 40 ms

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_one()

    def do_POST(self) -> None:
        self.handle_one()

    def handle_one(self) -> None:
        parts = urlsplit(self.path)
        _, run, behaviour, *rest = parts.path.split("/")
        if run == "seen":
            self.answer(seen[behaviour])
            return
        self.base = "/".join(parts.path.split("/")[:4])
        self.options: dict[str, Any] = json.loads(unquote(rest[0])) if rest else {}
        self.query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        here = {"path": unquote(self.path), "behaviour": behaviour, "query": self.query, "headers": headers}
        seen[run].append({**here, "port": self.server.server_port, "body": dict(parse_qsl(self.body))})
        self.run, self.count = run, sum(each["behaviour"] == behaviour for each in seen[run])
        BEHAVIOURS[behaviour](self)

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(value).encode(), status, content_type="application/json", **headers)

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def url(self, **query: Any) -> str:
        port = self.options.get("port", self.server.server_port)
        host = self.options.get("host", "127.0.0.1")
        return f"http://{host}:{port}{self.base}?" + "&".join(f"{name}={value}" for name, value in query.items())

    def in_trouble(self) -> bool:
        return self.count <= self.options.get("times", 10**9)


def numbered(self: Handler) -> None:
    page, size = int(self.query["page"]), min(int(self.query.get("per_page", 3)), 3)
    first = self.options.get("first", 1)
    if self.options.get("deaf"):
        page = first
    items = ITEMS[(page - first) * size : (page - first + 1) * size]
    more = (page - first + 1) * size < len(ITEMS)
    self.answer({"data": {"items": items}, "pages": -(-len(ITEMS) // size), "more": more})


def offset(self: Handler) -> None:
    start, limit = int(self.query["offset"]), min(int(self.query["limit"]), 2)
    more = start + limit < len(ITEMS)
    self.answer({"items": ITEMS[start : start + limit], "total": len(ITEMS), "more": more})


def cursor(self: Handler) -> None:
    start = int(self.query.get("cursor", "c0")[1:])
    following = {"next_cursor": f"c{start + 3}"} if start + 3 < len(ITEMS) else self.options.get("last", {})
    self.answer({"items": ITEMS[start : start + 3], "meta": following})


def circle(self: Handler) -> None:
    number = int(self.query.get("cursor", 0))
    following = number + 1 if number < self.options["tail"] + self.options["length"] - 1 else self.options["tail"]
    self.answer({"items": [{"sku": str(self.count)}], "next": following})


def next_url(self: Handler) -> None:
    start = int(self.query.get("from", 0))
    end = start + 3
    link = f"?from={end}" if self.options.get("relative") else self.url(**{"from": end, **self.options.get("add", {})})
    self.answer({"results": ITEMS[start:end], "next": link if end < len(ITEMS) else None})


def link_header(self: Handler) -> None:
    start = int(self.query.get("from", 0))
    links = [f'<{self.url(**{"from": 0})}>; rel="first"']
    if start + 3 < len(ITEMS):
        links.append(f'<{self.url(**{"from": start + 3})}>; title="a, b"; rel="{self.options.get("rel", "next")}"')
    self.answer(ITEMS[start : start + 3], link=", ".join(links))


def refuse(self: Handler) -> None:
    if not self.in_trouble():
        self.answer(ITEMS)
        return
    after = self.options.get("retry_after")
    headers = {"retry_after": formatdate(time.time() + 1.5, usegmt=True) if after == "date" else after} if after else {}
    headers |= self.options.get("headers", {})
    self.answer(self.options.get("says", {"error": "no"}), self.options["status"], **headers)


def hang(self: Handler) -> None:
    if self.in_trouble():
        ended.wait(20)
        self.close_connection = True
        return
    self.answer(ITEMS)


def drop(self: Handler) -> None:
    if not self.in_trouble():
        self.answer(ITEMS)
        return
    self.close_connection = True
    if self.options.get("where") == "mid-body":
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\nContent-Type: application/json\r\n\r\n[{"sku":')
    elif self.options.get("where") == "mid-chunk":
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[{")


def cut(self: Handler) -> None:
    """Ends its answer by closing the connection, as servers do that do not know how long it will be."""
    if not self.in_trouble():
        self.answer(ITEMS)
        return
    self.close_connection = True
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
    self.wfile.write(head + self.options["body"].encode())


def redirect(self: Handler) -> None:
    if "landed" in self.query:
        self.answer(ITEMS)
        return
    self.send(b"", self.options.get("status", 302), location=self.options.get("to") or self.url(landed=1))


def raw(self: Handler) -> None:
    headers = {"content_type": self.options["type"]} if "type" in self.options else {}
    self.send(base64.b64decode(self.options["body"]), self.options.get("status", 200), **headers)


def secured(self: Handler) -> None:
    wanted, given = self.options["wanted"], {**self.query, **{k.lower(): v for k, v in self.headers.items()}}
    if all(given.get(name) == value for name, value in wanted.items()):
        start = int(self.query.get("from", 0))
        link = self.url(**{"from": start + 3, **{k: quote(v, safe="") for k, v in self.query.items() if k != "from"}})
        self.answer(ITEMS[start : start + 3], **({"link": f'<{link}>; rel="next"'} if start + 3 < len(ITEMS) else {}))
        return
    bare = str(given.get("authorization")).rpartition(" ")[2]
    self.answer({"error": "who are you?", "bare": bare, "echo": given}, self.options.get("status", 401))


def token(self: Handler) -> None:
    """Gives tokens t1-<run>, t2-<run>, ..."""
    if self.count <= self.options.get("fail_times", 0):
        self.answer({}, 503)
    elif self.options.get("hang"):
        hang(self)
    elif "says" in self.options:
        self.answer({**self.options["says"], "echo": self.body}, self.options.get("status", 400))
    else:
        number = self.count - self.options.get("fail_times", 0)
        self.answer({"access_token": f"t{number}-{self.run}", "token_type": "bearer", **self.options.get("also", {})})


def tokened(self: Handler) -> None:
    """Takes the tokens t<number>-<run> that are named; counts how often it was asked."""
    good = [f"Bearer t{number}-{self.run}" for number in self.options["good"]]
    if self.options.get("revoke_after") is not None and self.count > self.options["revoke_after"]:
        good = [f"Bearer t2-{self.run}"]
    if self.headers.get("authorization") in good:
        link_header(self)
    else:
        self.answer({"error": "bad token"}, 401)


BEHAVIOURS: dict[str, Callable[[Handler], None]] = {
    "circle": circle,
    "cursor": cursor,
    "cut": cut,
    "drop": drop,
    "hang": hang,
    "link_header": link_header,
    "next_url": next_url,
    "numbered": numbered,
    "offset": offset,
    "raw": raw,
    "redirect": redirect,
    "refuse": refuse,
    "secured": secured,
    "token": token,
    "tokened": tokened,
}


def main() -> None:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(*(server.server_port for server in servers), flush=True)  # noqa: T201 - that is how the ports are told
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main()
