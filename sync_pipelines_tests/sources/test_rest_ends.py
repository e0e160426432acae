"""The end of pages: what states it, what speaks against it, and what a person is told, for every kind of paging."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from sync_pipelines.engine.completeness import Completeness, source_ends
from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources.json_paths import AnswerHeader
from sync_pipelines.sources.rest import RestSource
from sync_pipelines.sources.rest_paging import (
    CursorPaging,
    LinkHeaderPaging,
    NextUrlPaging,
    OffsetPaging,
    PageNumberPaging,
)

URL = "http://api.test/items"
Reply = tuple[int, Any, Mapping[str, str]]


def items(first: int, last: int) -> list[dict[str, str]]:
    return [{"sku": str(number)} for number in range(first, last)]


def source(*replies: Any, items_path: str | None = "items", **options: Any) -> RestSource:
    """A source that gets these answers, the last one for ever: bodies, or bodies with headers or a status."""
    left = list(replies)

    def handle(_: httpx.Request) -> httpx.Response:
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, int):
            return httpx.Response(reply, json={"detail": "Invalid page."})
        body, headers = reply if isinstance(reply, tuple) else (reply, {})
        return httpx.Response(200, json=body, headers=headers)

    return RestSource(URL, items_path=items_path, transport=httpx.MockTransport(handle), attempts=1, **options)


def read(fetch: Callable[[], Any]) -> tuple[int, Completeness, list[str]]:
    """How many items came, how complete that is, and the notes."""
    with source_ends() as ends:
        count = sum(len(page) for page in fetch())
    return count, ends.completeness(took_all=True), ends.notes


def page(first: int, last: int, /, **beside: Any) -> dict[str, Any]:
    return {"items": items(first, last), **beside}


@pytest.mark.parametrize(
    ("replies", "paging", "said"),
    [
        ([page(0, 2, n="?p=2"), page(2, 3, n=None)], NextUrlPaging("n"), "3 items in 2 pages; 'n' is null"),
        ([page(0, 2, n="?p=2"), page(2, 3, n="")], NextUrlPaging("n"), "'n' is empty"),
        ([page(0, 2, n="?p=2"), page(2, 3, n=False)], NextUrlPaging("n"), "'n' is false"),
        ([page(0, 2, n="?p=2"), page(2, 3)], NextUrlPaging("n"), "the last page has nothing at 'n'"),
        ([page(0, 2, n=None)], NextUrlPaging("n"), "2 items in 1 page; 'n' is null"),
        ([page(0, 2, n=0), page(2, 3, n=None)], CursorPaging("n"), "'n' is null"),
        ([page(0, 2, n="c", m=True), page(2, 3, n="d", m=False)], CursorPaging("n", more_path="m"), "'m' is false"),
        ([page(0, 2, pages=2), page(2, 3, pages=2)], PageNumberPaging(pages_path="pages"), "2 pages at 'pages'"),
        ([page(0, 2, m=True), page(2, 3, m=False)], PageNumberPaging(more_path="m"), "'m' is false"),
        ([page(0, 2), page(2, 3), page(0, 0)], PageNumberPaging(size=2), "3 items in 3 pages; page 3 is empty"),
        ([page(0, 2), page(2, 3), 404], PageNumberPaging(end_status=404), "page 3 is answered with 404"),
        ([page(0, 2), page(2, 3), 416], OffsetPaging(end_status=(400, 416)), "page 3 is answered with 416"),
        ([page(0, 2, t=3), page(2, 3, t=3)], OffsetPaging(total_path="t"), "3 items at 't'"),
        ([page(0, 2, t="3"), page(2, 3, t="3")], OffsetPaging(total_path="t"), "3 items at 't'"),
        ([page(0, 2), page(0, 0)], OffsetPaging(limit=2), "the page at offset 2 is empty"),
        (
            [(page(0, 2), {"Link": '<?p=2>; title="a;b"; rel=next'}), (page(2, 3), {"Link": "<?p=1>; rel=prev"})],
            LinkHeaderPaging(),
            "the header Link names no next page",
        ),
        ([(page(0, 2), {"X-C": "c"}), page(2, 3)], CursorPaging(AnswerHeader("x-c")), "nothing in the header x-c"),
    ],
)
def test_end_that_the_answer_states_is_complete(replies, paging, said):
    count, completeness, notes = read(source(*replies, paging=paging))
    assert f"{count} items in " in completeness.ended_by[0]
    assert said in completeness.ended_by[0]
    assert completeness.is_complete
    assert notes == []


def test_odata_gives_all_its_pages():
    pages = [
        {"@odata.context": "x", "value": items(0, 2), "@odata.nextLink": f"{URL}?$skiptoken=2"},
        {"@odata.context": "x", "value": items(2, 4), "@odata.nextLink": f"{URL}?$skiptoken=4"},
        {"@odata.context": "x", "value": items(4, 6)},
    ]
    count, completeness, notes = read(source(*pages, items_path="value", paging=NextUrlPaging("@odata.nextLink")))
    assert (count, completeness.is_complete, notes) == (6, True, [])


def test_path_that_finds_nothing_on_the_first_page_is_told():
    one = {"@odata.context": "x", "value": items(0, 2)}
    _, completeness, notes = read(source(one, items_path="value", paging=NextUrlPaging("@odata.nextLink")))
    assert notes == [f"{URL}: 1 page; nothing at '@odata.nextLink'; the answer has: @odata.context, value"]
    assert completeness.is_complete
    _, completeness, notes = read(source(items(0, 2), items_path=None, paging=LinkHeaderPaging()))
    assert notes == [f"{URL}: 1 page; nothing in the header Link; the answer has: a list"]
    assert completeness.is_complete


def test_one_page_that_has_as_many_items_as_it_announces_needs_no_note():
    _, completeness, notes = read(source(page(0, 2, count=2), paging=NextUrlPaging("n")))
    assert (notes, completeness.is_complete) == ([], True)


@pytest.mark.parametrize(
    ("reply", "paging", "at"),
    [
        (page(0, 2, **{"@odata.nextLink": "?p=2"}), NextUrlPaging("@odata.nextlink"), "'@odata.nextLink'"),
        (page(0, 2, links={"next": "?p=2"}), NextUrlPaging("links.nxt"), "'links.next'"),
        (page(0, 2, _links={"next": {"href": "?p=2"}}), NextUrlPaging("next"), "'_links.next'"),
        (page(0, 2, meta={"next_cursor": "c"}), CursorPaging("next_cursor"), "'meta.next_cursor'"),
        (
            page(0, 2, navigation={"x": {"nextToken": "c"}}),
            CursorPaging("next"),
            "navigation.x.nextToken",
        ),
        (page(0, 2, weiter=f"{URL}?seite=2"), NextUrlPaging("next"), "'weiter'"),
        (page(0, 2, paging={"next": {"after": "9"}}), None, "'paging.next'"),
        ((page(0, 2), {"Link": "<?p=2>; rel=next"}), None, "the header Link"),
        ((page(0, 2), {"Link": "<?p=2>; rel=next"}), NextUrlPaging("next"), "the header Link"),
        ((page(0, 2), {"X-Next-Page": "2"}), LinkHeaderPaging(), "in the header x-next-page"),
    ],
)
def test_next_page_that_nobody_asked_for_is_doubted(reply, paging, at):
    options = {} if paging is None else {"paging": paging}
    count, completeness, _ = read(source(reply, **options))
    assert count == 2
    assert not completeness.is_complete
    assert at in completeness.doubts[0]


def test_names_of_earlier_pages_are_no_next_page():
    links = {"self": f"{URL}?page=1", "first": f"{URL}?page=1", "last": f"{URL}?page=0", "next": None}
    _, completeness, notes = read(source(page(0, 2, links=links, elsewhere="http://other.test/?p=2")))
    assert (completeness.is_complete, notes) == (True, [])
    _, completeness, _ = read(source(page(0, 2, links=links), paging=CursorPaging("cursor")))
    assert completeness.is_complete


def test_path_into_an_answer_that_is_a_list_is_doubted():
    _, completeness, _ = read(source(items(0, 2), items_path=None, paging=CursorPaging("next")))
    assert "the answer is a list" in completeness.doubts[0]


def totals(*pages: tuple[int, int, Any], place: str = "total") -> list[Any]:
    return [page(first, last, **{place: total}) for first, last, total in pages]


def test_empty_page_before_the_declared_total_is_an_error():
    replies = totals((0, 4, 10), (4, 8, 10), (8, 8, 10))
    for fetch in (
        source(*replies, paging=OffsetPaging(total_path="total")),
        source(*replies, paging=PageNumberPaging(), total_path="total"),
        source(*totals((0, 4, 10), (4, 8, 10)), 404, paging=PageNumberPaging(end_status=404), total_path="total"),
    ):
        with pytest.raises(RetryableError, match="8 of 10 items"):
            read(fetch)


@pytest.mark.parametrize(
    ("replies", "options", "said"),
    [
        (totals((0, 4, 10), (4, 8, 10), (8, 8, 10)), {"paging": OffsetPaging()}, "8 of 10 items came"),
        (totals((0, 4, 10), (4, 8, 9), (8, 9, 9)), {"paging": OffsetPaging(total_path="total")}, "from 10 to 9"),
        (totals((0, 4, 8), (4, 9, 8)), {"paging": OffsetPaging(total_path="total")}, "9 of 8 items came"),
        ([page(0, 95, total=100, n=None)], {"paging": NextUrlPaging("n"), "total_path": "total"}, "95 of 100 items"),
        ([page(0, 95, count=100, n=None)], {"paging": NextUrlPaging("n")}, "95 of 100 items came"),
        ([page(0, 2, meta={"pagination": {"totalElements": 7}})], {}, "2 of 7 items came"),
        ([(page(0, 2), {"X-Total-Count": "7"})], {}, "2 of 7 items came, by the total in the header x-total-count"),
        ([(page(0, 2), {"X-N": "7"})], {"total_path": AnswerHeader("X-N")}, "2 of 7 items came"),
        ([page(0, 2, **{"@odata.count": 7})], {}, "2 of 7 items came"),
        (
            [page(0, 2, p=2), page(2, 4, p=3), page(4, 6, p=3)],
            {"paging": PageNumberPaging(pages_path="p")},
            "from 2 to 3",
        ),
    ],
)
def test_total_that_does_not_agree_is_doubted_with_figures(replies, options, said):
    _, completeness, _ = read(source(*replies, **options))
    assert said in "; ".join(completeness.doubts)
    assert not completeness.is_complete


@pytest.mark.parametrize(
    "replies",
    [
        [page(0, 3, count=3, n="?p=2"), page(3, 5, count=2, n=None)],  # items in the page
        [page(0, 3, total=2, n="?p=2"), page(3, 5, total=2, n=None)],  # pages
        [page(0, 3, order={"total": 99}, n="?p=2"), page(3, 5, n=None)],  # money
        [page(0, 3, total="many", n="?p=2"), page(3, 5, total=None, n=None)],
    ],
)
def test_number_of_something_else_is_no_total(replies):
    assert read(source(*replies, paging=NextUrlPaging("n")))[1].is_complete


def test_total_may_be_said_to_be_none():
    assert read(source(page(0, 2, total=99), total_path=False))[1].is_complete


def test_total_that_is_counted_at_the_first_page_only_is_compared():
    replies = [page(0, 2, total=5, n="?p=2"), page(2, 4, n=None)]
    _, completeness, _ = read(source(*replies, paging=NextUrlPaging("n"), total_path="total"))
    assert "4 of 5 items came" in completeness.doubts[0]
    with pytest.raises(ConfigurationError, match="nothing at 'sum' instead of a whole number"):
        read(source(*replies, paging=NextUrlPaging("n"), total_path="sum"))


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"has_more": True}, "true at 'has_more'"),
        ({"pageInfo": {"hasNextPage": True}}, "true at 'pageInfo.hasNextPage'"),
        ({"last": False}, "false at 'last'"),
        ({"done": False}, "false at 'done'"),
        ({"incomplete_results": True}, "true at 'incomplete_results'"),
        ({"timed_out": True}, "true at 'timed_out'"),
        ({"errors": [{"message": "no stock"}]}, "a list at 'errors'"),
    ],
)
def test_answer_that_says_that_there_are_more_is_believed_more_than_its_end(beside, said):
    _, completeness, _ = read(source(page(0, 2, n=None, **beside), paging=NextUrlPaging("n")))
    assert said in completeness.doubts[0]


def test_answer_that_says_that_there_are_no_more_is_complete():
    beside = {"has_more": False, "last": True, "errors": [], "incomplete_results": False, "next": None}
    assert read(source(page(0, 2, **beside)))[1].is_complete


def test_more_pages_without_a_cursor_to_them_are_an_error():
    with pytest.raises(RetryableError, match=r"more.*but has no cursor"):
        read(source(page(0, 2, more=True), paging=CursorPaging("c", more_path="more")))
    with pytest.raises(RetryableError, match=r"more.*but has no items"):
        read(source(page(0, 0, more=True), paging=OffsetPaging(more_path="more")))


def test_empty_pages_without_an_end_are_an_error():
    with pytest.raises(RetryableError, match="empty pages in a row"):
        read(source(page(0, 0, more=True), paging=PageNumberPaging(more_path="more")))


def test_empty_page_in_the_middle_is_not_the_end():
    replies = [page(0, 2, more=True), page(0, 0, more=True), page(2, 3, more=False)]
    assert read(source(*replies, paging=PageNumberPaging(more_path="more")))[0] == 3


def test_short_page_is_not_the_end_where_the_server_caps_pages():
    replies = [page(0, 3), page(3, 6), page(6, 7), page(0, 0)]
    for paging in (PageNumberPaging(size=100), OffsetPaging(limit=100)):
        count, completeness, _ = read(source(*replies, paging=paging))
        assert (count, completeness.is_complete) == (7, True)


def test_pages_that_are_cut_to_a_size_are_told_where_pages_are_numbered():
    cut = [page(0, 3), page(3, 6), page(6, 7), page(0, 0)]
    notes = read(source(*cut, paging=PageNumberPaging(size=100)))[2]
    assert [note.partition(";")[0] for note in notes] == [f"{URL}: pages have 3 items at most, of 100 asked for"]
    for replies, paging in (
        (cut, OffsetPaging(limit=100)),
        (cut, PageNumberPaging(size=3)),
        (cut, PageNumberPaging()),
        ([page(0, 3), page(3, 5), page(5, 6), page(0, 0)], PageNumberPaging(size=100)),
        ([{**each, "total": 7} for each in cut], PageNumberPaging(size=100)),
    ):
        assert read(source(*replies, paging=paging))[2] == []


def test_list_that_moves_while_it_is_read_is_doubted():
    _, completeness, _ = read(source(page(0, 3), page(2, 5), page(0, 0), paging=PageNumberPaging()))
    assert "page 2 begins with an item of the page before" in completeness.doubts[0]
    inclusive = [page(0, 3, n="c"), page(2, 5, n=None)]  # a cursor that includes the item it names
    assert read(source(*inclusive, paging=CursorPaging("n")))[1].is_complete


@pytest.mark.parametrize(
    ("paging", "following"), [(CursorPaging("n"), "c"), (NextUrlPaging("n"), "?p=2"), (NextUrlPaging("n"), URL)]
)
def test_cursor_or_url_that_repeats_is_an_error(paging, following):
    with pytest.raises(ConfigurationError, match="in a circle"):
        read(source(*(page(number, number + 1, n=following) for number in range(9)), paging=paging))


def test_link_header_that_can_not_be_read_is_doubted():
    _, completeness, _ = read(source((page(0, 2), {"Link": "/items?p=2; rel=next"}), paging=LinkHeaderPaging()))
    assert "the header Link can't be read" in completeness.doubts[0]


@pytest.mark.parametrize("status", [400, 404, 410, 416, 422])
def test_page_past_the_end_is_an_error_that_names_the_option(status):
    with pytest.raises(ConfigurationError, match=rf"after 3 items in 2 pages.*PageNumberPaging\(end_status={status}\)"):
        read(source(page(0, 2), page(2, 3), status, paging=PageNumberPaging()))


def test_first_page_is_never_past_the_end():
    with pytest.raises(ConfigurationError, match="refuses: 404"):
        read(source(404, paging=PageNumberPaging(end_status=404)))


@pytest.mark.parametrize("status", [200, 401, 403, 429, 500, "404", True])
def test_status_that_means_something_else_is_refused_as_an_end(status):
    for paging in (PageNumberPaging, OffsetPaging):
        with pytest.raises(ConfigurationError, match="end_status"):
            paging(end_status=status)


def test_empty_answer_past_the_end_can_be_the_end():
    left = [httpx.Response(200, json=items(0, 2)), httpx.Response(204)]
    transport = httpx.MockTransport(lambda _: left.pop(0))
    fetch = RestSource(URL, paging=PageNumberPaging(end_status=204), transport=transport)
    assert read(fetch)[0] == 2


def test_source_that_is_left_or_breaks_off_is_doubted_though_its_error_is_swallowed():
    def left() -> Any:
        yield next(source(page(0, 2, n="?p=2"), paging=NextUrlPaging("n"))())

    def broken() -> Any:
        try:
            yield from source(page(0, 2, n="?p=2"), 503, paging=NextUrlPaging("n"))()
        except RetryableError:
            return

    assert read(left)[1].doubts == (f"{URL}: it was not read to its end",)
    assert "it broke off: RetryableError" in read(broken)[1].doubts[0]


def test_paging_of_ones_own_that_only_says_none_goes_on_working():
    class Twice:
        def first(self, url: httpx.URL) -> httpx.URL:
            return url.copy_set_param("p", 1)

        def next(self, url: httpx.URL, _answer: Any) -> httpx.URL | None:
            return url.copy_set_param("p", 2) if url.params["p"] == "1" else None

    count, completeness, _ = read(source(page(0, 2), page(2, 4), paging=Twice()))
    assert (count, completeness.is_complete) == (4, True)


def test_no_secret_of_a_link_is_in_a_note():
    header = {"Link": "<?p=1>; rel=prev, /items?api_key=hunter22; rel=next"}
    _, completeness, _ = read(source((page(0, 2), header), paging=LinkHeaderPaging()))
    assert "hunter22" not in str(completeness)


@pytest.mark.parametrize(
    ("replies", "options", "said"),
    [
        ([page(0, 2, pages=3), 404], {"paging": PageNumberPaging(pages_path="pages", end_status=404)}, "1 of 3 pages"),
        ([page(0, 2, total_pages=2)], {}, "1 of 2 pages came, by what stands at 'total_pages'"),
        ([page(0, 2, meta={"pagination": {"pageCount": 3}})], {}, "1 of 3 pages came"),
        ([(page(0, 2), {"Content-Range": "items 0-1/100"})], {}, "2 of 100 items came"),
        ([page(0, 2, info={"more_records": True})], {}, "there is true at 'info.more_records'"),
        ([page(0, 2, hasMore=1)], {}, "at 'hasMore'"),
        (
            [page(0, 2, next=None, links={"next": "/items?page=2"})],
            {"paging": NextUrlPaging("next")},
            "it ended after 1 page, but there is a value at 'links.next'",
        ),
    ],
)
def test_what_is_announced_in_other_words_and_does_not_come_is_doubted(replies, options, said):
    _, completeness, _ = read(source(*replies, **options))
    assert any(said in doubt for doubt in completeness.doubts), completeness.doubts


@pytest.mark.parametrize("beside", [{"pageCount": 2}, {"total_pages": 1}, {"pages": 1}, {"hasMore": 0}])
def test_one_page_that_was_announced_is_complete(beside):
    assert read(source(page(0, 2, **beside)))[1].doubts == ()
