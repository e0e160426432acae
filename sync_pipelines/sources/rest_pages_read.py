"""`PagesRead`: follows the pages of one fetch, and says whether their end is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sync_pipelines.engine.completeness import Reading
from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources import rest_envelope
from sync_pipelines.sources.json_paths import MISSING, Path
from sync_pipelines.sources.pages import Page
from sync_pipelines.sources.rest_paging import Answer, End, Paging, place_of, traits_of

_MOST_EMPTY = 1_000
"""So many empty pages in a row are no pages any more."""
_MOST_BELIEVED = 20
"""So many empty pages in a row are asked for where nothing but a next page is named: many servers name one at each."""
_SHOWN_NAMES = 200


@dataclass(slots=True)
class _Total:
    """The number of all items, or pages, as the answers give it."""

    first: int
    last: int
    most: int
    has_changed: bool = False
    is_of_page: bool = True

    def note(self, number: int, *, is_of_page: bool) -> None:
        self.has_changed |= number != self.last
        self.last, self.most = number, max(self.most, number)
        self.is_of_page &= is_of_page


def _note(totals: dict[str, _Total], place: str, number: int, *, is_of_page: bool) -> None:
    totals.setdefault(place, _Total(number, number, number)).note(number, is_of_page=is_of_page)


class PagesRead:
    """Holds each page against those before it, and their end against what the answers announce.

    Args:
        total_path: Where the answers say how many items there are; None to look at what is usually called so, False
            for nowhere.
    """

    def __init__(
        self, max_pages: int, paging: Paging, items_path: Path, total_path: Path | Literal[False] | None
    ) -> None:
        self.pages = self.items = self._widest = self._full = 0
        self._loop = _LoopGuard(max_pages)
        self._kind, self._traits = type(paging).__name__, traits_of(paging)
        self._items_path = items_path
        self._declared = self._traits.total_path if total_path is None else total_path
        self._totals: dict[str, _Total] = {}
        self._unread_totals: dict[str, int] = {}
        self._least_totals: dict[str, int] = {}
        self._numbers_of_pages: dict[str, _Total] = {}
        self._doubts: dict[str, None] = {}
        self._before: Page = []
        self._answer: Answer | None = None
        self._empty = 0

    def expect(self, url: str, shown: str) -> None:
        """Raises `ConfigurationError` for a URL that came before, or one too many."""
        self._loop.check_url(url, shown)

    def add(self, answer: Answer, page: Page, unread_links: str) -> Answer:
        """Takes a page, and returns its answer with what the pages up to it say of its end.

        Raises:
            ConfigurationError: It has the very items of the one before it, or there is no number at `total_path`.
            RetryableError: It is one of too many empty pages.
        """
        self._loop.check_page(page, answer.shown_url)
        self.pages, self.items, self._answer = self.pages + 1, self.items + len(page), answer
        self._full = 1 if len(page) > self._widest else self._full + (len(page) == self._widest)
        self._widest = max(self._widest, len(page))
        self._empty = 0 if page else self._empty + 1
        if self._empty > _MOST_EMPTY:
            raise RetryableError(f"{answer.shown_url}: more than {_MOST_EMPTY} empty pages in a row; does it ever end?")
        found = rest_envelope.said_beside(answer, self._items_path)
        self._note_totals(answer, found)
        self._note_pages(answer, found)
        lacks = [*rest_envelope.why_partial(found), *rest_envelope.why_refused(found, answer)]
        self._doubt(*(f"page {self.pages:,}: {each}" for each in lacks))
        if unread_links:
            self._doubt(f"page {self.pages:,}: the header Link can't be read from {unread_links[:60]!r} on")
        if self._traits.may_shift and page and page[0] and page[0] in self._before:
            self._doubt(f"page {self.pages:,} begins with an item of the page before: the list moved while it was read")
        self._before = page or self._before
        return replace(answer, widest=self._widest, says_more=not page and self._says_more(answer, found))

    def _says_more(self, answer: Answer, found: Sequence[rest_envelope.Said]) -> bool:
        """Returns True if an empty page is to be taken for one in the middle."""
        traits = self._traits
        if traits.pages_path is not None or traits.more_path is not None or traits.empty_page_ends:
            return False
        is_said = any(rest_envelope.why_more(found)) or any(rest_envelope.next_pages(found, answer, anywhere=False))
        if is_said and self._empty > _MOST_BELIEVED:
            if not self._is_confirmed():
                self._doubt(
                    f"{self._empty:,} empty pages in a row, and each names a next one; if the first is the end, say "
                    f"{self._kind}(empty_page_ends=True)"
                )
            return False
        return is_said

    def _doubt(self, *doubts: str) -> None:
        self._doubts.update(dict.fromkeys(doubts))

    def _note_totals(self, answer: Answer, found: Sequence[rest_envelope.Said]) -> None:
        if self._declared is False:
            return
        here = rest_envelope.totals(found) if self._declared is None else self._declared_total(answer, self._declared)
        bounds = rest_envelope.least_totals(found)
        self._least_totals |= bounds
        if self._declared is None:
            self._unread_totals |= rest_envelope.unread_totals(found)
        for place, number in here.items():
            if number not in bounds.values():
                _note(self._totals, place, number, is_of_page=number == answer.count)

    def _declared_total(self, answer: Answer, path: Path) -> dict[str, int]:
        """Reads the declared total; servers that count at the first page only need not repeat it."""
        is_left_out = answer.look_up(path) is MISSING and (self.pages > 1 or not answer.count)
        return {} if is_left_out else {place_of(path): answer.find_number(path)}

    def _note_pages(self, answer: Answer, found: Sequence[rest_envelope.Said]) -> None:
        path = self._traits.pages_path
        if path is None:
            here = rest_envelope.numbers_of_pages(found)
        else:
            here = {} if answer.look_up(path) is MISSING else {place_of(path): answer.find_number(path)}
        for place, number in here.items():
            is_sure = path is not None or rest_envelope.is_surely_of_pages(place)
            # a server that takes page sizes may call the items of a page so
            _note(self._numbers_of_pages, place, number, is_of_page=not is_sure and number == answer.count)

    def end(self, end: End | None, reading: Reading) -> None:
        """Says what stated the end, what speaks against it, and what a person should know.

        Raises:
            RetryableError: The pages end with an empty one before the declared total.
        """
        stated_by = end.stated_by if end is not None else "its paging says so"
        for place, total in self._totals.items():
            self._compare(place, total, end)
        for place, said in self._numbers_of_pages.items():
            self._compare_pages(place, said)
        for place, least in self._least_totals.items():
            if self.items <= least:
                self._doubt(f"{self.items:,} items came of at least {least:,}, by the total {place}")
        for place, largest in self._unread_totals.items():
            if self.items < largest:
                self._doubt(
                    f"the total {place} can't be read: it may be {largest:,} or not, and {self.items:,} items came; "
                    "say where the number of all items is, or total_path=False"
                )
        if self._answer is not None:
            self._look_at_last(self._answer, end, reading)
        self._look_at_size(reading)
        for doubt in self._doubts:
            reading.doubt(doubt)
        if self.pages > 1 and self._is_confirmed():
            reading.confirmed(self.items)
        reading.ended(f"{self.items:,} items in {_counted(self.pages)}; {stated_by}")

    def _compare_pages(self, place: str, number: _Total) -> None:
        is_declared = self._traits.pages_path is not None
        if number.has_changed and (is_declared or rest_envelope.is_surely_of_pages(place)):
            self._doubt(f"the number of pages changed from {number.first:,} to {number.last:,} while they were read")
        if self.pages < number.last and (is_declared or not (number.is_of_page or number.has_changed)):
            self._doubt(f"{self.pages:,} of {number.last:,} pages came, by what stands {place}")

    def _compare(self, place: str, total: _Total, end: End | None) -> None:
        is_declared = self._declared is not None
        came = f"{self.items:,} of {total.last:,} items"
        if is_declared and end is not None and end.came_empty and self.items < total.last:
            raise RetryableError(f"the pages end after {came} ({place}): {end.stated_by}")
        if not is_declared and (total.most < self.items or (total.is_of_page and self.pages > 1)):
            return  # then it is the number of something else, such as the items in a page
        if total.has_changed:
            self._doubt(f"the total {place} changed from {total.first:,} to {total.last:,} while the pages were read")
        if total.last != self.items:
            self._doubt(f"{came} came, by the total {place}")

    def _look_at_last(self, answer: Answer, end: End | None, reading: Reading) -> None:
        found = rest_envelope.said_beside(answer, self._items_path)
        self._doubt(*(f"the last page says that more follow: {each}" for each in rest_envelope.why_more(found)))
        missing = end.missing if end is not None else ""
        if not missing and not self._traits.is_single and not answer.count:
            return  # many servers name a next page at each, and an empty one is the end
        is_alone = self.pages == 1 and bool(missing)
        named = list(rest_envelope.next_pages(found, answer, anywhere=is_alone))
        if is_alone and not self._is_confirmed():
            reading.note(f"1 page; nothing {missing}; the answer has: {names_in(answer)}")
        if is_alone and isinstance(answer.body, list) and missing.startswith("at "):
            named.append("the answer is a list, which has no such place")
        self._doubt(*(f"it ended after {_counted(self.pages)}, but {each}; check paging=..." for each in named))

    def _look_at_size(self, reading: Reading) -> None:
        """Notes pages that are all cut to one size: if the server counts by the size asked for, it leaves items out."""
        size = self._traits.size
        if size is not None and self._full > 1 and 0 < self._widest < size and not self._is_confirmed():
            reading.note(
                f"pages have {self._widest:,} items at most, of {size:,} asked for; say size={self._widest}, or else a "
                "server that begins each page by the size asked for would leave some out"
            )

    def _is_confirmed(self) -> bool:
        """True if the answer announces just as many items as came."""
        return any(each.last == self.items for each in self._totals.values())


def names_in(answer: Answer) -> str:
    """Returns what an answer has at its top, for messages."""
    names = ", ".join(answer.body) if isinstance(answer.body, dict) else f"a {type(answer.body).__name__}"
    return names[:_SHOWN_NAMES]


def _counted(pages: int) -> str:
    return "1 page" if pages == 1 else f"{pages:,} pages"


class _LoopGuard:
    """Notices pages that go in a circle, however long, in constant memory.

    It compares each URL with the last one, and with a single earlier one, which it replaces after 1, 2, 4, 8... pages:
    once those are more than the pages of the circle, the circle comes back to it.

    Source:
        R. P. Brent, "An improved Monte Carlo factorization algorithm", BIT 20 (1980), section 2.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._pages = 0
        self._remembered: str | None = None
        self._remember_at = 1
        self._last: str | None = None
        self._page: Page = []

    def check_url(self, url: str, shown: str) -> None:
        """Raises `ConfigurationError` for a URL that came before, or one too many."""
        if url in {self._remembered, self._last}:
            raise ConfigurationError(
                f"the pages go in a circle: after {self._pages} pages {shown} comes again; check paging=..."
            )
        if self._pages >= self._max_pages:
            raise ConfigurationError(f"{shown} would be page {self._pages + 1}, more than max_pages; does it ever end?")
        self._pages += 1
        self._last = url
        if self._pages >= self._remember_at:
            self._remembered, self._remember_at = url, self._remember_at * 2

    def check_page(self, page: Page, shown: str) -> None:
        """Raises `ConfigurationError` for a page with the very items of the one before it."""
        if page and page == self._page:
            raise ConfigurationError(
                f"{shown} gives the same items as the page before it: the server does not heed the parameters of "
                "paging=..., or repeats its last page; check their names, or say where the answer marks the end"
            )
        self._page = page
