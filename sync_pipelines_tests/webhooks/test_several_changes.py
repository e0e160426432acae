"""Several changes in one delivery: each is kept, applied and tried again by itself."""

from __future__ import annotations

from typing import Any

import pytest

from sync_pipelines.engine.changes import Delete, Ignore, Upsert
from sync_pipelines.engine.results import ItemResult
from sync_pipelines.errors import ItemError, TargetError, WebhookRejectedError
from sync_pipelines_tests.webhooks.conftest import make_job, receiving

pytestmark = pytest.mark.each_database
BODY = [{"sku": "A", "n": 1}, {"gone": "B"}, {"ignored": True}, {"sku": "C", "n": 3}]


def parse(event: Any) -> Any:
    """A change of each event in the body, as HubSpot, Xero and Akeneo send several."""
    for each in event.body:
        if "gone" in each:
            yield Delete(each["gone"])
        else:
            yield Ignore("not ours") if "ignored" in each else Upsert(each)


def test_each_change_is_a_delivery_of_its_own(database_url: str) -> None:
    with receiving(database_url, make_job(parse=parse, delivery_id="X-Id")) as client:
        reply = client.post("stock", BODY, {"X-Id": "e-1"})
        rows = client.rows()
        assert (reply.status, reply.document) == (
            202, {"delivery": rows[0].id, "deliveries": [row.id for row in rows]}
        )  # fmt: skip
        assert [(row.kind, row.external_id) for row in rows] == [("upsert", "A"), ("delete", "B"), ("upsert", "C")]
        assert [row.payload is None for row in rows] == [False, True, True]
        assert rows[0].delivery_id == "e-1"
        again = client.post("stock", BODY, {"X-Id": "e-1"})
        assert (again.status, again.document) == (200, reply.document)
        other = client.post("stock", BODY[:2], {"X-Id": "e-1"})
        assert (other.status, len(client.rows())) == (202, 5), "the same name with another body is another delivery"


def test_without_a_name_each_request_is_stored(sqlite_url: str) -> None:
    with receiving(sqlite_url, make_job(parse=parse)) as client:
        assert [client.post("stock", BODY).status for _ in range(2)] == [202, 202]
        assert len(client.rows()) == 6


@pytest.mark.parametrize("body", [[], [{"ignored": True}] * 2])
def test_of_none_or_none_but_ignored_ones_nothing_is_stored(sqlite_url: str, body: Any) -> None:
    with receiving(sqlite_url, make_job(parse=parse)) as client:
        reply = client.post("stock", body)
        assert (reply.status, reply.document) == (200, {"ignored": "not ours" if body else ""})
        assert client.rows() == []


def test_one_that_is_no_change_waits_with_its_reason_and_stops_no_other(sqlite_url: str) -> None:
    body = [{"sku": "A"}, {"no": "id"}, {"sku": "C"}]
    with receiving(sqlite_url, make_job(parse=lambda event: event.body)) as client:
        assert client.post("stock", body).status == 202
        rows = client.rows()
        assert [(row.kind, row.external_id, row.item) for row in rows] == [
            ("upsert", "A", '{"sku":"A"}'), ("event", None, "1"), ("upsert", "C", '{"sku":"C"}')
        ]  # fmt: skip
        assert rows[1].payload == rows[0].payload is not None


def test_what_parse_rejects_half_way_is_rejected_as_a_whole(sqlite_url: str) -> None:
    def rejecting(event: Any) -> Any:
        yield event.body[0]
        raise WebhookRejectedError("the second is not valid")

    async def slowly(event: Any) -> Any:
        for each in event.body:
            yield each

    with receiving(sqlite_url, make_job(parse=rejecting), make_job("slowly", parse=slowly)) as client:
        assert client.post("stock", BODY).status == 422
        assert client.rows() == []
        assert client.post("slowly", [{"sku": "A"}, {"sku": "B"}]).status == 202
        assert [row.external_id for row in client.rows("slowly")] == ["A", "B"]


class TestInline:
    def test_each_has_its_outcome_and_only_what_failed_is_applied_when_it_is_sent_again(
        self, database_url: str
    ) -> None:
        applied: list[str] = []
        bad = {"C"}

        def apply(_job: Any, change: Any) -> Any:
            sku = change.item["sku"] if isinstance(change, Upsert) else change.external_id
            if sku in bad:
                raise ItemError("stock must not be negative", external_id=sku)
            applied.append(sku)
            return ItemResult("updated", sku)

        job = make_job(mode="inline", parse=parse, delivery_id="X-Id")
        with receiving(database_url, job, apply=apply) as client:
            reply = client.post("stock", BODY, {"X-Id": "e-1"})
            numbers = [row.id for row in client.rows()]
            assert (reply.status, reply.document) == (
                422,
                {
                    "error": "1 of 3 changes failed",
                    "changes": [
                        {"action": "updated", "external_id": "A", "delivery": numbers[0]},
                        {"action": "updated", "external_id": "B", "delivery": numbers[1]},
                        {"error": "stock must not be negative", "external_id": "C"},
                    ],
                },
            )
            bad.clear()
            assert client.post("stock", BODY, {"X-Id": "e-1"}).status == 200
            assert applied == ["A", "B", "C"]
            assert [row.state for row in client.rows()] == ["applied"] * 3

    def test_a_target_that_goes_away_half_way_has_the_sender_try_again(self, sqlite_url: str) -> None:
        def apply(_job: Any, change: Any) -> Any:
            if not isinstance(change, Upsert):
                raise TargetError("away")
            return ItemResult("updated", "A")

        with receiving(sqlite_url, make_job(mode="inline", parse=parse), apply=apply) as client:
            assert client.post("stock", BODY).status == 503
            assert [row.external_id for row in client.rows()] == ["A"]
