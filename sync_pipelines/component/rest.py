"""A REST interface declared in YAML, with its paging and its authentication."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from sync_pipelines.component.choices import Choice, built
from sync_pipelines.component.places import within
from sync_pipelines.component.templates import Declaration, Secret, Templated
from sync_pipelines.sources.json_paths import AnswerHeader
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_auth import ApiKeyAuth, BasicAuth, BearerAuth
from sync_pipelines.sources.rest_oauth import OAuthClientCredentials
from sync_pipelines.sources.rest_paging import (
    CursorPaging,
    LinkHeaderPaging,
    NextUrlPaging,
    OffsetPaging,
    PageNumberPaging,
)


class HeaderPath(Declaration):
    """A header of the answer, where a path is asked for: `{header: X-Total-Count}`."""

    header: Templated[str]
    """The header's name; capitals do not matter."""


PathInAnswer = str | list[str] | HeaderPath
"""Where something is in an answer: names joined by dots, a list of names, or a header."""
Statuses = int | list[int]
"""One status, or several."""
Parameters = dict[str, Templated[str | int | float | bool]]
"""Query parameters."""


class BearerDeclaration(Declaration):
    """A token in the header `Authorization: Bearer ...`."""

    token: Secret
    """Name of the environment variable that holds the token."""


class BasicDeclaration(Declaration):
    """User and password in the header `Authorization: Basic ...`."""

    user: Templated[str]
    """The user's name, without a colon."""
    password: Secret
    """Name of the environment variable that holds the password."""


class ApiKeyDeclaration(Declaration):
    """A key in a header of its own, or in the query."""

    key: Secret
    """Name of the environment variable that holds the key."""
    header: Templated[str] = "X-API-Key"
    """The header's name."""
    parameter: Templated[str | None] = None
    """The query parameter's name, instead of a header."""


class OAuthDeclaration(Declaration):
    """OAuth 2.0 client credentials."""

    token_url: Templated[str]
    """Where tokens are given out."""
    client_id: Templated[str]
    """The client's name."""
    client_secret: Secret
    """Name of the environment variable that holds the client's secret."""
    scope: Templated[str | list[str] | None] = None
    """One or several scopes to ask for."""
    secret_place: Templated[Literal["header", "body"]] = "header"  # noqa: S105 - a place, no secret
    """`header` for HTTP Basic, or `body`."""
    parameters: dict[str, Templated[str]] = Field(default_factory=dict, repr=False)
    """Further parameters of the token request."""


class AuthChoice(Choice):
    """Who is asking."""

    noun = "way of authentication"

    bearer: BearerDeclaration | None = None
    basic: BasicDeclaration | None = None
    api_key: ApiKeyDeclaration | None = None
    oauth_client_credentials: OAuthDeclaration | None = None

    def build(self) -> Any:
        """Builds what `RestSource(auth=...)` takes."""
        kind, options = self.chosen
        with within(kind):
            return options.make(_AUTHS[kind], options.named())


class PageNumberDeclaration(Declaration):
    """Numbered pages: `?page=1`, `?page=2`, ..."""

    parameter: Templated[str] = "page"
    """The query parameter with the page's number."""
    first_page: Templated[int] = 1
    """The number of the first page."""
    size_parameter: Templated[str] = "per_page"
    """The query parameter with the number of items in a page, if `size` is given."""
    size: Templated[int | None] = None
    """How many items to ask for in a page."""
    pages_path: Templated[PathInAnswer | None] = None
    """Where the answer says how many pages there are."""
    more_path: Templated[PathInAnswer | None] = None
    """Where the answer says whether there are more pages."""
    end_status: Templated[Statuses | None] = None
    """The status, or statuses, with which the server answers a page past the end."""
    empty_page_ends: Templated[bool] = False
    """True if an empty page is the end though it names a next one."""


