"""Which URLs a REST source may ask: its own server's and no others."""

from __future__ import annotations

import httpx

from sync_pipelines.errors import ConfigurationError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def checked_url(url: str, given_as: str) -> httpx.URL:
    """Reads a URL of a declaration.

    Args:
        given_as: Where, e.g. `"RestSource(url=...)"`.

    Raises:
        ConfigurationError: It is no `http://` or `https://` URL, or holds a login. The message does not show it.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        raise ConfigurationError(f"{given_as}: that is no URL") from None
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host:
        raise ConfigurationError(f"{given_as}: give scheme and host, as in https://api.example.com/products")
    if parsed.userinfo:
        raise ConfigurationError(f"{given_as}: leave the login out of the URL and give it as auth=BasicAuth(...)")
    return parsed.copy_with(fragment=None)


def within_server(server: httpx.URL, base: httpx.URL, reference: httpx.URL | str) -> httpx.URL | None:
    """Resolves a URL that a server gave of itself; None if it leads to another server.

    A server behind a proxy that ends TLS often gives `http://` URLs of itself; where ours is `https://`, so is then
    what comes back. A server may also move from `http://` to `https://`.

    Raises:
        ValueError: It is no URL.

    Source:
        RFC 3986, section 5, for relative URLs; RFC 6454, section 4, for what another server is.
    """
    try:
        url = base.join(reference).copy_with(userinfo=b"", fragment=None)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError("no URL") from error
    if _origin(url) == _origin(server):
        return url
    if url.host == server.host and _has_default_port(url) and _has_default_port(server):
        return url.copy_with(scheme="https", port=None)
    return None


def bare(url: httpx.URL) -> str:
    """Reduces a URL to scheme, host, port and path."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme)


def _has_default_port(url: httpx.URL) -> bool:
    return url.scheme in _DEFAULT_PORTS and url.port in {None, _DEFAULT_PORTS[url.scheme]}
