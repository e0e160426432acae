"""One connection to Tryton: what the server and the network throw at it, each trouble a test."""

import base64
import logging
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.tryton import Tryton, TrytonError
from sync_pipelines_tests.sources.tryton_stand_in import (
    ALL,
    PASSWORD,
    SEARCH,
    TOKEN,
    StandIn,
    breaks_off,
    error,
    make_client,
    read_names,
    result,
    status,
)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def server() -> StandIn:
    return StandIn()


@pytest.fixture
def erp(server: StandIn) -> Tryton:
    return make_client(server)


def test_error_in_an_answer_with_status_200_names_model_and_method(server, erp):
    server.answers[SEARCH] = [error("'nonsense'", "")]
    with pytest.raises(TrytonError, match=r"refused model\.product\.product\.search_read: 'nonsense'"):
        read_names(erp)
    assert server.calls.count(SEARCH) == 1


def test_users_warning_comes_with_its_kind_and_name(server, erp):
    server.answers[SEARCH] = [error("UserWarning", ["0c1.with_stock", "There is stock", "Really?"])]
    with pytest.raises(TrytonError, match=r"UserWarning: .*There is stock") as caught:
        read_names(erp)
    assert (caught.value.kind, caught.value.details[0]) == ("UserWarning", "0c1.with_stock")


def test_errors_survive_pickling():
    again = pickle.loads(pickle.dumps(TrytonError("no", kind="UserError", details=("x",))))
    assert (str(again), again.kind, again.details) == ("no", "UserError", ("x",))


def test_bad_password_is_a_configuration_error_after_one_login(server):
    with pytest.raises(ConfigurationError, match=r"refuses the login of 'sync'.*TRYTON_PASSWORD"):
        next(make_client(server, password="wrong").products())
    assert server.logins == 1


def test_session_that_ends_in_the_middle_of_paging_is_renewed(server, erp):
    pages = erp.search_read("product.product", [], ["name"])
    seen = next(pages)
    server.sessions.clear()
    assert [row["name"] for page in [seen, *pages] for row in page] == ALL
    assert server.logins == 2


def test_session_refused_right_after_the_login_is_an_error_after_one_more_login(server, erp):
    server.answers[SEARCH] = [status(401)] * 9
    with pytest.raises(ConfigurationError, match="not the session"):
        read_names(erp)
    assert server.logins == 2


def test_session_that_ends_before_the_first_question_is_renewed(server, erp):
    server.answers["model.res.user.get_preferences"] = [status(401)]
    assert read_names(erp) == ALL
    assert server.logins == 2


@pytest.mark.parametrize("session", [None, [], [1], ["1", TOKEN], [1, None, None], {}])
def test_login_without_a_session_in_its_answer_is_a_clear_error(server, erp, session):
    server.answers["common.db.login"] = [lambda _: result(session)]
    with pytest.raises(ConfigurationError, match="no session"):
        read_names(erp)


def test_unknown_database_is_named(server, erp):
    server.answers["common.db.login"] = [status(404)]
    with pytest.raises(ConfigurationError, match="no database 'shop'"):
        read_names(erp)


@pytest.mark.parametrize("code", [301, 403, 405])
def test_other_refusals_are_not_tried_again(server, erp, code):
    server.answers[SEARCH] = [status(code)]
    with pytest.raises(ConfigurationError, match=rf"{code}.*TRYTON_URL"):
        read_names(erp)


def test_too_many_requests_are_asked_again_after_the_time_that_the_server_names(server, erp):
    server.answers[SEARCH] = [status(429, retry_after="1")]
    waits: list[RetryDetails] = []
    with stamina.set_testing(False):
        set_on_retry_hooks([waits.append])
        try:
            assert read_names(erp) == ALL
        finally:
            set_on_retry_hooks(None)
    assert [details.wait_for for details in waits] == [1.0]


def test_locked_login_is_not_tried_again_since_that_would_prolong_the_lock(server, erp):
    server.answers["common.db.login"] = [status(429)] * 9
    with pytest.raises(RetryableError, match=r"429.*too many bad logins of 'sync'.*TRYTON_PASSWORD") as caught:
        read_names(erp)
    assert (caught.value.retry_after_s, server.calls) == (300, ["common.db.login"])


def test_server_that_asks_for_an_hour_is_left_at_once(server, erp):
    server.answers[SEARCH] = [status(503, retry_after="3600")]
    with pytest.raises(RetryableError, match="503") as caught:
        read_names(erp)
    assert (caught.value.retry_after_s, server.calls.count(SEARCH)) == (3600, 1)


