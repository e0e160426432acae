"""How a REST source says who is asking. Secrets are read when a fetch starts."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import httpx
from pydantic import SecretStr

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.settings.secrets import Secret, check_secret, read_secret
from sync_pipelines.sources.rest_redaction import Secrets

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

AuthFlow = Generator[httpx.Request, httpx.Response, None]


class RestAuth(Protocol):
    """What `RestSource(auth=...)` takes."""

    def open(self, secrets: Secrets) -> httpx.Auth:
        """Reads the secrets for one fetch, and registers them so that they are redacted."""


@dataclass(frozen=True, slots=True)
class BearerAuth:
    """A token in the header `Authorization: Bearer ...`.

    Args:
        token: Name of the environment variable that holds the token, or a `SecretStr`.

    Raises:
        ConfigurationError: The token is given as neither.

    Source:
        RFC 6750, section 2.1.
    """

    token: Secret

    def __post_init__(self) -> None:
        check_secret(self.token, "BearerAuth(token=...)")

    def open(self, secrets: Secrets) -> httpx.Auth:
        """Reads the token."""
        token = _header_secret(read_secret(self.token, "BearerAuth(token=...)"), "BearerAuth(token=...)", secrets)
        return _HeaderAuth("Authorization", f"Bearer {token}")


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """User and password in the header `Authorization: Basic ...`.

    Args:
        user: The user's name, without a colon.
        password: Name of the environment variable that holds the password, or a `SecretStr`.

    Raises:
        ConfigurationError: The user's name has a colon, or the password is given as neither.

    Source:
        RFC 7617, section 2.
    """

    user: str
    password: Secret

    def __post_init__(self) -> None:
        check_secret(self.password, "BasicAuth(password=...)")
        if ":" in self.user:
            raise ConfigurationError("BasicAuth(user=...): a user's name can't hold a colon")

    def open(self, secrets: Secrets) -> httpx.Auth:
        """Reads the password."""
        password = read_secret(self.password, "BasicAuth(password=...)").get_secret_value()
        secrets.add(password, base64.b64encode(f"{self.user}:{password}".encode()).decode("ascii"))
        return httpx.BasicAuth(self.user, password)


@dataclass(frozen=True, slots=True)
class ApiKeyAuth:
    """A key in a header of its own, or, where the server wants it so, in the query.

    Args:
        key: Name of the environment variable that holds the key, or a `SecretStr`.
        header: The header's name.
        parameter: The query parameter's name, instead of a header. The server's own log will show the key.

    Raises:
        ConfigurationError: The key is given as neither, or the header's name is none.
    """

    key: Secret
    header: str = "X-API-Key"
    parameter: str | None = None

    def __post_init__(self) -> None:
        check_secret(self.key, "ApiKeyAuth(key=...)")
        if not _HEADER_NAME.fullmatch(self.header):
            raise ConfigurationError(f"ApiKeyAuth(header={self.header!r}): that is no name of a header")

    def open(self, secrets: Secrets) -> httpx.Auth:
        """Reads the key."""
        key = read_secret(self.key, "ApiKeyAuth(key=...)")
        if self.parameter is not None:
            secrets.add(key.get_secret_value())
            return _ParameterAuth(self.parameter, key.get_secret_value())
        return _HeaderAuth(self.header, _header_secret(key, "ApiKeyAuth(key=...)", secrets))


class _HeaderAuth(httpx.Auth):
    def __init__(self, name: str, value: str) -> None:
        self._name, self._value = name, value

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        request.headers[self._name] = self._value
        yield request


class _ParameterAuth(httpx.Auth):
    def __init__(self, name: str, value: str) -> None:
        self._name, self._value = name, value

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        request.url = request.url.copy_set_param(self._name, self._value)
        yield request


def _header_secret(secret: SecretStr, used_for: str, secrets: Secrets) -> str:
    value = secret.get_secret_value()
    secrets.add(value)
    # Said here, because the HTTP client's own error would show the value.
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(f"{used_for}: the secret holds a character that no header can carry")
    return value
