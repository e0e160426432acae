"""Of several deliveries for one item: which one counts, and when the source has to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.database.inbox import Delivery
from sync_pipelines.engine.changes import ChangeEvent, Delete, Refetch, Upsert
from sync_pipelines.engine.versions import Version
from sync_pipelines.runner.changes.coalesce import Incoming, coalesce

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
Told = tuple[str, int | None, int]
"""What a delivery says: `upsert`, `delete`, `versioned` (a delete with its version) or `refetch`; version; content."""


def incoming(said: Sequence[Told]) -> list[Incoming]:
    """One delivery a second from noon, all for the item `7`, which the source calls `007`."""
    changes: dict[str, Any] = {"delete": Delete("007"), "versioned": Delete("007"), "refetch": Refetch("007")}
    found = []
    for place, (kind, version, content) in enumerate(said):
        delivery = Delivery(place + 1, None, NOON + timedelta(seconds=place), kind, "007")
        change: ChangeEvent = changes.get(kind, Upsert({"sku": "007", "stock": content}))
        known = Version.of(version) if kind in {"upsert", "versioned"} and version is not None else None
        found.append(Incoming(place, delivery, change, "7", known))
    return found


def one_by_one(said: Sequence[Told]) -> int | None:
    """The content that is there in the end if each is applied as it comes, None for gone."""
    content: int | None = None
    newest: int | None = None
    for kind, version, told in said:
        if kind == "delete":
            content = None
        elif version is None or newest is None or version >= newest:
            content, newest = told if kind == "upsert" else None, version
    return content


def content_of(change: ChangeEvent) -> int | None:
    return change.item["stock"] if isinstance(change, Upsert) else None


UNVERSIONED = st.lists(st.tuples(st.sampled_from(["upsert", "delete"]), st.none(), st.integers(0, 2)), min_size=1)
VERSIONED = st.lists(
    st.tuples(st.sampled_from(["upsert", "upsert", "delete", "versioned"]), st.integers(0, 4), st.integers(0, 2)),
    min_size=1,
)
ANY = st.lists(
    st.tuples(st.sampled_from(["upsert", "delete", "versioned", "refetch"]), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
)


@given(st.one_of(UNVERSIONED, VERSIONED))
def test_without_a_source_to_ask_it_is_what_applying_one_by_one_gives(said: list[Told]) -> None:
    coalesced = coalesce(incoming(said), can_ask=False, unsure_until=None)
    assert content_of(coalesced.event) == one_by_one(said)


@given(ANY, st.booleans(), st.none() | st.integers(-1, 8))
def test_every_delivery_is_kept_or_superseded_and_keeps_its_place(
    said: list[Told],
    can_refetch: bool,  # noqa: FBT001 - drawn
    unsure_s: int | None,
) -> None:
    group = incoming(said)
    until = None if unsure_s is None else NOON + timedelta(seconds=unsure_s)
    coalesced = coalesce(group, can_ask=can_refetch, unsure_until=until)
    places = [coalesced.kept.position, *(each.position for each in coalesced.superseded)]
    assert sorted(places) == list(range(len(group)))
    assert coalesced.kept in group


@given(ANY, st.none() | st.integers(-1, 8))
def test_with_a_source_to_ask_nothing_doubtful_is_applied(said: list[Told], unsure_s: int | None) -> None:
    """What is applied without asking is the only thing that the deliveries can mean."""
    until = None if unsure_s is None else NOON + timedelta(seconds=unsure_s)
    coalesced = coalesce(incoming(said), can_ask=True, unsure_until=until)
    if isinstance(coalesced.event, Refetch):
        assert coalesced.event.external_id == "007"  # as the source calls it
        return
    kinds = {kind for kind, _, _ in said}
    assert "refetch" not in kinds
    assert kinds == {"delete"} or "delete" not in kinds
    if kinds == {"delete"}:
        assert until is None or coalesced.kept.delivery.received_at > until
    else:
        newest = max(version for _, version, _ in said if version is not None)
        assert coalesced.kept.version == Version.of(newest)
        contents = {told if kind == "upsert" else None for kind, version, told in said if version == newest}
        assert contents == {content_of(coalesced.event)}


@given(VERSIONED)
def test_a_notification_only_makes_up_for_all_others(said: list[Told]) -> None:
    coalesced = coalesce(incoming([*said, ("refetch", None, 0)]), can_ask=True, unsure_until=None)
    assert coalesced.event == Refetch("007")
    assert len(coalesced.superseded) == len(said)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([("upsert", 1, 1), ("upsert", 2, 2)], 2),
        ([("upsert", 2, 2), ("upsert", 1, 1)], 2),
        ([("upsert", 2, 1), ("upsert", 2, 2)], 2),  # of equal versions the later
        ([("upsert", 6, 6), ("delete", None, 0), ("upsert", 5, 5)], None),  # came late, and is gone all the same
        ([("upsert", 5, 5), ("delete", None, 0), ("upsert", 6, 6)], 6),  # came back
        ([("delete", None, 0), ("upsert", 1, 1)], 1),
        ([("upsert", None, 1), ("delete", None, 0)], None),
        ([("upsert", 5, 5), ("versioned", 7, 0), ("upsert", 6, 6)], None),  # older than the delete, and late
        ([("upsert", 5, 5), ("versioned", 7, 0), ("upsert", 8, 8)], 8),
        ([("upsert", 8, 8), ("versioned", 7, 0)], 8),  # the delete is older, and late
        ([("versioned", 7, 0), ("delete", None, 0), ("upsert", 6, 6)], None),
    ],
)
def test_what_counts_without_a_source_to_ask(said: list[Told], expected: int | None) -> None:
    assert content_of(coalesce(incoming(said), can_ask=False, unsure_until=None).event) == expected


@pytest.mark.parametrize(
    "said",
    [
        [("upsert", 2, 1), ("upsert", 2, 2)],
        [("upsert", 6, 6), ("delete", None, 0)],
        [("delete", None, 0), ("upsert", 6, 6)],
        [("upsert", 1, 1), ("refetch", None, 0), ("upsert", 2, 2)],
        [("upsert", 2, 2), ("versioned", 2, 0)],
    ],
)
def test_where_deliveries_contradict_each_other_the_source_is_asked(said: list[Told]) -> None:
    assert coalesce(incoming(said), can_ask=True, unsure_until=None).event == Refetch("007")


@pytest.mark.parametrize("kind", ["upsert", "delete"])
@pytest.mark.parametrize(("until_s", "asks"), [(None, False), (-1, False), (0, True), (5, True)])
def test_what_came_before_a_full_sync_ended_and_has_no_version_is_asked_for(
    kind: str,
    until_s: int | None,
    asks: bool,  # noqa: FBT001 - parametrised
) -> None:
    until = None if until_s is None else NOON + timedelta(seconds=until_s)
    coalesced = coalesce(incoming([(kind, None, 1)]), can_ask=True, unsure_until=until)
    assert isinstance(coalesced.event, Refetch) == asks


def test_without_a_source_to_ask_what_came_during_a_full_sync_is_applied() -> None:
    coalesced = coalesce(incoming([("upsert", None, 1)]), can_ask=False, unsure_until=NOON + timedelta(hours=1))
    assert content_of(coalesced.event) == 1
