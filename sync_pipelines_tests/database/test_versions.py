"""The ledger's versions: one per record and job, whatever the id."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.database.versions import Versions


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with open_ledger(database_url) as opened:
        yield opened


@pytest.fixture
def versions(ledger: Ledger) -> Versions:
    return Versions(ledger)


def test_a_version_takes_the_place_of_the_one_before(versions: Versions) -> None:
    versions.keep("stock", {"A": "n:1", "B": "n:1"})
    versions.keep("stock", {"A": "n:2"})
    assert versions.known("stock", ["A", "B", "C"]) == {"A": "n:2", "B": "n:1"}


def test_each_job_has_its_own(versions: Versions) -> None:
    versions.keep("stock", {"A": "n:1"})
    versions.keep("prices", {"A": "n:2"})
    assert versions.known("stock", ["A"]) == {"A": "n:1"}
    assert versions.known("names", ["A"]) == {}


@pytest.mark.parametrize(
    "external_id", ["x" * 200, "x" * 201, "é" * 5_000, "a\x00b", "\U0001f600", '["a", 1]', "' OR 1=1"]
)
def test_every_id_is_found_again_and_no_other(versions: Versions, external_id: str) -> None:
    versions.keep("stock", {external_id: "n:1"})
    assert versions.known("stock", [external_id, external_id[:-1], external_id + "x"]) == {external_id: "n:1"}


def test_thousands_are_kept_and_found_at_once(versions: Versions) -> None:
    given = {f"A{number}": f"n:{number}" for number in range(2_500)}
    versions.keep("stock", given)
    assert versions.known("stock", list(given)) == given


def test_nothing_to_keep_or_to_look_for_is_fine(versions: Versions) -> None:
    versions.keep("stock", {})
    assert versions.known("stock", []) == {}


def test_they_are_kept_in_the_transaction_that_is_handed_in(ledger: Ledger, versions: Versions) -> None:
    with ledger.database.connect() as connection:
        versions.keep("stock", {"A": "n:1"}, connection)
        connection.rollback()
    assert versions.known("stock", ["A"]) == {}
    with ledger.transaction() as connection:
        versions.keep("stock", {"A": "n:1"}, connection)
    assert versions.known("stock", ["A"]) == {"A": "n:1"}
