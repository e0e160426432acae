"""A source has changed when one of its readers gets something else than it got itself before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sync_pipelines.database.ledger import open_ledger
from sync_pipelines.database.source_parts import SourceParts


@pytest.fixture
def parts(database_url: str) -> Iterator[SourceParts]:
    with open_ledger(database_url) as ledger:
        yield SourceParts(ledger)


def test_the_same_again_is_no_change(parts: SourceParts) -> None:
    first = parts.note("erp/products", "prices", "a")
    assert parts.note("erp/products", "prices", "a") == first == parts.version("erp/products")


def test_something_else_is_a_change(parts: SourceParts) -> None:
    first = parts.note("erp/products", "prices", "a")
    assert parts.note("erp/products", "prices", "b") != first


def test_readers_with_different_views_do_not_flip_it(parts: SourceParts) -> None:
    first = parts.note("erp/products", "prices", "a")
    found = [parts.note("erp/products", job, part) for _ in range(3) for job, part in (("stock", "b"), ("prices", "a"))]
    assert set(found) == {first}


def test_a_change_is_seen_by_both_once(parts: SourceParts) -> None:
    first = [parts.note("erp/products", job, "a") for job in ("prices", "stock")]
    changed = parts.note("erp/products", "stock", "b")
    assert changed not in first
    assert [parts.note("erp/products", job, part) for job, part in (("prices", "a"), ("stock", "b"))] == [changed] * 2


def test_another_source_is_another_matter(parts: SourceParts) -> None:
    first = parts.note("erp/products", "prices", "a")
    parts.note("erp/orders", "orders", "b")
    assert parts.version("erp/products") == first
    assert parts.version("erp/nothing") is None
