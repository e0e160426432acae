"""`PagesRead`: follows the pages of one fetch, and says whether their end is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sync_pipelines.engine.completeness import Reading
from sync_pipelines.errors import ConfigurationError, RetryableError
from sync_pipelines.sources import rest_envelope
from sync_pipelines.sources.json_paths import MISSING, Path
from sync_pipelines.sources.pages import Page
from sync_pipelines.sources.rest_paging import Answer, End, NoPaging, OffsetPaging, PageNumberPaging, Paging, place_of

_MOST_EMPTY = 100
"""So many empty pages in a row are no pages any more."""
_SHOWN_NAMES = 200


@dataclass(slots=True)
class _Total:
    """The number of all items, or pages, as the answers give it."""

    first: int
    last: int
    is_of_page: bool = True

    @property
    def has_changed(self) -> bool:
        return self.first != self.last


class PagesRead:
    """Holds each page against those before it, and their end against what the answers announce.

    Args:
        total_path: Where the answers say how many items there are; None to look at what is usually called so, False
            for nowhere.
    """

    def __init__(
        self, max_pages: int, paging: Paging, items_path: Path, total_path: Path | Literal[False] | None
    ) -> None:
        self.pages = self.items = 0
        self._loop = _LoopGuard(max_pages)
        self._paging = paging
        self._may_shift = isinstance(paging, PageNumberPaging | OffsetPaging)
        self._items_path = items_path
        self._declared = getattr(paging, "total_path", None) if total_path is None else total_path
        self._totals: dict[str, _Total] = {}
        self._numbers_of_pages: list[int] = []
        self._pages_said: dict[str, _Total] = {}
        self._doubts: dict[str, None] = {}
        self._before: Page = []
        self._answer: Answer | None = None
        self._empty = 0

    def expect(self, url: str, shown: str) -> None:
        """Raises `ConfigurationError` for a URL that came before, or one too many."""
        self._loop.check_url(url, shown)

    def add(self, answer: Answer, page: Page, unread_links: str) -> None:
        """Takes a page.

        Raises:
            ConfigurationError: It has the very items of the one before it, or there is no number at `total_path`.
            RetryableError: It is one of too many empty pages.
        """
        self._loop.check_page(page, answer.shown_url)
        self.pages, self.items, self._answer = self.pages + 1, self.items + len(page), answer
        self._empty = 0 if page else self._empty + 1
        if self._empty > _MOST_EMPTY:
            raise RetryableError(f"{answer.shown_url}: more than {_MOST_EMPTY} empty pages in a row; does it ever end?")
        found = rest_envelope.said_beside(answer, self._items_path)
        self._note_totals(answer, found)
        self._note_pages(answer, found)
        self._doubt(*(f"page {self.pages:,}: {each}" for each in rest_envelope.why_partial(found)))
        if unread_links:
            self._doubt(f"page {self.pages:,}: the header Link can't be read from {unread_links[:60]!r} on")
        if self._may_shift and page and page[0] and page[0] in self._before:
            self._doubt(f"page {self.pages:,} begins with an item of the page before: the list moved while it was read")
        self._before = page or self._before

    def _doubt(self, *doubts: str) -> None:
        self._doubts.update(dict.fromkeys(doubts))

    def _note_totals(self, answer: Answer, found: Sequence[rest_envelope.Said]) -> None:
        if self._declared is False:
            return
        here = rest_envelope.totals(found) if self._declared is None else self._declared_total(answer, self._declared)
        for place, number in here.items():
            total = self._totals.setdefault(place, _Total(number, number))
            total.last = number
            total.is_of_page &= number == answer.count

    def _declared_total(self, answer: Answer, path: Path) -> dict[str, int]:
        """Reads the declared total; servers that count at the first page only need not repeat it."""
        is_left_out = answer.look_up(path) is MISSING and (self.pages > 1 or not answer.count)
        return {} if is_left_out else {place_of(path): answer.find_number(path)}

    def _note_pages(self, answer: Answer, found: Sequence[rest_envelope.Said]) -> None:
        path = getattr(self._paging, "pages_path", None)
        if path is None:
            for place, number in rest_envelope.numbers_of_pages(found).items():
                said = self._pages_said.setdefault(place, _Total(number, number))
                said.last = number
                said.is_of_page &= number == answer.count and not rest_envelope.is_surely_of_pages(place)
        elif answer.look_up(path) is not MISSING:
            self._numbers_of_pages.append(answer.find_number(path))

    def end(self, end: End | None, reading: Reading) -> None:
        """Says what stated the end, what speaks against it, and what a person should know.

        Raises:
            RetryableError: The pages end with an empty one before the declared total.
        """
        stated_by = end.stated_by if end is not None else "its paging says so"
        for place, total in self._totals.items():
            self._compare(place, total, end)
        if len(set(self._numbers_of_pages)) > 1:
            first, last = self._numbers_of_pages[0], self._numbers_of_pages[-1]
            self._doubt(f"the number of pages changed from {first:,} to {last:,} while they were read")
        if self._numbers_of_pages and self.pages < self._numbers_of_pages[-1]:
            self._doubt(f"{self.pages:,} of {self._numbers_of_pages[-1]:,} pages came ({self._pages_place()})")
        for place, said in self._pages_said.items():
            # a server that takes page sizes may call the items of a page so
            if not said.is_of_page and not said.has_changed and self.pages < said.last:
                self._doubt(f"{self.pages:,} of {said.last:,} pages came, by what stands {place}")
        if self._answer is not None:
            self._look_at_last(self._answer, end, reading)
        for doubt in self._doubts:
            reading.doubt(doubt)
        reading.ended(f"{self.items:,} items in {_counted(self.pages)}; {stated_by}")

    def _compare(self, place: str, total: _Total, end: End | None) -> None:
        is_declared = self._declared is not None
        came = f"{self.items:,} of {total.last:,} items"
        if is_declared and end is not None and end.came_empty and self.items < total.last:
            raise RetryableError(f"the pages end after {came} ({place}): {end.stated_by}")
        if not is_declared and (total.last < self.items or (total.is_of_page and self.pages > 1)):
            return  # then it is the number of something else, such as the items in a page
        if total.has_changed:
            self._doubt(f"the total {place} changed from {total.first:,} to {total.last:,} while the pages were read")
        if total.last != self.items:
            self._doubt(f"{came} came, by the total {place}")

    def _look_at_last(self, answer: Answer, end: End | None, reading: Reading) -> None:
        found = rest_envelope.said_beside(answer, self._items_path)
        self._doubt(*(f"the last page says that more follow: {each}" for each in rest_envelope.why_more(found)))
        missing = end.missing if end is not None else ""
        if not missing and not isinstance(self._paging, NoPaging) and not answer.count:
            return  # many servers name a next page at each, and an empty one is the end
        is_alone = self.pages == 1 and bool(missing)
        named = list(rest_envelope.next_pages(found, answer, anywhere=is_alone))
        if is_alone and not self._is_confirmed():
            reading.note(f"1 page; nothing {missing}; the answer has: {names_in(answer)}")
        if is_alone and isinstance(answer.body, list) and missing.startswith("at "):
            named.append("the answer is a list, which has no such place")
        self._doubt(*(f"it ended after {_counted(self.pages)}, but {each}; check paging=..." for each in named))

    def _pages_place(self) -> str:
        return place_of(getattr(self._paging, "pages_path", ""))

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
