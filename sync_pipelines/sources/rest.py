"""A REST interface as a source: pages of JSON over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.http_retries import Patience
from sync_pipelines.sources.pages import Page
from sync_pipelines.sources.rest_auth import RestAuth
from sync_pipelines.sources.rest_connection import RestConnection
from sync_pipelines.sources.rest_paging import Answer, NoPaging, Paging, Path, look_up, path_names
from sync_pipelines.sources.rest_redaction import Secrets
from sync_pipelines.sources.rest_urls import checked_url
from sync_pipelines.sources.unreadable_item import UnreadableItem

_PRINTABLE = re.compile(r"[\x20-\x7e\t]*")
_SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie"}
_ROOT: Path = ()


@dataclass(frozen=True, repr=False, eq=False)
class RestSource:
    """A REST interface: `fetch_external=RestSource("https://api.example.com/products", items_path="data")`.

    Called without arguments, it streams pages of dicts as the server gives them; making one connects nowhere and reads
    nothing, not even secrets.

    What may pass (5xx, 408, 425, 429, time limits, dropped connections) is asked again with growing waits, or after the
    time that the server names in `Retry-After`. Every other refusal ends the fetch at once. URLs that the server gives,
    for the next page or as a redirect, must be on the same server (scheme, host and port), or the fetch ends: no other
    server gets the credentials. Secrets appear in no error, log or repr.

    While it is iterated it raises `RetryableError` if the server could not be reached or asked to wait in all attempts;
    `ConfigurationError` for a missing secret, a refusal, an answer that is no JSON or has no list at `items_path`, a
    next page that leads to another server, and pages that go in a circle. An element of the list that is no object
    fails as one item.

    Args:
        url: Where the first page is: `http://` or `https://`, without login.
        items_path: Where the answer holds the list of items: names joined by dots (`"data.items"`), or a list of names.
            By default the answer is the list.
        parameters: Query parameters, added to those in the URL.
        headers: Request headers; credentials belong into `auth`.
        paging: How to get from page to page: `PageNumberPaging`, `OffsetPaging`, `CursorPaging`, `NextUrlPaging` or
            `LinkHeaderPaging`; by default all items are in one answer.
        auth: Who is asking: `BearerAuth`, `BasicAuth`, `ApiKeyAuth` or `OAuthClientCredentials`.
        decimals: True for numbers with a point or an exponent as `Decimal` with all their digits, false for floats.
        null_is_empty: True if the server gives null instead of an empty list; else null is an error, because it is also
            how servers say that something went wrong.
        timeout_s: Seconds to wait for a connection, and for each piece of an answer.
        attempts: How often each request is tried in all.
        longest_wait_s: Seconds to wait at most between two attempts; a server that asks for more ends the fetch.
        max_pages: After so many pages the fetch fails, should the server have no end.
        transport: Replaces the network, for tests.

    Raises:
        ConfigurationError: An option is not valid.
    """

    url: str
    items_path: Path | None = field(default=None, kw_only=True)
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    paging: Paging = field(default_factory=NoPaging, kw_only=True)
    auth: RestAuth | None = field(default=None, kw_only=True)
    decimals: bool = field(default=True, kw_only=True)
    null_is_empty: bool = field(default=False, kw_only=True)
    timeout_s: float = field(default=30.0, kw_only=True)
    attempts: int = field(default=5, kw_only=True)
    longest_wait_s: float = field(default=60.0, kw_only=True)
    max_pages: int = field(default=100_000, kw_only=True)
    transport: httpx.BaseTransport | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        checked_url(self.url, "RestSource(url=...)")
        _check_headers(self.headers)
        path_names(self.items_path or _ROOT)
        if self.attempts < 1 or self.max_pages < 1 or self.timeout_s <= 0 or self.longest_wait_s < 0:
            raise ConfigurationError(
                "RestSource(...): attempts and max_pages start at 1, timeout_s is more than 0, longest_wait_s not less"
            )

    def __repr__(self) -> str:
        return f"RestSource({Secrets().shown(httpx.URL(self.url))!r})"

    def __call__(self) -> Iterator[Page]:
        """Streams the pages."""
        start = checked_url(self.url, "RestSource(url=...)").copy_merge_params(self.parameters)
        patience = Patience(self.timeout_s, self.attempts, self.longest_wait_s)
        with RestConnection(start, patience, self.auth, self.headers, self.transport) as connection:
            guard = _LoopGuard(self.max_pages)
            url: httpx.URL | None = self.paging.first(start)
            while url is not None:
                guard.check_url(str(url), connection.secrets.shown(url))
                answer, page = self._read(connection, url)
                guard.check_page(page, answer.shown_url)
                if page:
                    yield page
                url = self._next(connection, url, answer)

    def _read(self, connection: RestConnection, url: httpx.URL) -> tuple[Answer, Page]:
        response = connection.get(url)
        body = connection.read_json(response, decimals=self.decimals)
        shown = connection.secrets.shown(response.url)
        links = {
            relation: link["url"] for relation, link in response.links.items() if relation and "anchor" not in link
        }
        items = self._items(Answer(response.url, shown, body, 0))
        return Answer(response.url, shown, body, len(items), links), items

    def _items(self, answer: Answer) -> Page:
        path = self.items_path or _ROOT
        items = look_up(answer.body, path)
        if items is None and self.null_is_empty:
            return []
        if not isinstance(items, list):
            names = ", ".join(answer.body) if isinstance(answer.body, dict) else f"a {type(answer.body).__name__}"
            raise ConfigurationError(f"{answer.wrong(path, items, 'a list of items')}; the answer has: {names[:200]}")
        return [
            item if isinstance(item, dict) else UnreadableItem(f"{answer.shown_url}, item {number}: {_no_object(item)}")
            for number, item in enumerate(items, 1)
        ]

    def _next(self, connection: RestConnection, url: httpx.URL, answer: Answer) -> httpx.URL | None:
        following = self.paging.next(url, answer)
        if following is None:
            return None
        return connection.within_server(answer.url, following, f"the next page of {answer.shown_url}")


class _LoopGuard:
    """Notices pages that go in a circle, however long, in constant memory.

    It compares each URL with a single earlier one, which it replaces after 1, 2, 4, 8... pages: once those are more
    than the pages of the circle, the circle comes back to it.

    Source:
        R. P. Brent, "An improved Monte Carlo factorization algorithm", BIT 20 (1980), section 2.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._pages = 0
        self._remembered: str | None = None
        self._remember_at = 1
        self._page: Page = []

    def check_url(self, url: str, shown: str) -> None:
        """Raises `ConfigurationError` for a URL that came before, or one too many."""
        if url == self._remembered:
            raise ConfigurationError(
                f"the pages go in a circle: after {self._pages} pages {shown} comes again; check paging=..."
            )
        if self._pages >= self._max_pages:
            raise ConfigurationError(f"{shown} would be page {self._pages + 1}, more than max_pages; does it ever end?")
        self._pages += 1
        if self._pages >= self._remember_at:
            self._remembered, self._remember_at = url, self._remember_at * 2

    def check_page(self, page: Page, shown: str) -> None:
        """Raises `ConfigurationError` for a page with the very items of the one before it."""
        if page and page == self._page:
            raise ConfigurationError(
                f"{shown} gives the same items as the page before it: the server does not heed the parameters of "
                "paging=..., or repeats its last page; check their names, or say where the answer marks the end"
            )
        self._page = page


def _check_headers(headers: Mapping[str, Any]) -> None:
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS:
            raise ConfigurationError(f"RestSource(headers=...): {name} is secret; give auth=... instead")
        if not isinstance(value, str) or not _PRINTABLE.fullmatch(value) or not _PRINTABLE.fullmatch(name):
            raise ConfigurationError(f"RestSource(headers=...): {name!r} must be text of printable ASCII characters")


def _no_object(item: Any) -> str:
    return f"a {'null' if item is None else type(item).__name__} where an object belongs"
