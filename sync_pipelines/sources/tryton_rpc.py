"""One connection to a Tryton server: session, retries, and errors that say what to do."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote

import httpx
import stamina

from sync_pipelines.errors import ConfigurationError, RetryableError, SyncPipelinesError
from sync_pipelines.settings.tryton import TrytonSettings
from sync_pipelines.sources.cut_off import is_cut_off
from sync_pipelines.sources.http_retries import Patience, open_client
from sync_pipelines.sources.http_statuses import passes, retry_after_s
from sync_pipelines.sources.tryton_wire import from_wire, to_wire

_LOGIN = "common.db.login"
_LOGIN_LOCK_S = 300.0  # the default of Tryton's setting [session] timeout
_LOGOUT_TIMEOUT_S = 2.0
_LONGEST_EXCERPT = 300


class TrytonError(ConfigurationError):
    """The server understood the call and refused it.

    Args:
        message: What was called, and what the server said.
        kind: The server's name for it, e.g. `"UserError"` or `"UserWarning"`; empty for a defect on its side.
        details: What the server sent along, as text; for a `UserWarning` its name, message and description.
    """

    def __init__(self, message: str, *, kind: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (str(self), self.kind, self.details)


def _rebuild_error(message: str, kind: str, details: tuple[str, ...]) -> TrytonError:
    return TrytonError(message, kind=kind, details=details)


class TrytonConnection:
    """A session over one HTTP connection pool. Opened with `with`, which also logs out and closes it."""

    def __init__(
        self, settings: TrytonSettings, patience: Patience, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._url = f"{settings.url}/{quote(settings.database, safe='')}/rpc/"
        self._token = ""
        self._headers: dict[str, str] = {}
        self._preferences: dict[str, Any] | None = None
        self._client = open_client(patience, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.closing(self._client):
            self._log_out()

    def call(self, model: str, method: str, *arguments: Any, context: Mapping[str, Any] | None = None) -> Any:
        """Calls a method of a model, logging in first and again where needed.

        A call that broke off is sent again, so what writes must be asked of a connection with a single attempt.

        Args:
            model: E.g. `"product.product"`.
            method: E.g. `"search_read"`.
            *arguments: The method's arguments, without the context.
            context: Added to the user's own context (company, language).

        Raises:
            TrytonError: The server refused the call.
            ConfigurationError: Login, database, address or the answer's form is wrong.
            RetryableError: The server could not be reached or asked to wait, in all attempts.
        """
        for attempt in stamina.retry_context(on=self._patience.backoff, attempts=self._patience.attempts, timeout=None):
            with attempt:
                return self._call_in_session(f"model.{model}.{method}", arguments, context or {})
        raise AssertionError("unreachable")

    def _call_in_session(self, name: str, arguments: tuple[Any, ...], context: Mapping[str, Any]) -> Any:
        if not self._headers:
            self._log_in()
        response = self._post_with_context(name, arguments, context)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            # Sessions end, by age or by a restart of the server, in the middle of a long fetch too. The password has
            # not changed for that; but only one login per call, or a server that forgets sessions would lock us out.
            self._log_in()
            response = self._post_with_context(name, arguments, context)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise ConfigurationError(
                f"Tryton at {self._settings.url} accepts the login of {self._settings.user!r} but not the session it "
                f"gave, for {name}: if several servers share the address, let them share the database"
            )
        return self._result(name, response)

    def _post_with_context(self, name: str, arguments: tuple[Any, ...], context: Mapping[str, Any]) -> httpx.Response:
        # Without the user's company in the context, prices kept per company read as null.
        if self._preferences is None:
            response = self._post("model.res.user.get_preferences", [True, {}])
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                return response
            self._preferences = dict(self._result("model.res.user.get_preferences", response) or {})
        return self._post(name, [*arguments, {**self._preferences, **context}])

    def _log_in(self) -> None:
        settings, self._headers = self._settings, {}
        password = settings.password.get_secret_value()
        response = self._post(_LOGIN, [settings.user, {"password": password}, "en"])
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise ConfigurationError(
                f"Tryton at {settings.url} refuses the login of {settings.user!r} to {settings.database!r}: "
                "check TRYTON_USER and TRYTON_PASSWORD (several bad logins in a row lock the user for minutes)"
            )
        match self._result(_LOGIN, response):
            case [int(user_id), str(token), *_]:
                self._token = token
                session = f"{settings.user}:{user_id}:{token}".encode()
                self._headers = {"Authorization": f"Session {base64.b64encode(session).decode('ascii')}"}
            case _:
                raise self._garbage(_LOGIN, response, "the answer holds no session")

    def _log_out(self) -> None:
        """Ends the session, which the server would otherwise keep for a month; if that fails, so be it."""
        if self._headers:
            with contextlib.suppress(httpx.HTTPError):
                self._client.post(
                    self._url,
                    content=to_wire({"id": 0, "method": "common.db.logout", "params": []}),
                    headers={**self._headers, "Content-Type": "application/json"},
                    timeout=min(_LOGOUT_TIMEOUT_S, self._patience.timeout_s),
                )

    def _post(self, name: str, params: list[Any]) -> httpx.Response:
        body = to_wire({"id": 0, "method": name, "params": params})
        headers = {**self._headers, "Content-Type": "application/json", "Accept": "application/json"}
        where = f"Tryton at {self._settings.url} did not answer {name}"
        try:
            response = self._client.post(self._url, content=body, headers=headers)
        except httpx.TimeoutException as error:
            raise RetryableError(f"{where} within {self._patience.timeout_s:g} s ({type(error).__name__})") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise RetryableError(f"{where}: {type(error).__name__}: {_shorten(self._redact(str(error)))}") from error
        if passes(response):
            raise self._come_back_later(name, response)
        return response

    def _come_back_later(self, name: str, response: httpx.Response) -> RetryableError:
        said, wait_s = f"{response.status_code} {response.reason_phrase}", retry_after_s(response)
        if name == _LOGIN and response.status_code == HTTPStatus.TOO_MANY_REQUESTS and wait_s is None:
            # The server counts the bad logins of the last minutes, and an attempt while it refuses counts as well.
            said += f" after too many bad logins of {self._settings.user!r}; check TRYTON_PASSWORD"
            wait_s = _LOGIN_LOCK_S
        message = f"Tryton at {self._settings.url} did not answer {name}: it said {said}"
        return RetryableError(message, retry_after_s=wait_s)

    def _result(self, name: str, response: httpx.Response) -> Any:
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise ConfigurationError(
                f"Tryton at {self._settings.url} knows no database {self._settings.database!r} (404 for {name}): "
                "check TRYTON_DATABASE and TRYTON_URL"
            )
        if response.status_code != HTTPStatus.OK:
            reason = f"{response.status_code} {response.reason_phrase}"
            raise ConfigurationError(f"Tryton at {self._settings.url} refuses {name}: {reason}; check TRYTON_URL")
        try:
            answer = from_wire(response.content, response.charset_encoding)
        except ValueError as error:
            if is_cut_off(error):
                where = f"Tryton at {self._settings.url} broke off in the middle of its answer to {name}"
                raise RetryableError(f"{where}, after {len(response.content):,} bytes") from error
            raise self._garbage(name, response, type(error).__name__) from error
        match answer:
            case {"error": error}:
                raise self._refusal(name, error)
            case {"result": result}:
                return result
        raise self._garbage(name, response, "the answer holds neither result nor error")

    def _refusal(self, name: str, error: Any) -> SyncPipelinesError:
        """Makes the error of a call that failed on the server, which arrives as an answer with status 200."""
        parts = list(error) if isinstance(error, (list, tuple)) else [error]
        known = parts[0] if len(parts) > 1 and isinstance(parts[1], list) else ""
        raw = parts[1] if known else parts[:1]
        details = tuple("" if part is None else self._redact(str(part)) for part in raw)
        said = self._redact(": ".join(part for part in (str(known), *details) if part))
        message = f"Tryton at {self._settings.url} refused {name}: {_shorten(said) or 'without a reason'}"
        return TrytonError(message, kind=str(known), details=details)

    def _garbage(self, name: str, response: httpx.Response, reason: str) -> ConfigurationError:
        kind = _shorten(self._redact(response.headers.get("content-type", "no content type")))
        return ConfigurationError(
            f"{self._settings.url} answered {name} with {kind} of {len(response.content)} bytes that is no "
            f"JSON-RPC ({reason}): check that TRYTON_URL is a Tryton 8 server and no proxy's or login page"
        )

    def _redact(self, text: str) -> str:
        """Takes secrets out of what the server said, should it have echoed our request."""
        password = self._settings.password.get_secret_value()
        session = self._headers.get("Authorization", "").removeprefix("Session ")
        for secret in (password, json.dumps(password)[1:-1], self._token, session):
            text = text.replace(secret, "***") if secret else text
        return text


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_EXCERPT else f"{text[:_LONGEST_EXCERPT]}..."
