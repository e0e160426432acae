"""One fetch's HTTP connection of a REST source: time limits, retries, redirects, and errors that say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import httpx

from sync_pipelines.engine.json_text import parse_json
from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.cut_off import is_cut_off
from sync_pipelines.sources.http_retries import Patience, open_client
from sync_pipelines.sources.http_statuses import is_good, passes, retry_after_s, what_to_check
from sync_pipelines.sources.rest_auth import RestAuth
from sync_pipelines.sources.rest_envelope import refusal_codes
from sync_pipelines.sources.rest_redaction import Secrets
from sync_pipelines.sources.rest_urls import bare, within_server

T = TypeVar("T")

_MAX_REDIRECTS = 5
_PASSES = re.compile(
    r"rate.?limit|too.?many.?requests|throttl|time.?out|timed out|temporar|try again|unavailable|overload|\bbusy\b|"
    r"maintenance|internal.?(server.?)?error",
    re.IGNORECASE,
)
"""Words of what passes, in answers that have no status for it."""


class RefusedError(ConfigurationError):
    """The server has no answer to the request, and says so with a status that does not pass."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return RefusedError, (str(self), self.status)


class RestConnection:
    """A connection pool to the server of one URL. Opened with `with`.

    Args:
        origin: A URL of the server; credentials go to no other.
    """

    def __init__(
        self,
        origin: httpx.URL,
        patience: Patience,
        auth: RestAuth | None,
        headers: Mapping[str, str],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.secrets = Secrets()
        self._origin = origin
        self._patience = patience
        self._stack = ExitStack()
        flow = auth.open(self.secrets) if auth else None
        all_headers = {"Accept": "application/json", "User-Agent": "sync-pipelines", **headers}
        self._client = open_client(patience, transport, auth=flow, headers=all_headers)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.secrets.kept_out_of_logs())
        self._stack.enter_context(self._client)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def get(self, url: httpx.URL, read: Callable[[Self, httpx.Response, Any], T], *, decimals: bool) -> T:
        """Asks for the JSON of a URL of the server, again where that may help, and follows redirects within the server.

        Args:
            read: Called with this connection, the answer and its JSON; raises `refusal` of what is no answer.

        Returns:
            What was read.

        Raises:
            RetryableError: The server could not be reached, asked to wait, or broke off its answer, in all attempts.
            RefusedError: The server refuses.
            ConfigurationError: It redirects elsewhere, or its answer is no JSON.
        """

        def attempt() -> T:
            response = self._get(url)
            return read(self, response, self._read_json(response, decimals=decimals))

        return self._patience.retrying(attempt)

    def _read_json(self, response: httpx.Response, *, decimals: bool) -> Any:
        shown = self.secrets.shown(response.url)
        if not response.content.strip():
            raise RefusedError(
                f"{shown} answered {response.status_code} with an empty body instead of JSON", response.status_code
            )
        try:
            return parse_json(response.content, charset=response.charset_encoding, decimals=decimals)
        except ValueError as error:
            kind = self.secrets.excerpt(response.headers.get("content-type", "no content type"))
            if is_cut_off(error):
                raise RetryableError(
                    f"{shown} broke off in the middle of its answer, after {len(response.content):,} bytes of {kind}"
                ) from error
            hint = "is it a login page or a proxy's? check url and auth" if "html" in kind else "check the url"
            raise ConfigurationError(
                f"{shown} answered with {kind} of {len(response.content):,} bytes that is no JSON ({error}); {hint}"
            ) from error

    def refusal(self, response: httpx.Response, body: Any, refused_by: str) -> RetryableError | RefusedError:
        """Returns the error of an answer whose body says that it is none, whatever its status.

        Args:
            refused_by: What says it, and where.
        """
        said = json.dumps(body, ensure_ascii=False, default=str)
        status = next(refusal_codes(body), response.status_code)
        message = (
            f"{self.secrets.shown(response.url)} answered {response.status_code}, but {refused_by}; it said: "
            f"{self.secrets.excerpt(said)}"
        )
        if passes(response, status) or _PASSES.search(said):
            return RetryableError(message, retry_after_s=retry_after_s(response))
        advice = what_to_check(status)
        return RefusedError(f"{message}{advice and '; '}{advice}", status)

    def within_server(self, base: httpx.URL, reference: httpx.URL | str, told_by: str) -> httpx.URL:
        """Resolves a URL that the server gave, which must be on the server itself.

        Args:
            told_by: What gave it, for the message.

        Raises:
            ConfigurationError: It is no URL, or on another server, which must not get our credentials.
        """
        shown = self.secrets.excerpt(str(reference))
        try:
            url = within_server(self._origin, base, reference)
        except ValueError as error:
            raise ConfigurationError(f"{told_by} is no URL: {shown!r}") from error
        if url is None:
            raise ConfigurationError(
                f"{told_by} leads to {shown}, another server than that of {bare(self._origin)}: it is not asked, since "
                "it would get the credentials; if it is the right one, give its address as url"
            )
        return url

    def _get(self, url: httpx.URL) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(url)
            if not response.has_redirect_location:
                return self._checked(response)
            told_by = f"the redirect of {self.secrets.shown(url)} ({response.status_code})"
            url = self.within_server(url, response.headers["location"], told_by)
        raise ConfigurationError(f"{self.secrets.shown(url)} redirects more than {_MAX_REDIRECTS} times; check the url")

    def _send(self, url: httpx.URL) -> httpx.Response:
        where = f"{self.secrets.shown(url)} did not answer"
        try:
            return self._client.get(url)
        except httpx.TimeoutException as error:
            reason = f"within {self._patience.timeout_s:g} s ({type(error).__name__})"
            raise RetryableError(f"{where} {reason}") from error
        except httpx.LocalProtocolError:
            # The cause is left out: it holds the header's value.
            raise ConfigurationError(f"{self.secrets.shown(url)}: a header of the request is not valid") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = self.secrets.excerpt(str(error)) or "no reason given"
            raise RetryableError(f"{where}: {type(error).__name__}: {reason}") from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if is_good(response):
            return response
        shown = self.secrets.shown(response.url)
        said = self.secrets.excerpt(f"{response.status_code} {response.reason_phrase}")
        if passes(response):
            raise RetryableError(f"{shown} answered {said}", retry_after_s=retry_after_s(response))
        advice = what_to_check(response.status_code)
        refusal = f"{shown} refuses: {said}{advice and '; '}{advice}{self._reason(response)}"
        raise RefusedError(refusal, response.status_code)

    def _reason(self, response: httpx.Response) -> str:
        """Reads what the server says about its refusal; a page for browsers says nothing to us."""
        if "html" in response.headers.get("content-type", "") or not response.content or response.is_success:
            return ""
        try:
            said = parse_json(response.content, charset=response.charset_encoding, decimals=False)
            text = json.dumps(said, ensure_ascii=False)
        except ValueError:
            text = response.text
        return f"; it said: {self.secrets.excerpt(text)}"
