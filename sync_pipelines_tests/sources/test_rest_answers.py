"""Answers of interfaces as they are: bundles, bounds of totals, refusals with status 200, empty pages in the middle."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_paging import CursorPaging, NextUrlPaging, OffsetPaging, PageNumberPaging
from sync_pipelines.sources.stated_numbers import at_most, whole_number
from sync_pipelines_tests.sources.test_rest_ends import URL, items, page, read, source


def bundle(first: int, last: int, following: str | None = None, relation: str = "relation") -> dict[str, Any]:
    links = [{relation: "self", "url": f"{URL}?page=1"}]
    links += [{relation: "next", "url": following}] if following else []
    return {"resourceType": "Bundle", "total": 4, "link": links, "entry": items(first, last)}


@pytest.mark.parametrize("relation", ["relation", "rel"])
def test_next_link_is_found_in_a_list_of_links(relation):
    pages = [bundle(0, 2, "?page=2", relation), bundle(2, 4, None, relation)]
    count, completeness, notes = read(source(*pages, items_path="entry", paging=NextUrlPaging("link.next")))
    assert (count, completeness.is_complete, notes) == (4, True, [])


def test_next_link_may_be_an_object():
    pages = [page(0, 2, _links={"next": {"href": "?p=2"}}), page(2, 3, _links={"self": {"href": "?p=2"}})]
    assert read(source(*pages, paging=NextUrlPaging("_links.next")))[0] == 3


def test_next_link_in_a_list_that_nobody_follows_is_doubted():
    for declared in ({}, {"paging": NextUrlPaging("next")}):
        reply = {name: value for name, value in bundle(0, 2, "?page=2").items() if name != "total"}
        _, completeness, _ = read(source(reply, items_path="entry", **declared))
        assert "there is a value at 'link.next'" in "; ".join(completeness.doubts)


def test_items_that_look_like_links_name_no_next_page():
    reply = {"links": [{"rel": "next", "href": "?p=2"}]}
    assert read(source(reply, items_path="links"))[1].is_complete


def test_last_item_holds_the_cursor():
    pages = [page(0, 2, has_more=True), page(2, 3, has_more=False)]
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("starting_after"))
        return httpx.Response(200, json=pages[len(asked) - 1])

    paging = CursorPaging("items.-1.sku", parameter="starting_after", more_path="has_more")
    fetch = RestSource(URL, items_path="items", paging=paging, transport=httpx.MockTransport(handle))
    assert (read(fetch)[0], asked) == (3, [None, "1"])


def hits(first: int, last: int, value: int, relation: str = "eq", **beside: Any) -> dict[str, Any]:
    return {"timed_out": False, "hits": {"total": {"value": value, "relation": relation}, "hits": items(first, last)},
            **beside}  # fmt: skip


FROM = OffsetPaging(limit=2, parameter="from", limit_parameter="size", total_path="hits.total.value")


@pytest.mark.parametrize(
    ("replies", "options", "doubt"),
    [
        ([hits(0, 2, 4), hits(2, 4, 4)], {"paging": FROM}, ""),
        ([hits(0, 2, 4)], {}, "2 of 4 items came"),
        ([hits(0, 2, 2)], {}, ""),
        ([{"hits": {"total": 5, "hits": items(0, 2)}}], {}, "2 of 5 items came"),
        ([hits(0, 2, 4, "gte"), hits(2, 4, 4, "gte")], {"paging": FROM}, "4 items came of at least 4"),
        ([hits(0, 2, 2, "gte")], {}, "2 items came of at least 2"),
        ([hits(0, 2, 2, _scroll_id="x")], {}, "'_scroll_id'"),
        ([hits(0, 2, 2, _shards={"total": 5, "successful": 4, "failed": 1})], {}, "at '_shards'"),
        ([hits(0, 2, 2, _shards={"total": 5, "successful": 5, "failed": 0})], {}, ""),
        ([page(0, 2, LastEvaluatedKey={"id": {"S": "1"}})], {}, "'LastEvaluatedKey'"),
        ([page(0, 2, offset="itrX/recY")], {}, "'offset'"),
        ([page(0, 2, offset="0", limit=2)], {}, ""),
    ],
)
def test_what_databases_behind_interfaces_say_is_understood(replies, options, doubt):
    path = "items" if "items" in replies[0] else "hits.hits"
    doubts = read(source(*replies, items_path=path, **options))[1].doubts
    assert doubt in "; ".join(doubts)
    assert bool(doubts) == bool(doubt)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ({"success": False, "message": "no such shop"}, "there is false at 'success'"),
        ({"success": "false"}, "there is 'false' at 'success'"),
        ({"ok": False, "error": "missing_scope"}, "at 'ok'"),
        ({"ok": 0}, "at 'ok'"),
        ({"status": "error"}, "there is 'error' at 'status'"),
        ({"stat": "fail"}, "there is 'fail' at 'stat'"),
        ({"status": 404}, "at 'status'"),
        ({"meta": {"code": 403}}, "at 'meta.code'"),
        ({"errors": [{"message": "Cannot query field"}], "data": None}, "there is a list at 'errors'"),
        ({"error": {"code": 101, "type": "missing_access_key"}}, "at 'error'"),
    ],
)
@pytest.mark.parametrize("found", ["empty", "null", "nothing"])
def test_answer_that_says_that_it_is_none_is_no_end_whatever_its_status(refusal, said, found):
    beside = {"empty": {"items": []}, "null": {"items": None}, "nothing": {}}[found]
    for fetch in (
        source({**refusal, **beside}, null_is_empty=True),
        source(page(0, 2), {**refusal, **beside}, null_is_empty=True, paging=PageNumberPaging()),
    ):
        with pytest.raises(ConfigurationError, match=r"answered 200, but there is .*it said: ") as caught:
            read(fetch)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "refusal",
    [
        {"ok": False, "error": "ratelimited"},
        {"success": False, "error": {"code": 429}},
        {"errors": [{"extensions": {"code": "THROTTLED"}}], "data": None},
        {"status": "error", "code": 503},
        {"status": "error", "message": "Service temporarily unavailable"},
    ],
)
def test_refusal_with_status_200_that_passes_is_asked_again(refusal):
    left = [refusal, page(0, 2)]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=left.pop(0)))
    assert read(RestSource(URL, items_path="items", transport=transport, attempts=2, longest_wait_s=0))[0] == 2
    with pytest.raises(RetryableError, match="answered 200, but"):
        read(source(refusal))


def test_refusal_in_the_body_can_be_the_end_that_is_declared():
    replies = [page(0, 2), {"success": False, "code": 404, "items": []}]
    count, completeness, _ = read(source(*replies, paging=PageNumberPaging(end_status=404)))
    assert (count, completeness.is_complete) == (2, True)
    with pytest.raises(ConfigurationError, match=r"PageNumberPaging\(end_status=404\)"):
        read(source(*replies, paging=PageNumberPaging()))


@pytest.mark.parametrize("beside", [{"success": False}, {"status": "failed"}, {"error": "no stock"}, {"ok": "0"}])
def test_refusal_beside_items_is_doubted(beside):
    assert "page 1: there is" in read(source(page(0, 2, **beside)))[1].doubts[0]


@pytest.mark.parametrize(
    "beside",
    [
        {"success": True, "status": "ok", "error": None, "errors": [], "code": 200},
        {"ok": 1, "error": "", "status": 200, "result": "success"},
        {"error": {"code": 0, "message": "OK"}, "errors": {}, "fault": False},
        {"status": "failed", "filter": {"status": "failed"}},
        {"error": False, "error_message": "none", "order": {"status": "error", "success": False}},
    ],
)
def test_answer_that_says_that_all_is_well_is_complete(beside):
    for fetch in (source(page(0, 2, **beside), parameters={"state": "failed"}), source(page(0, 0, **beside),
                  parameters={"state": "failed"})):  # fmt: skip
        assert read(fetch)[1].doubts == ()


def test_no_secret_of_a_refusal_is_shown():
    with pytest.raises(ConfigurationError) as caught:
        read(source({"success": False, "password": "hunter22", "items": []}))
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (250, 250),
        (250.0, 250),
        (Decimal("250.0"), 250),
        ("250", 250),
        (" 250 ", 250),
        ("250.0", 250),
        ("250.00", 250),
        ("1250.000", 1250),
        ("1 200", 1200),
        ("1\u00a0200", 1200),
        ("1\u202f200\u202f000", 1_200_000),
        ("1'200", 1200),
        ("1,200,000", 1_200_000),
        ("1.200.000", 1_200_000),
        ("1,200.0", 1200),
        ("1,200", None),
        ("1.200", None),
        ("250.000", None),
        ("12,00,0", None),
        ("1e3", None),
        (-1, None),
        ("-1", None),
        (250.5, None),
        (1e300, None),
        (float("nan"), None),
        (Decimal("NaN"), None),
        (True, None),
        ("many", None),
        ("9" * 5000, None),
        (None, None),
    ],
)
def test_stated_number_is_read_or_not_guessed(value, number):
    assert whole_number(value) == number
    assert at_most(value) == ({"1,200": 1200, "1.200": 1200, "250.000": 250_000}.get(value) if number is None else None)


@pytest.mark.parametrize(
    ("total", "doubt"),
    [
        (2.0, ""),
        ("2.0", ""),
        (3.0, "2 of 3 items came"),
        ("1 200", "2 of 1,200 items came"),
        ("1,200", "can't be read: it may be 1,200 or not"),
        ("2.000", "can't be read: it may be 2,000 or not"),
    ],
)
def test_total_that_can_not_be_read_is_told_and_not_compared(total, doubt):
    doubts = read(source(page(0, 2, total=total)))[1].doubts
    assert doubt in "; ".join(doubts)
    assert bool(doubts) == bool(doubt)


def test_total_of_two_meanings_that_came_in_the_larger_is_no_reason_to_doubt():
    assert read(source(page(0, 1200, total="1,200")))[1].is_complete


def test_declared_total_that_can_not_be_read_is_an_error_with_the_value():
    with pytest.raises(ConfigurationError, match=r"'1,200' may mean 1200 or not"):
        read(source(page(0, 2, total="1,200"), paging=OffsetPaging(total_path="total")))


class Filtered:
    """A server that filters after paging: of each page those come that are seen, so that pages may be empty."""

    def __init__(self, seen: list[int], size: int = 2, of: int = 12, *, blind: bool = False) -> None:
        self.seen, self.size, self.of, self.blind, self.asked = set(seen), size, of, blind, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        asked = request.url.params
        start = int(asked.get("offset") or asked.get("cursor") or self.size * (int(asked.get("page", 1)) - 1))
        end = start + self.size
        found = [{"sku": str(number)} for number in range(start, min(end, self.of)) if number in self.seen]
        more = end < self.of or self.blind
        return httpx.Response(200, json={"items": found, "next": f"/items?cursor={end}" if more else None})

    def read(self, paging: Any) -> Any:
        fetch = RestSource(URL, items_path="items", paging=paging, transport=httpx.MockTransport(self), attempts=1)
        with_ids = [item["sku"] for page in fetch() for item in page]
        assert with_ids == list(dict.fromkeys(with_ids)) or isinstance(paging, OffsetPaging)
        return sorted({int(sku) for sku in with_ids}), read(fetch)[1]


@pytest.mark.parametrize("paging", [PageNumberPaging(), OffsetPaging(limit=2), NextUrlPaging("next")])
def test_empty_page_that_names_a_next_one_is_in_the_middle(paging):
    found, completeness = Filtered([0, 1, 8, 9]).read(paging)
    assert (found, completeness.is_complete) == ([0, 1, 8, 9], True)


def test_empty_pages_after_the_last_item_end_where_the_server_says_so():
    for paging in (PageNumberPaging(), OffsetPaging(limit=2), NextUrlPaging("next")):
        found, completeness = Filtered([0, 1]).read(paging)
        assert (found, completeness.is_complete) == ([0, 1], True)


@pytest.mark.parametrize("paging", [PageNumberPaging, OffsetPaging])
def test_server_that_names_a_next_page_at_each_is_asked_so_often_and_doubted(paging):
    server = Filtered([0, 1], blind=True)
    _, completeness = server.read(paging())
    assert "21 empty pages in a row" in completeness.doubts[0]
    assert "empty_page_ends=True" in completeness.doubts[0]
    assert server.asked < 60
    server = Filtered([0, 1], blind=True)
    assert server.read(paging(empty_page_ends=True))[1].is_complete
    assert server.asked == 4


def test_empty_pages_are_counted_only_where_nothing_else_says_the_end():
    replies = [
        page(0, 1, pages=40, next="?p"),
        *[page(0, 0, pages=40, next="?p")] * 38,
        page(1, 2, pages=40, next=None),
    ]
    count, completeness, _ = read(source(*replies, paging=PageNumberPaging(pages_path="pages")))
    assert (count, completeness.is_complete) == (2, True)


def test_offset_goes_on_after_an_empty_page_that_says_that_there_are_more():
    replies = [page(0, 3, more=True), page(0, 0, more=True), page(3, 5, more=False)]
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["offset"])
        return httpx.Response(200, json=replies[len(asked) - 1])

    paging = OffsetPaging(limit=500, more_path="more")
    fetch = RestSource(URL, items_path="items", paging=paging, transport=httpx.MockTransport(handle))
    assert (read(fetch)[0], asked) == (5, ["0", "3", "6"])


@pytest.mark.parametrize("total", [[10, 9, 10], [10, 8, 8]])
def test_total_that_changes_and_is_less_than_came_is_doubted(total):
    pages = [page(0, 4, total=total[0], n="?p=2"), page(4, 8, total=total[1], n="?p=3"), page(8, 10, total=total[2])]
    assert "changed" in "; ".join(read(source(*pages, paging=NextUrlPaging("n")))[1].doubts)