@pytest.mark.parametrize(
    ("header", "seconds"), [("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("-1", None), ("", None)]
)
def test_retry_after_is_read_as_a_date_and_nonsense_is_ignored(server, erp, header, seconds):
    server.answers[SEARCH] = [status(429, retry_after=header)] * 4
    with pytest.raises(RetryableError) as caught:
        read_names(erp)
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("trouble", [status(500), status(502), status(503), status(504), breaks_off])
@pytest.mark.parametrize("method", ["common.db.login", "model.res.user.get_preferences", SEARCH])
def test_passing_trouble_is_tried_again(server, erp, method, trouble):
    server.answers[method] = [trouble] * 3
    assert read_names(erp) == ALL


@pytest.mark.parametrize("trouble", [status(502), breaks_off])
def test_lasting_trouble_ends_as_retryable_after_all_attempts(server, erp, trouble):
    server.answers[SEARCH] = [trouble] * 9
    with pytest.raises(RetryableError, match=r"did not answer model\.product\.product\.search_read"):
        read_names(erp)
    assert server.calls.count(SEARCH) == 4


@pytest.mark.parametrize("method", ["common.db.login", SEARCH])
def test_answer_that_breaks_off_is_asked_for_again(server, erp, method):
    server.answers[method] = [lambda _: httpx.Response(200, content=b'{"result": [{"id": 1')]
    assert list(erp.search_read("product.product", [], ["code"]))
    assert not server.answers[method]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Please log in</html>",
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"result": ]',
        b"\xff\xfe\x00",
        b"[" * 9999,
        b'{"result": {"__class__": "datetime", "year": 2026}}',
        b'{"result": {"__class__": "Decimal", "decimal": "x"}}',
    ],
)
@pytest.mark.parametrize("method", ["common.db.login", SEARCH])
def test_answer_that_is_no_json_rpc_is_a_clear_error(server, erp, method, body):
    server.answers[method] = [lambda _: httpx.Response(200, content=body, headers={"content-type": "text/html"})]
    with pytest.raises(ConfigurationError, match=rf"{method} with text/html.*TRYTON_URL"):
        read_names(erp)


@contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on a free port that treats each connection as told. Gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_server_that_never_answers_is_given_up_after_the_time_limit():
    connections = []

    def hang(connection: socket.socket) -> None:
        connections.append(connection)
        while connection.recv(4096):
            pass

    with listening(hang) as url, pytest.raises(RetryableError, match=r"within 0\.1 s"):
        next(make_client(None, url=url, timeout_s=0.1, attempts=2).products())
    assert len(connections) == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/1.1 nonsense\r\n\r\n"])
def test_connection_that_drops_before_the_end_of_the_answer_is_tried_again(said):
    connections = []

    def drop(connection: socket.socket) -> None:
        connections.append(connection)
        connection.recv(65536)
        connection.sendall(said)

    with listening(drop) as url, pytest.raises(RetryableError, match="did not answer common"):
        next(make_client(None, url=url, attempts=3).products())
    assert len(connections) == 3


def test_nobody_listening_is_retryable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(RetryableError, match="ConnectError"):
        next(make_client(None, url=url, attempts=2).products())


def test_proxy_in_the_environment_is_not_used_for_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with listening(answer) as url, pytest.raises(ConfigurationError, match="knows no database"):
        next(make_client(None, url=url).products())
    assert asked[0].startswith(b"POST /shop/rpc/ ")


def test_making_a_client_connects_nowhere(server):
    make_client(server)
    assert server.calls == []


@pytest.mark.parametrize("ending", ["exhausted", "broken off", "raising"])
def test_session_and_connection_are_closed_however_a_fetch_ends(server, erp, ending):
    if ending == "raising":
        server.answers[SEARCH] = [error("no", "")]
        with pytest.raises(TrytonError):
            next(erp.products())
    else:
        with closing(erp.products()) as pages:
            (next if ending == "broken off" else list)(pages)
    assert (server.calls[-1], server.closed) == ("common.db.logout", 1)


@pytest.mark.parametrize("trouble", [status(500), status(401), breaks_off])
def test_logout_that_fails_spoils_nothing(server, erp, trouble):
    server.answers["common.db.logout"] = [trouble]
    assert read_names(erp) == ALL
    assert server.closed == 1


def test_neither_password_nor_session_appear_in_reprs():
    assert PASSWORD not in repr(make_client(None))
    assert PASSWORD not in str(make_client(None).__dict__)


SESSION = base64.b64encode(f"sync:1:{TOKEN}".encode()).decode()


def echo(body: dict[str, Any]) -> httpx.Response:
    known = "" if body["method"] == "common.db.login" else f"{TOKEN} {SESSION}"
    return httpx.Response(200, json={"error": [f"bad request {body} with {known}", [PASSWORD, {"deep": PASSWORD}]]})


@pytest.mark.parametrize("method", ["common.db.login", SEARCH])
@pytest.mark.parametrize("trouble", [echo, status(500), status(401), lambda body: httpx.Response(200, text=PASSWORD)])
def test_neither_password_nor_session_appear_in_errors_and_logs(server, erp, method, trouble, caplog):
    caplog.set_level(logging.DEBUG)
    server.answers[method] = [trouble] * 9
    with pytest.raises((ConfigurationError, RetryableError)) as caught:
        read_names(erp)
    shown = f"{caught.value!r} {getattr(caught.value, 'details', '')} {caught.value.__cause__!r} {caplog.text}"
    assert not [secret for secret in (PASSWORD, TOKEN, SESSION) if secret in shown]
