"""A REST interface as a source: pages of JSON over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import httpx

from sync_pipelines.engine.completeness import reading_source
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.http_retries import Patience
from sync_pipelines.sources.http_statuses import may_mean_past_the_end
from sync_pipelines.sources.json_paths import MISSING, AnswerHeader, Path, look_up, path_names
from sync_pipelines.sources.link_header import read_link_header
from sync_pipelines.sources.pages import Page
from sync_pipelines.sources.rest_auth import RestAuth
from sync_pipelines.sources.rest_connection import RefusedError, RestConnection
from sync_pipelines.sources.rest_envelope import said_beside, why_refused
from sync_pipelines.sources.rest_pages_read import PagesRead, names_in
from sync_pipelines.sources.rest_paging import Answer, End, NoPaging, Paging, end_statuses, place_of, traits_of
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

    What may pass (5xx, 408, 425, 429, a 403 that is a rate limit, any refusal with `Retry-After`, time limits, dropped
    connections, answers that break off) is asked again with growing waits, or after the time that the server names.
    Every other refusal ends the fetch at once. URLs that the server gives, for the next page or as a redirect, must be
    on the same server (scheme, host and port), or the fetch ends: no other server gets the credentials. Secrets appear
    in no error, log or repr.

    The run is told what stated the end of the pages. Where the answers speak against it (another total than came, a
    total that changes, a next page that was not asked for), nothing is deleted and no item is taken for missing; the
    run's notes have the figures.

    While it is iterated it raises `RetryableError` if the server could not be reached or asked to wait in all attempts,
    and if the pages end with an empty one before the declared total;
    `ConfigurationError` for a missing secret, a refusal, an answer that is no JSON or has no list at `items_path`, a
    next page that leads to another server, and pages that go in a circle. An element of the list that is no object
    fails as one item.

    Args:
        url: Where the first page is: `http://` or `https://`, without login.
        items_path: Where the answer holds the list of items: names joined by dots (`"data.items"`), or a list of names;
            a key of exactly that name comes first. By default the answer is the list.
        parameters: Query parameters, added to those in the URL.
        headers: Request headers; credentials belong into `auth`.
        paging: How to get from page to page: `PageNumberPaging`, `OffsetPaging`, `CursorPaging`, `NextUrlPaging` or
            `LinkHeaderPaging`; by default all items are in one answer.
        total_path: Where the answers say how many items there are in all, a path or `AnswerHeader("X-Total-Count")`; by
            default where the paging says, else what is usually called so. False if nothing in the answers is that.
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

    source_kind: ClassVar[str] = "rest"
    """What Dagster shows of it as a badge."""

    url: str
    items_path: Path | None = field(default=None, kw_only=True)
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    paging: Paging = field(default_factory=NoPaging, kw_only=True)
    total_path: Path | Literal[False] | None = field(default=None, kw_only=True)
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
        if isinstance(self.items_path, AnswerHeader):
            raise ConfigurationError(f"RestSource(items_path={self.items_path!r}): items are in the body")
        path_names(self.items_path or _ROOT)
        path_names(self.total_path or _ROOT)
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
        with (
            reading_source(Secrets().shown(httpx.URL(self.url)), is_counted=True) as said,
            RestConnection(start, patience, self.auth, self.headers, self.transport) as connection,
        ):
            read = PagesRead(self.max_pages, self.paging, self.items_path or _ROOT, self.total_path)
            url: httpx.URL | End | None = self.paging.first(start)
            while isinstance(url, httpx.URL):
                read.expect(str(url), connection.secrets.shown(url))
                try:
                    answer, page, unread_links = connection.get(url, self._answer, decimals=self.decimals)
                except RefusedError as error:
                    url = self._end_or_raise(error, read)
                    continue
                answer = read.add(answer, page, unread_links)
                if page:
                    yield page
                url = self._next(connection, url, answer)
            read.end(url, said)

    def _end_or_raise(self, error: RefusedError, read: PagesRead) -> End:
        """Returns the end that a refusal means, as declared; the first page is never past it."""
        if not read.pages:
            raise error
        if error.status in end_statuses(traits_of(self.paging).end_status):
            return End(f"page {read.pages + 1} is answered with {error.status}", came_empty=True)
        if traits_of(self.paging).takes_end_status and may_mean_past_the_end(error.status):
            came = f"after {read.items:,} items in {read.pages:,} pages"
            option = f"{type(self.paging).__name__}(end_status={error.status})"
            raise RefusedError(f"{error}; {came}; if that is a page past the end, say {option}", error.status)
        raise error

    def _answer(self, connection: RestConnection, response: httpx.Response, body: Any) -> tuple[Answer, Page, str]:
        shown = connection.secrets.shown(response.url)
        header = read_link_header(response.headers.get("link", ""))
        answer = Answer(response.url, shown, body, 0, header.links, dict(response.headers))
        path = self.items_path or _ROOT
        if look_up(body, path) in (None, MISSING, []):
            refused_by = list(why_refused(said_beside(answer, path), answer))
            if refused_by:
                there = "nothing" if look_up(body, path) is MISSING else "no item"
                raise connection.refusal(response, body, f"{', '.join(refused_by)}, and {there} {place_of(path)}")
        items = self._items(answer)
        return replace(answer, count=len(items)), items, connection.secrets.excerpt(header.unread)

    def _items(self, answer: Answer) -> Page:
        path = self.items_path or _ROOT
        items = look_up(answer.body, path)
        if items is None and self.null_is_empty:
            return []
        if not isinstance(items, list):
            raise ConfigurationError(
                f"{answer.wrong(path, items, 'a list of items')}; the answer has: {names_in(answer)}"
            )
        return [
            item if isinstance(item, dict) else UnreadableItem(f"{answer.shown_url}, item {number}: {_no_object(item)}")
            for number, item in enumerate(items, 1)
        ]

    def _next(self, connection: RestConnection, url: httpx.URL, answer: Answer) -> httpx.URL | End | None:
        following = self.paging.next(url, answer)
        if following is None or isinstance(following, End):
            return following
        return connection.within_server(answer.url, following, f"the next page of {answer.shown_url}")


def _check_headers(headers: Mapping[str, Any]) -> None:
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS:
            raise ConfigurationError(f"RestSource(headers=...): {name} is secret; give auth=... instead")
        if not isinstance(value, str) or not _PRINTABLE.fullmatch(value) or not _PRINTABLE.fullmatch(name):
            raise ConfigurationError(f"RestSource(headers=...): {name!r} must be text of printable ASCII characters")


def _no_object(item: Any) -> str:
    return f"a {'null' if item is None else type(item).__name__} where an object belongs"
