"""The REST source against a server in another process: pages, answers that are none, and pages without an end."""

import base64
import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.codec import encode
from sync_pipelines.engine.items import read_field
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_paging import (
    CursorPaging,
    LinkHeaderPaging,
    NextUrlPaging,
    OffsetPaging,
    PageNumberPaging,
)

SKUS = [f"A-{number}" for number in range(1, 8)]


@pytest.fixture(autouse=True)
def _no_waiting():
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def skus(source: RestSource) -> list[str]:
    return [item["sku"] for page in source() for item in page]


def answering(*bodies: Any, **options: Any) -> RestSource:
    """A source that gets these bodies, the last one for ever."""
    left = list(bodies)

    def handle(request: httpx.Request) -> httpx.Response:
        body = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(200, json=body) if not isinstance(body, bytes) else httpx.Response(200, content=body)

    return RestSource("http://api.test/items", transport=httpx.MockTransport(handle), **options)


@pytest.mark.parametrize(
    ("behaviour", "options", "paging", "items_path"),
    [
        ("numbered", {}, PageNumberPaging(), "data.items"),
        ("numbered", {}, PageNumberPaging(size=2), "data.items"),
        ("numbered", {}, PageNumberPaging(size=99), "data.items"),
        ("numbered", {}, PageNumberPaging(pages_path="pages"), ["data", "items"]),
        ("numbered", {}, PageNumberPaging(more_path="more"), "data.items"),
        ("numbered", {"first": 0}, PageNumberPaging(first_page=0, pages_path="pages"), "data.items"),
        ("offset", {}, OffsetPaging(), "items"),
        ("offset", {}, OffsetPaging(limit=1), "items"),
        ("offset", {}, OffsetPaging(total_path="total"), "items"),
        ("offset", {}, OffsetPaging(limit=2, more_path="more"), "items"),
        ("cursor", {}, CursorPaging("meta.next_cursor"), "items"),
        ("cursor", {"last": {"next_cursor": None}}, CursorPaging("meta.next_cursor"), "items"),
        ("cursor", {"last": {"next_cursor": ""}}, CursorPaging("meta.next_cursor"), "items"),
        ("cursor", {"last": None}, CursorPaging("meta.next_cursor"), "items"),
        ("next_url", {}, NextUrlPaging(), "results"),
        ("next_url", {"relative": True}, NextUrlPaging(), "results"),
        ("link_header", {}, LinkHeaderPaging(), None),
        ("link_header", {"rel": "last NEXT"}, LinkHeaderPaging(), None),
    ],
)
def test_every_kind_of_paging_gives_all_items_once(rest_server, behaviour, options, paging, items_path):
    source = RestSource(rest_server.url(behaviour, **options), paging=paging, items_path=items_path)
    assert skus(source) == SKUS
    assert skus(source) == SKUS  # and again at the next fetch


def test_pages_come_as_the_server_gives_them(rest_server):
    source = RestSource(rest_server.url("next_url"), paging=NextUrlPaging(), items_path="results")
    assert [len(page) for page in source()] == [3, 3, 1]


def test_without_paging_one_question_is_asked(rest_server):
    assert skus(RestSource(rest_server.url("link_header"))) == SKUS[:3]
    assert len(rest_server.seen()) == 1


def test_parameters_and_headers_are_sent_with_every_page(rest_server):
    url = rest_server.url("numbered") + "?lang=de"
    source = RestSource(
        url,
        items_path="data.items",
        parameters={"active": True, "q": "a b&c"},
        headers={"X-Shop": "7"},
        paging=PageNumberPaging(),
    )
    assert skus(source) == SKUS
    for asked in rest_server.seen():
        assert asked["query"] == {"lang": "de", "active": "true", "q": "a b&c", "page": asked["query"]["page"]}
        assert asked["headers"]["x-shop"] == "7"


def test_last_page_that_is_told_saves_the_question_for_an_empty_one(rest_server):
    skus(RestSource(rest_server.url("offset"), paging=OffsetPaging(total_path="total"), items_path="items"))
    assert len(rest_server.seen()) == 4


def test_making_a_source_asks_nothing_and_iterating_asks_only_for_what_is_taken(rest_server):
    source = RestSource(rest_server.url("next_url"), paging=NextUrlPaging(), items_path="results")
    pages = source()
    assert rest_server.seen() == []
    next(pages)
    pages.close()
    assert len(rest_server.seen()) == 1


