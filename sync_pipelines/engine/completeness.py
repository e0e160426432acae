"""Whether a fetch has given all items: what its sources say of their ends, and what speaks against it.

A source says how it ended; nobody infers it from the fact that no more came. What a source says reaches the fetch it is
read for by itself, whatever the user's own function makes of the items on their way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sync_pipelines.engine.redaction import described

_MOST = 20
"""So many sentences of a kind are kept; a fetch may read thousands of sources."""
BY_CONTRACT = "fetch_external ended without an error"


@dataclass(frozen=True, slots=True)
class Completeness:
    """Says whether a fetch has given all items of the source, which all news of missing ones needs.

    Args:
        took_all: False if the run was limited to some items.
        ended_by: What stated the end: a sentence for each source that was read.
        doubts: Why there may be more items than came: a sentence each.
    """

    took_all: bool = True
    ended_by: tuple[str, ...] = (BY_CONTRACT,)
    doubts: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """True if all items were asked for, and nothing speaks against that they came."""
        return self.took_all and not self.doubts

    @property
    def why_not(self) -> str | None:
        """Returns why an item that did not come may be there; None if the fetch is complete."""
        if not self.took_all:
            return "the run was limited to some items (limit, only)"
        return f"the fetch may not be complete: {'; '.join(self.doubts)}" if self.doubts else None

    def to_manifest(self) -> dict[str, Any]:
        """Returns what a snapshot's manifest keeps of it."""
        said = {"ended_by": list(self.ended_by), "doubts": list(self.doubts)}
        return {"complete": self.is_complete, "took_all": self.took_all, **said}

    @staticmethod
    def from_manifest(manifest: Mapping[str, Any]) -> Completeness:
        """Reads it from a manifest; in older ones `complete` says only that the run was not limited."""
        took_all = bool(manifest.get("took_all", manifest["complete"]))
        return Completeness(
            took_all, tuple(manifest.get("ended_by", (BY_CONTRACT,))), tuple(manifest.get("doubts", ()))
        )


class SourceEnds:
    """Collects what sources say of their ends while one fetch is under way. Threads may speak at one time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[object, str] = {}
        self._said: dict[str, dict[str, None]] = {"ended_by": {}, "doubts": {}, "notes": {}}
        self._begun = 0
        self._is_counted = False
        self._confirmed: tuple[str, int] | None = None

    def begin(self, token: object, source: str, *, is_counted: bool) -> None:
        """Notes that a source is being read.

        Args:
            is_counted: True if the source may say how many items it gives.
        """
        with self._lock:
            self._under_way[token] = source
            self._begun += 1
            self._is_counted = is_counted and self._begun == 1

    def confirm(self, source: str, items: int) -> None:
        """Notes how many items a source gives by its own word."""
        with self._lock:
            self._confirmed = (source, items)

    @property
    def is_counted(self) -> bool:
        """Returns True while all items come from one source, which may say how many there are."""
        return self._is_counted

    def came(self, items: int, different: int) -> None:
        """Notes how many items came, and how many different ones: what comes twice does not fill up a total.

        Where the items are not just those that the source counts, such as parts of them, that says nothing.
        """
        if self._is_counted and self._confirmed is not None and self._confirmed[1] == items > different:
            why = f"the total is {items:,} and {different:,} different items came, {items - different:,} came again"
            self.say("doubts", [f"{self._confirmed[0]}: {why}: the list moved while it was read, or ids repeat"])

    def end(self, token: object) -> None:
        """Notes that it is read no more."""
        with self._lock:
            self._under_way.pop(token, None)

    def say(self, kind: str, sentences: Iterable[str]) -> None:
        """Keeps what was said, each sentence once."""
        with self._lock:
            said = self._said[kind]
            said.update(dict.fromkeys(each for each in sentences if each in said or len(said) < _MOST))

    @property
    def notes(self) -> list[str]:
        """Returns what a person should know of the ends."""
        return list(self._said["notes"])

    def completeness(self, *, took_all: bool) -> Completeness:
        """Returns what all of it means for the fetch, which is over."""
        if not took_all:
            return Completeness(took_all=False, ended_by=())  # it was left where the run had enough
        with self._lock:
            left = [_not_read(source) for source in self._under_way.values()]
            ended_by, doubts = tuple(self._said["ended_by"]), (*self._said["doubts"], *left)
        return Completeness(took_all, ended_by or (BY_CONTRACT,), tuple(dict.fromkeys(doubts))[:_MOST])


_heard_by: ContextVar[SourceEnds | None] = ContextVar("heard_by", default=None)
_under_way: set[SourceEnds] = set()


@contextmanager
def source_ends() -> Iterator[SourceEnds]:
    """Collects what is said of ends by sources that are read in the block, also in `async` code that it waits for."""
    ends = SourceEnds()
    token = _heard_by.set(ends)
    _under_way.add(ends)
    try:
        yield ends
    finally:
        _under_way.discard(ends)
        _heard_by.reset(token)


class Reading:
    """Is one reading of one source, from its begin to its end."""

    def __init__(self, source: str, *, is_counted: bool = False) -> None:
        self.source = source
        self.has_ended = False
        self._hearers = _hearers()
        for each in self._hearers:
            each.begin(self, source, is_counted=is_counted)

    def ended(self, by: str) -> None:
        """Says what stated the end: an answer, a file's end, a query's end."""
        self.has_ended = True
        self._say("ended_by", by)

    def doubt(self, why: str) -> None:
        """Says why there may be more items than came."""
        self._say("doubts", why)

    def confirmed(self, items: int) -> None:
        """Says that the source gives so many items, by its own word. If some come twice, others have not come."""
        for each in self._hearers:
            each.confirm(self.source, items)

    def note(self, text: str) -> None:
        """Says what a person should know, without consequences."""
        self._say("notes", text)

    def close(self) -> None:
        """Ends the reading."""
        for each in self._hearers:
            each.end(self)

    def _say(self, kind: str, text: str) -> None:
        for each in self._hearers:
            each.say(kind, [f"{self.source}: {text}"])


@contextmanager
def reading_source(source: str, *, is_counted: bool = False) -> Iterator[Reading]:
    """Tells the fetch that a source is read in the block, which must say `ended` at the end of the source.

    A source that is left before, or breaks off, leaves a doubt: whoever reads it may swallow the error.

    Args:
        source: What is read, as people call it.
        is_counted: True if it may say how many items it gives: `Reading.confirmed`.
    """
    said = Reading(source, is_counted=is_counted)
    try:
        yield said
    except GeneratorExit:
        if not said.has_ended:
            said.doubt("it was not read to its end")
        raise
    except BaseException as error:
        said.doubt(f"it broke off: {described(error)}")
        raise
    finally:
        said.close()


def tell_incomplete(why: str) -> None:
    """Says, in a `fetch_external` of yours, that it does not give all items this time, though it ends without an error.

    The run creates and updates as ever, deletes nothing, and takes no item for missing; its notes say why.

    Args:
        why: E.g. `"the export says partial: true"`.
    """
    for each in _hearers():
        each.say("doubts", [why])


def _hearers() -> list[SourceEnds]:
    """Returns the fetch that this code works for; in a thread that knows of none, all that are under way."""
    heard_by = _heard_by.get()
    return [heard_by] if heard_by is not None else list(_under_way)


def _not_read(source: str) -> str:
    return f"{source}: it was not read to its end"
