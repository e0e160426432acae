"""OAuth 2.0 client credentials for REST sources; oauthlib writes and reads the messages, httpx carries them."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote_plus

import httpx
from pydantic import SecretStr

from sync_pipelines.engine.json_text import json_text, parse_json
from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.settings.secrets import Secret, check_secret, read_secret
from sync_pipelines.sources.http_statuses import passes, retry_after_s
from sync_pipelines.sources.rest_auth import AuthFlow
from sync_pipelines.sources.rest_redaction import Secrets
from sync_pipelines.sources.rest_urls import checked_url

_USED_FOR = "OAuthClientCredentials(client_secret=...)"
_EARLY_S = 30.0


@dataclass(frozen=True, slots=True)
class OAuthClientCredentials:
    """A token that is asked for at the start of a fetch, and again when it has expired or is refused with 401.

    Args:
        token_url: Where tokens are given out. Only this address gets the client's secret.
        client_id: The client's name.
        client_secret: Name of the environment variable that holds the client's secret, or a `SecretStr`.
        scope: One or several scopes to ask for.
        secret_place: `"header"` for HTTP Basic, which every server must support, or `"body"`.
        parameters: Further parameters of the token request, such as `{"audience": "https://api.example.com"}`.

    Raises:
        ConfigurationError: The secret is given as neither, or the URL is none.

    Source:
        RFC 6749, sections 2.3.1, 4.4, 5.1 and 5.2.
    """

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str | Sequence[str] | None = None
    secret_place: Literal["header", "body"] = "header"  # noqa: S105 - a place, no secret
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_secret(self.client_secret, _USED_FOR)
        checked_url(self.token_url, "OAuthClientCredentials(token_url=...)")
        if self.secret_place not in ("header", "body"):
            raise ConfigurationError(f"OAuthClientCredentials(secret_place={self.secret_place!r}): header or body")

    def open(self, secrets: Secrets) -> httpx.Auth:
        """Reads the secret; the token is asked for with the first request."""
        return _ClientCredentialsFlow(self, read_secret(self.client_secret, _USED_FOR), secrets)


class _ClientCredentialsFlow(httpx.Auth):
    requires_response_body = True

    def __init__(self, declared: OAuthClientCredentials, secret: SecretStr, secrets: Secrets) -> None:
        from oauthlib.oauth2 import BackendApplicationClient  # noqa: PLC0415 - only who uses it should wait for it

        self._declared = declared
        self._secret = secret.get_secret_value()
        self._secrets = secrets
        self._messages = BackendApplicationClient(declared.client_id)
        self._url = httpx.URL(declared.token_url)
        scope = declared.scope
        self._scope = scope if scope is None or isinstance(scope, str) else " ".join(scope)
        self._token = ""
        self._stale_at_s = 0.0
        login = f"{quote_plus(declared.client_id)}:{quote_plus(self._secret)}"
        self._basic = base64.b64encode(login.encode()).decode("ascii")
        secrets.add(self._secret, self._basic)

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        renewed = not self._token or time.monotonic() >= self._stale_at_s
        if renewed:
            self._take_token((yield self._token_request(request)))
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == HTTPStatus.UNAUTHORIZED and not renewed:
            self._take_token((yield self._token_request(request)))
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _token_request(self, request: httpx.Request) -> httpx.Request:
        in_body = self._declared.secret_place == "body"  # noqa: S105 - a place, no secret
        secret = {"client_secret": self._secret} if in_body else {}
        body = self._messages.prepare_request_body(
            scope=self._scope, include_client_id=in_body, **secret, **self._declared.parameters
        )
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        if not in_body:
            headers["Authorization"] = f"Basic {self._basic}"
        # The time limits travel in the extensions; without them the request would wait for ever.
        return httpx.Request("POST", self._url, content=body, headers=headers, extensions=request.extensions)

    def _take_token(self, response: httpx.Response) -> None:
        shown = self._secrets.shown(self._url)
        status = f"{response.status_code} {response.reason_phrase}"
        if passes(response):
            raise RetryableError(f"{shown} gave no token: {status}", retry_after_s=retry_after_s(response))
        if response.has_redirect_location:
            raise ConfigurationError(f"{shown} gave no token but a redirect: {status}; check token_url")
        try:
            text = json_text(response.content, response.charset_encoding)
            answer = parse_json(text)
        except ValueError:
            text, answer = "", None
        if not isinstance(answer, dict):
            kind = self._secrets.excerpt(response.headers.get("content-type", "no content type"))
            raise ConfigurationError(f"{shown} gave no token: {status}, {kind} that is no JSON object; check token_url")
        self._read_token(text, f"{shown} gave no token to client {self._declared.client_id!r} ({status})")

    def _read_token(self, text: str, complaint: str) -> None:
        from oauthlib.oauth2 import OAuth2Error  # noqa: PLC0415 - loaded by now

        try:
            answer = self._messages.parse_request_body_response(text)
        except (OAuth2Error, ValueError) as error:
            # The cause is left out: it holds the whole answer.
            raise ConfigurationError(f"{complaint}: {self._secrets.excerpt(str(error))}") from None
        token, lifetime_s = answer["access_token"], float(answer.get("expires_in") or 0)
        if not (isinstance(token, str) and token.isascii() and token.isprintable() and token):
            raise ConfigurationError(f"{complaint}: what it calls access_token is none")
        self._secrets.add(token)
        self._token = token
        # A token without a lifetime is used until it is refused.
        usable_s = lifetime_s - min(_EARLY_S, lifetime_s / 10) if lifetime_s > 0 else float("inf")
        self._stale_at_s = time.monotonic() + usable_s