@settings(deadline=None)
@given(total=st.integers(0, 60), size=st.integers(1, 9), cap=st.integers(1, 9), style=st.integers(0, 3))
def test_whatever_the_sizes_every_item_comes_exactly_once(total: int, size: int, cap: int, style: int) -> None:
    everything = [{"sku": str(number)} for number in range(total)]
    step = min(size, cap)

    def handle(request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        start = int(asked.get("offset") or asked.get("cursor") or (int(asked.get("page", 1)) - 1) * step)
        end = start + step
        following = end if end < total else None
        link = {"Link": f'<?cursor={end}>; rel="next"'} if following else {}
        return httpx.Response(200, json={"items": everything[start:end], "next": following}, headers=link)

    paging = [
        PageNumberPaging(size=size),
        OffsetPaging(limit=size),
        CursorPaging("next"),
        LinkHeaderPaging(),
    ][style]
    source = RestSource("http://api.test/", items_path="items", paging=paging, transport=httpx.MockTransport(handle))
    assert skus(source) == [item["sku"] for item in everything]


def test_prices_keep_their_digits_unless_floats_are_asked_for():
    body = b'[{"sku": "1", "price": 10.10, "weight": 1e-7, "stock": 12345678901234567890, "more": [0.1]}]'
    assert next(answering(body)()) == [
        {
            "sku": "1",
            "price": Decimal("10.10"),
            "weight": Decimal("1E-7"),
            "stock": 12345678901234567890,
            "more": [Decimal("0.1")],
        }
    ]
    assert str(next(answering(body)())[0]["price"]) == "10.10"
    assert type(next(answering(body, decimals=False)())[0]["price"]) is float


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        ("application/json; charset=utf-8", '[{"sku": "Größe €"}]'.encode("utf-8-sig")),
        ("application/json", '[{"sku": "Größe €"}]'.encode()),
        ("application/json; charset=windows-1252", '[{"sku": "Größe €"}]'.encode("cp1252")),
        ("text/plain; charset=nonsense", '[{"sku": "Größe €"}]'.encode()),
    ],
)
def test_text_is_read_in_the_encoding_that_the_server_names(rest_server, type_, body):
    assert skus(RestSource(rest_server.url("raw", type=type_, body=base64.b64encode(body).decode()))) == ["Größe €"]


@pytest.mark.parametrize(
    ("type_", "body", "said"),
    [
        ("text/html", b"<html><form>Please log in: hunter22</form></html>", r"text/html of 49 bytes.*login page"),
        ("application/json", b"", "empty body"),
        ("application/json", b" \n", "empty body"),
        ("application/json", b'[{"sku": }]', "no JSON"),
        ("application/json", b'[{"price": NaN}]', "NaN is no JSON number"),
        ("application/json", b"\xff\xfe\x00", "no JSON"),
        ("application/json", b"[" * 30_000, "nested too deeply"),
        ("application/json", b"[1e99999999999999999999999]", "out of range"),
        ("application/json", b'{"items": []}', "a dict at the top instead of a list of items; the answer has: items"),
        ("application/json", b"null", "null at the top"),
    ],
)
def test_answer_that_is_no_list_of_items_is_a_clear_error_after_one_question(rest_server, type_, body, said):
    url = rest_server.url("raw", type=type_, body=base64.b64encode(body).decode())
    with pytest.raises(ConfigurationError, match=said) as caught:
        skus(RestSource(url))
    assert f"http://127.0.0.1:{rest_server.port}/" in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert len(rest_server.seen()) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"data": {}}, "nothing at 'data.items'"),
        ({"data": None, "errors": ["x"]}, r"a list at 'errors', and nothing at 'data.items'; it said: .*errors"),
        ({"data": {"items": None}}, "null at 'data.items'"),
        ({"data": {"items": {"a": 1}}}, "a dict at 'data.items'"),
        ([1], "the answer has: a list"),
    ],
)
def test_answer_without_items_at_the_path_is_an_error_that_names_the_path(body, said):
    with pytest.raises(ConfigurationError, match=said):
        skus(answering(body, items_path="data.items"))


def test_null_is_an_empty_list_only_when_asked_for():
    assert skus(answering({"items": None}, items_path="items", null_is_empty=True)) == []
    with pytest.raises(ConfigurationError, match="nothing at"):
        skus(answering({}, items_path="items", null_is_empty=True))


def test_path_leads_through_lists_and_names_with_dots():
    assert skus(answering({"a.b": [{"rows": [{"sku": "1"}]}]}, items_path=["a.b", "0", "rows"])) == ["1"]


def test_element_that_is_no_object_fails_alone_and_names_its_place():
    good, bad, also_good = next(answering([{"sku": "1"}, "oops", {"sku": "3"}])())
    assert (good["sku"], also_good["sku"]) == ("1", "3")
    for look in (encode, lambda item: read_field(item, "sku"), lambda item: item["sku"], dict):
        with pytest.raises(ItemError, match=r"http://api\.test/items, item 2: a str where an object belongs"):
            look(bad)


def test_empty_source_has_no_items():
    for paging in (PageNumberPaging(), OffsetPaging(), CursorPaging("next"), NextUrlPaging(), LinkHeaderPaging()):
        assert list(answering({"items": []}, items_path="items", paging=paging)()) == []