class OffsetDeclaration(Declaration):
    """Offset and limit: `?offset=0&limit=100`."""

    limit: Templated[int] = 100
    """How many items to ask for in a page."""
    parameter: Templated[str] = "offset"
    """The query parameter with the offset."""
    limit_parameter: Templated[str] = "limit"
    """The query parameter with the limit."""
    total_path: Templated[PathInAnswer | None] = None
    """Where the answer says how many items there are in all."""
    more_path: Templated[PathInAnswer | None] = None
    """Where the answer says whether there are more items."""
    end_status: Templated[Statuses | None] = None
    """As in `page_number`."""
    empty_page_ends: Templated[bool] = False
    """As in `page_number`."""


class CursorDeclaration(Declaration):
    """Each answer holds a cursor for the next."""

    path: Templated[PathInAnswer]
    """Where the answer holds the cursor."""
    parameter: Templated[str] = "cursor"
    """The query parameter that takes it."""
    more_path: Templated[PathInAnswer | None] = None
    """Where the answer says whether there are more pages."""


class NextUrlDeclaration(Declaration):
    """Each answer holds the URL of the next page."""

    path: Templated[PathInAnswer] = "next"
    """Where the answer holds the URL."""


class LinkHeaderDeclaration(Declaration):
    """The header `Link` holds the URL of the next page."""


class PagingChoice(Choice):
    """How to get from page to page."""

    noun = "kind of paging"

    page_number: PageNumberDeclaration | None = None
    offset: OffsetDeclaration | None = None
    cursor: CursorDeclaration | None = None
    next_url: NextUrlDeclaration | None = None
    link_header: LinkHeaderDeclaration | None = None

    def build(self) -> Any:
        """Builds what `RestSource(paging=...)` takes."""
        kind, options = self.chosen
        with within(kind):
            return options.make(_PAGINGS[kind], with_headers(options.named()))


class RestDeclaration(Declaration):
    """Pages of JSON over HTTP, as `RestSource` reads them."""

    url: Templated[str]
    """Where the first page is."""
    items_path: Templated[str | list[str] | None] = None
    """Where the answer holds the list of items; by default the answer is the list."""
    parameters: Parameters = Field(default_factory=dict, repr=False)
    """Query parameters, added to those in the URL."""
    headers: dict[str, Templated[str]] = Field(default_factory=dict, repr=False)
    """Request headers; credentials belong into `auth`."""
    paging: Templated[PagingChoice | None] = None
    """How to get from page to page; by default all items are in one answer."""
    total_path: Templated[PathInAnswer | Literal[False] | None] = None
    """Where the answers say how many items there are in all; false if nothing in them is that."""
    auth: Templated[AuthChoice | None] = None
    """Who is asking."""
    decimals: Templated[bool] = True
    """True for numbers with a point as decimals with all their digits."""
    null_is_empty: Templated[bool] = False
    """True if the server gives null instead of an empty list."""
    timeout_s: Templated[float] = 30.0
    """Seconds to wait for a connection, and for each piece of an answer."""
    attempts: Templated[int] = 5
    """How often each request is tried in all."""
    longest_wait_s: Templated[float] = 60.0
    """Seconds to wait at most between two attempts."""
    max_pages: Templated[int] = 100_000
    """After so many pages the fetch fails."""

    def build(self) -> RestSource:
        """Builds the source."""
        options = with_headers(self.named())
        for name in ("paging", "auth"):
            if options.get(name) is None:
                options.pop(name, None)
                continue
            with within(name):
                options[name] = built(options[name], lambda choice: choice.build())
        return self.make(RestSource, options)


def with_headers(options: dict[str, Any]) -> dict[str, Any]:
    """Puts what stands for a header of an answer in the place of its declaration."""
    return {
        name: AnswerHeader(value.header) if isinstance(value, HeaderPath) else value for name, value in options.items()
    }


_AUTHS: dict[str, Callable[..., Any]] = {
    "bearer": BearerAuth,
    "basic": BasicAuth,
    "api_key": ApiKeyAuth,
    "oauth_client_credentials": OAuthClientCredentials,
}
_PAGINGS: dict[str, Callable[..., Any]] = {
    "page_number": PageNumberPaging,
    "offset": OffsetPaging,
    "cursor": CursorPaging,
    "next_url": NextUrlPaging,
    "link_header": LinkHeaderPaging,
}