def test_empty_page_with_a_cursor_is_not_the_end():
    bodies = [{"items": [], "next": "b"}, {"items": [{"sku": "1"}]}]
    assert skus(answering(*bodies, items_path="items", paging=CursorPaging("next"))) == ["1"]


def test_server_that_gives_a_cursor_at_the_end_too_is_believed_about_the_end():
    bodies = [
        {"items": [{"sku": "1"}], "next": "a", "more": True},
        {"items": [{"sku": "2"}], "next": "b", "more": False},
    ]
    source = answering(*bodies, items_path="items", paging=CursorPaging("next", more_path="more"))
    assert skus(source) == ["1", "2"]


@pytest.mark.parametrize(
    ("paging", "said"),
    [
        (PageNumberPaging(pages_path="pages"), "nothing at 'pages' instead of a whole number"),
        (PageNumberPaging(more_path="items"), "a list at 'items' instead of true or false"),
        (OffsetPaging(total_path="items"), "instead of a whole number"),
        (OffsetPaging(more_path="more"), "nothing at 'more' instead of true or false"),
        (CursorPaging("items"), "a list at 'items' instead of a cursor"),
        (CursorPaging("next", more_path="more"), "nothing at 'more'"),
        (NextUrlPaging("items"), "a list at 'items' instead of a URL"),
    ],
)
def test_what_should_tell_the_end_and_does_not_is_an_error(paging, said):
    with pytest.raises(ConfigurationError, match=said):
        skus(answering({"items": [{"sku": "1"}]}, items_path="items", paging=paging))


@pytest.mark.parametrize(("tail", "length"), [(0, 1), (3, 1), (0, 2), (1, 2), (0, 3), (5, 7), (20, 3)])
def test_cursors_that_go_in_a_circle_end_in_an_error(rest_server, tail, length):
    url = rest_server.url("circle", tail=tail, length=length)
    source = RestSource(url, items_path="items", paging=CursorPaging("next"))
    with pytest.raises(ConfigurationError, match=r"in a circle: after \d+ pages http.* comes again"):
        skus(source)
    assert len(rest_server.seen()) <= 3 * (tail + length) + 1


def test_next_page_that_is_the_current_one_ends_in_an_error_after_one_question():
    asked = itertools.count()

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[{"sku": str(next(asked))}], headers={"Link": f'<{request.url}>; rel="next"'})

    source = RestSource("http://api.test/", paging=LinkHeaderPaging(), transport=httpx.MockTransport(handle))
    with pytest.raises(ConfigurationError, match="in a circle: after 1 pages"):
        skus(source)
    assert next(asked) == 1


def test_server_that_does_not_heed_the_page_number_ends_in_an_error(rest_server):
    source = RestSource(rest_server.url("numbered", deaf=True), items_path="data.items", paging=PageNumberPaging())
    with pytest.raises(ConfigurationError, match="same items as the page before"):
        skus(source)
    assert len(rest_server.seen()) == 2


def test_server_without_an_end_is_left_after_the_most_pages():
    asked = itertools.count(1)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=[{"sku": str(next(asked))}]))
    source = RestSource("http://api.test/", paging=PageNumberPaging(), transport=transport, max_pages=5)
    with pytest.raises(ConfigurationError, match="page 6, more than max_pages"):
        skus(source)
    assert next(asked) == 6


Make = Callable[[], Any]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RestSource("api.example.com"), "scheme and host"),
        (lambda: RestSource("ftp://api.example.com"), "scheme and host"),
        (lambda: RestSource("http://user:hunter22@api.example.com"), "leave the login out"),
        (lambda: RestSource("http://a:b"), "no URL"),
        (lambda: RestSource(None), "no URL"),  # type: ignore[arg-type]
        (lambda: RestSource("http://a", items_path="data..items"), "empty part"),
        (lambda: RestSource("http://a", attempts=0), "attempts"),
        (lambda: RestSource("http://a", timeout_s=0), "timeout_s"),
        (lambda: RestSource("http://a", max_pages=0), "max_pages"),
        (lambda: RestSource("http://a", headers={"Authorization": "Bearer hunter22"}), "auth="),
        (lambda: RestSource("http://a", headers={"X-A": "a\nb"}), "printable"),
    ],
)
def test_option_that_is_not_valid_is_said_at_once_without_secrets(make: Make, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        make()
    assert "hunter22" not in str(caught.value)


def test_source_shows_its_address_without_what_sounds_secret():
    shown = repr(
        RestSource("http://a/items?lang=de&api_key=hunter22&X-Amz-Signature=abcdef", parameters={"token": "t0p"})
    )
    assert shown == "RestSource('http://a/items?lang=de&api_key=***&X-Amz-Signature=***')"
