"""The receiver: every answer it gives, and that none with 2xx is given before the inbox has the delivery."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_pipelines.database.ledger import Ledger
from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.webhook_handshakes import Handshake
from sync_pipelines.engine.webhook_signatures import BearerToken, StandardWebhooks
from sync_pipelines.engine.webhooks import WebhookEvent
from sync_pipelines.errors import ConfigurationError, ItemError, TargetError, WebhookRejectedError
from sync_pipelines.webhooks.interpreter import delivery_name, kept_headers
from sync_pipelines.webhooks.rate_limit import Rate
from sync_pipelines.webhooks.receiver import hooks_of
from sync_pipelines_tests.webhooks.conftest import Client, make_job, receiving, updated

ITEM = {"sku": "A-1", "quantity": 5}


class TestStored:
    def test_a_delivery_is_stored_and_answered_with_its_number(self, client: Client) -> None:
        reply = client.post("stock", ITEM, {"X-Shop": "north", "X-Shop-Token": "s3cret", "Cookie": "a=b"})
        [row] = client.rows()
        assert (reply.status, reply.document) == (202, {"delivery": row.id})
        assert (row.kind, row.external_id, row.state, row.attempts) == ("upsert", "A-1", "waiting", 0)
        assert (json.loads(row.item or ""), row.payload, row.delivery_id) == (ITEM, None, None)
        assert row.headers == {"content-type": "application/json", "x-shop": "north"}

    def test_without_a_name_every_request_is_a_delivery_of_its_own(self, client: Client) -> None:
        numbers = [client.post("stock", ITEM).document["delivery"] for _ in range(2)]
        assert [row.id for row in client.rows()] == numbers

    @pytest.mark.parametrize("by", ["X-Delivery", lambda event: event.body["event"]])
    def test_a_repeated_delivery_is_stored_once(self, database_url: str, by: Any) -> None:
        with receiving(database_url, make_job(delivery_id=by), make_job("other", delivery_id=by)) as client:
            body = {**ITEM, "event": "e-1"}
            first, again = (client.post("stock", body, {"X-Delivery": "e-1"}) for _ in range(2))
            other = client.post("other", body, {"X-Delivery": "e-1"})
            assert [each.status for each in (first, again, other)] == [202, 200, 202]
            assert first.document == again.document != other.document
            [row] = client.rows()
            assert row.delivery_id == "e-1"

    def test_a_repeated_delivery_that_comes_at_the_same_time_is_stored_once(self, database_url: str) -> None:
        with receiving(database_url, make_job(delivery_id="X-Delivery")) as client:
            requests = [("stock", {**ITEM, "n": n % 7}, {"X-Delivery": f"e-{n % 7}"}) for n in range(70)]
            replies = client.together(requests)
            assert sorted(each.status for each in replies) == [200] * 63 + [202] * 7
            numbers = {row.delivery_id: row.id for row in client.rows()}
            assert len(numbers) == 7
            assert [each.document["delivery"] for each in replies] == [numbers[f"e-{n % 7}"] for n in range(70)]

    def test_deliveries_keep_the_order_in_which_they_came(self, database_url: str) -> None:
        with receiving(database_url, make_job(delivery_id="X-Delivery")) as client:
            client.together([("stock", {**ITEM, "n": n}, {"X-Delivery": str(n)} if n % 3 else {}) for n in range(300)])
            assert [json.loads(row.item or "")["n"] for row in client.rows()] == list(range(300))

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/vnd.shop+json",
            'application/json;charset="utf8"',
            "application/json;charset=ISO-8859-1",
            "application/vnd.api+json",
            "application/cloudevents+json; charset=utf-8",
            "application/cloudevents-batch+json",
            "text/plain",
            "text/plain;charset=latin-1",
            "Text/JSON",
            "",
        ],
    )  # fmt: skip
    def test_json_by_any_name_is_taken(self, client: Client, content_type: str) -> None:
        assert client.post("stock", ITEM, {"content-type": content_type}).status == 202

    @pytest.mark.parametrize(
        "content_type", ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLEncoded; x=y"]
    )
    def test_the_json_in_a_form_is_taken_as_github_sends_it(self, sqlite_url: str, content_type: str) -> None:
        """Its signature is that of the form; what is kept to be parsed again is the JSON."""
        body = {"sku": "Größe & Co", "quantity": 5}
        raw = urlencode({"payload": json.dumps(body), "other": "x"}).encode()
        jobs = make_job(), make_job("later", parse=lambda event: event.body["nothing"])
        with receiving(sqlite_url, *jobs) as client:
            for job in ("stock", "later"):
                assert client.post(job, raw, {"content-type": content_type}).status == 202
            assert json.loads(client.rows()[0].item or "") == body
            assert json.loads(client.rows("later")[0].payload or "") == body
            refused = client.post("stock", b"webhook_id=7", {"content-type": content_type})
            assert (refused.status, refused.document["error"]) == (422, "the form has no field 'payload' with the JSON")

    @pytest.mark.parametrize(
        "value", [0, -0.5, 10**4_000, "\x00", "Größe \U0001f600", None, [1, {"a": []}], {"$": "enum", "v": 1}]
    )  # fmt: skip
    def test_any_value_of_json_comes_back_from_the_inbox(self, database_url: str, value: Any) -> None:
        from sync_pipelines.engine.codec import decode

        with receiving(database_url, make_job(max_body_bytes=10_000)) as client:
            assert client.post("stock", {"sku": "A\x00", "value": value}).status == 202
            [row] = client.rows()
            assert decode(row.item or "") == {"sku": "A\x00", "value": value}


class TestRefused:
    def test_an_unknown_name_is_not_found(self, client: Client) -> None:
        for path in ("/webhooks/nobody", "/webhooks/", "/webhooks", "/webhooks/stock/", "/webhooks/a/b", "/"):
            assert client.send("POST", path, [(b"content-type", b"application/json")], [b"{}"]).status == 404, path

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "X"])
    def test_other_methods_are_not_allowed(self, client: Client, method: str) -> None:
        reply = client.send(method, "/webhooks/stock")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")

    def test_a_wrong_token_is_refused_before_anything_is_told(self, client: Client, token: Mapping[str, str]) -> None:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"content-type": "text/plain"}):
            reply = client.post("secret", b"no json", headers)
            assert (reply.status, reply.document) == (401, {"error": "the signature is missing, wrong or expired"})
        assert client.post("secret", ITEM, token).status == 202
        twice = [(b"authorization", token["authorization"].encode())] * 2
        assert client.send("POST", "/webhooks/secret", twice, [b'{"sku":"A"}']).status == 401
        assert len(client.rows("secret")) == 1

    @pytest.mark.parametrize(
        ("length", "chunks"),
        [
            ("2001", [b"{}"]),
            ("9" * 50, [b"{}"]),
            ("2", [b"x" * 2_001]),
            (None, [b"x" * 500] * 5),
            ("-1", [b"x" * 3_000]),
        ],
    )
    def test_a_large_body_is_refused_whatever_its_length_is_said_to_be(
        self, client: Client, length: str | None, chunks: list[bytes]
    ) -> None:
        headers = [] if length is None else [(b"content-length", length.encode())]
        reply = client.send("POST", "/webhooks/stock", headers, chunks)
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert reply.document["error"] == "the body is larger than 2000 bytes"
        assert client.rows() == []

    def test_a_body_of_the_largest_size_is_taken_in_any_chunks(self, client: Client) -> None:
        raw = json.dumps({"sku": "A", "fill": ""}).encode()
        raw = raw.replace(b'""', b'"' + b"x" * (2_000 - len(raw)) + b'"')
        chunks = [raw[start : start + 100] for start in range(0, 2_000, 100)]
        assert client.send("POST", "/webhooks/stock", [], chunks).status == 202

    @pytest.mark.parametrize(
        "content_type",
        ["text/html", "text/plainer", "multipart/form-data", "application/xml", "json", "a/b+json", "application/+json",
         "application/json" + " " * 100 + "x", ";", "\xff"],
    )  # fmt: skip
    def test_what_is_not_json_by_its_name_is_refused(self, client: Client, content_type: str) -> None:
        assert client.post("stock", ITEM, {"content-type": content_type}).status == 415

    @pytest.mark.parametrize(
        ("raw", "told"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"[1]", "the body is a JSON array; send one object"),
            (b"null", "the body is a JSON null"),
            (b'{"quantity": 5}', "no field 'sku'; it has: quantity"),
            (b'{"sku": null}', "no external id"),
            (b'{"sku": true}', "the external id is a bool"),
            (b'{"sku": "\\ud800"}', "not Unicode"),
            (b'{"sku": "A", "x": "\\udfff"}', "not Unicode"),
            (b'{"sku": "' + b"x" * 1_001 + b'"}', "the external id has 1,001 bytes; 1,000 are allowed"),
            (b'{"sku": "A", "x": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply"),
        ],
    )
    def test_a_body_that_is_no_event_is_refused_with_the_reason(self, client: Client, raw: bytes, told: str) -> None:
        reply = client.post("stock", raw)
        assert reply.status == 422
        assert told in reply.document["error"]
        assert client.rows() == []

    def test_a_sender_that_hangs_up_gets_no_answer(self, client: Client) -> None:
        assert client.send("POST", "/webhooks/stock", [], []).status == 0
        assert client.rows() == []


class TestRate:
    def test_above_its_rate_the_sender_is_asked_to_wait(self, sqlite_url: str) -> None:
        with receiving(sqlite_url, make_job(max_per_s=3), make_job("other")) as client:
            replies = [client.post("stock", ITEM) for _ in range(5)]
            statuses = [each.status for each in replies]
            assert statuses[:3] == [202] * 3, "as many as in a second may come at once"
            assert 429 in statuses
            refused = replies[statuses.index(429)]
            assert (refused.headers["retry-after"], refused.document["error"]) == (
                "1",
                "more than 3 deliveries a second",
            )
            assert client.post("other", ITEM).status == 202

    def test_a_rate_refills_evenly(self) -> None:
        now = [100.0]
        rate = Rate(2, lambda: now[0])
        assert [rate.wait_s() for _ in range(3)] == [0, 0, 1]
        now[0] += 0.5
        assert [rate.wait_s() for _ in range(2)] == [0, 1]
        now[0] += 1_000
        assert [rate.wait_s() for _ in range(3)] == [0, 0, 1]

    def test_less_than_one_in_a_second_says_how_long_to_wait(self) -> None:
        rate = Rate(0.1, lambda: 5.0)
        assert [rate.wait_s(), rate.wait_s()] == [0, 10]
        assert {Rate(None).wait_s() for _ in range(1_000)} == {0}


def endless(event: WebhookEvent) -> Any:
    return endless(event)


class TestParse:
    def stored(self, url: str, parse: Any, body: Any = ITEM, **job: Any) -> tuple[Any, Any]:
        with receiving(url, make_job(parse=parse, **job)) as client:
            reply = client.post("stock", body, {"x-event": "changed"})
            rows = client.rows()
            assert len(rows) == (1 if reply.status == 202 else 0)
            return reply, (rows[0] if rows else None)

    def test_a_change_is_stored_with_what_was_sent(self, sqlite_url: str) -> None:
        async def parse(event: WebhookEvent) -> Any:
            await asyncio.sleep(0)
            assert event.headers["x-event"] == "changed"
            assert event.received_at.tzinfo is not None
            return {"sku": event.body["sku"].lower()}

        _, row = self.stored(sqlite_url, parse)
        assert (row.kind, row.external_id, row.item) == ("upsert", "a-1", '{"sku":"a-1"}')
        assert json.loads(row.payload) == ITEM
        assert row.headers["x-event"] == "changed"

    def test_an_async_external_id_is_waited_for(self, sqlite_url: str) -> None:
        async def identify(item: Any) -> str:
            await asyncio.sleep(0)
            return f"no-{item['sku']}"

        _, row = self.stored(sqlite_url, None, get_external_id=identify)
        assert row.external_id == "no-A-1"

    def test_a_delete_keeps_the_id(self, sqlite_url: str) -> None:
        _, row = self.stored(sqlite_url, lambda _: Delete(7))  # type: ignore[arg-type]
        assert (row.kind, row.external_id, row.item) == ("delete", "7", None)

    def test_a_refetch_is_stored_if_the_job_can_fetch_one(
        self, sqlite_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, row = self.stored(sqlite_url, lambda _: Refetch("A"))
        assert row.kind == "event"
        assert "Refetch needs a fetch_one" in caplog.text
        able = make_job("thin", parse=lambda _: Refetch("A"))
        object.__setattr__(able, "fetch_one", dict)
        with receiving(sqlite_url, able) as client:
            assert client.post("thin", {}).status == 202
            assert client.rows("thin")[0].kind == "refetch"

    def test_what_is_ignored_is_not_stored(self, sqlite_url: str) -> None:
        reply, _ = self.stored(sqlite_url, lambda _: Ignore("not ours"))
        assert (reply.status, reply.document) == (200, {"ignored": "not ours"})
        reply, _ = self.stored(sqlite_url, lambda _: None)
        assert (reply.status, reply.document) == (200, {"ignored": ""})

    def test_what_parse_rejects_is_told_to_the_sender(self, sqlite_url: str) -> None:
        def parse(_event: Any) -> Any:
            raise WebhookRejectedError("topic 'orders' is not ours")

        reply, _ = self.stored(sqlite_url, parse)
        assert (reply.status, reply.document) == (422, {"error": "topic 'orders' is not ours"})

    @pytest.mark.parametrize(
        "parse",
        [
            lambda event: event.body["nothing"],
            lambda _: {"no": "sku"},
            lambda _: Upsert({"sku": "A", "x": object()}),
            lambda _: Delete(""),
            lambda _: Delete("\ud800"),
            lambda _: Delete("x" * 5_000),
            endless,
        ],
    )
    def test_a_defect_of_parse_loses_nothing(
        self, sqlite_url: str, parse: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The delivery is kept as it came, to be parsed again; and the log says so once, not each time."""
        with receiving(sqlite_url, make_job(parse=parse)) as client:
            replies = [client.post("stock", ITEM, {"x-event": "changed"}) for _ in range(3)]
            assert [each.status for each in replies] == [202] * 3
            rows = client.rows()
        assert {(row.kind, row.external_id, row.item) for row in rows} == {("event", None, None)}
        assert json.loads(rows[0].payload or "") == ITEM
        assert rows[0].headers is not None
        assert rows[0].headers["x-event"] == "changed"
        [line] = [each.message for each in caplog.records if each.levelno == logging.ERROR]
        assert "stock: parse of the webhook failed" in line

    def test_a_function_that_can_name_no_delivery_makes_it_one_of_its_own(self, sqlite_url: str) -> None:
        with receiving(sqlite_url, make_job(delivery_id=lambda event: event.body["event"]["id"])) as client:
            assert [client.post("stock", ITEM).status for _ in range(2)] == [202, 202]


class TestInline:
    def test_the_answer_says_what_became_of_the_item(self, sqlite_url: str) -> None:
        told: list[Any] = []
        job = make_job(mode="inline")
        with receiving(sqlite_url, job, apply=updated, report=lambda *given: told.append(given)) as client:
            reply = client.post("stock", ITEM)
            [row] = client.rows()
        assert (reply.status, reply.document) == (
            200, {"action": "updated", "external_id": "A-1", "delivery": row.id}
        )  # fmt: skip
        assert (row.state, row.action, row.external_id, row.attempts) == ("applied", "updated", "A-1", 1)
        assert row.finished_at is not None
        assert [(given[0].name, given[1].action) for given in told] == [("stock", "updated")]

    def test_a_repeated_delivery_is_not_applied_again(self, sqlite_url: str) -> None:
        """It is older than what has come since."""
        applied: list[Any] = []

        def apply(job: Any, change: Any) -> Any:
            applied.append(change)
            return updated(job, change)

        with receiving(sqlite_url, make_job(mode="inline", delivery_id="X-Delivery"), apply=apply) as client:
            replies = [client.post("stock", ITEM, {"X-Delivery": "1"}) for _ in range(2)]
        assert [each.status for each in replies] == [200, 200]
        assert replies[0].document == replies[1].document
        assert len(applied) == 1

    def test_a_failed_item_is_told_with_its_id_and_may_be_sent_again(self, sqlite_url: str) -> None:
        def apply(_job: Any, _change: Any) -> Any:
            raise ItemError("stock must not be negative", external_id="A-1")

        with receiving(sqlite_url, make_job(mode="inline", delivery_id="X-Delivery"), apply=apply) as client:
            reply = client.post("stock", ITEM, {"X-Delivery": "1"})
            assert (reply.status, reply.document) == (
                422, {"error": "stock must not be negative", "external_id": "A-1"}
            )  # fmt: skip
            assert client.rows() == []

    @pytest.mark.parametrize("error", [TargetError("gone"), ConfigurationError("no such table"), ZeroDivisionError()])
    def test_a_target_that_is_away_has_the_sender_try_again(self, sqlite_url: str, error: Exception) -> None:
        def apply(_job: Any, _change: Any) -> Any:
            raise error

        with receiving(sqlite_url, make_job(mode="inline"), apply=apply) as client:
            reply = client.post("stock", ITEM)
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
            assert client.rows() == []

    def test_a_report_that_fails_is_not_the_senders_matter(
        self, sqlite_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def report(*_: Any) -> None:
            raise OSError("no Dagster")

        with receiving(sqlite_url, make_job(mode="inline"), apply=updated, report=report) as client:
            assert client.post("stock", ITEM).status == 200
        assert "the report failed: OSError: no Dagster" in caplog.text

    def test_what_cannot_be_parsed_waits_in_the_inbox(self, sqlite_url: str) -> None:
        with receiving(sqlite_url, make_job(mode="inline", parse=lambda event: event.body["x"])) as client:
            assert client.post("stock", ITEM).status == 202
            assert client.rows()[0].kind == "event"

    def test_too_many_at_once_are_asked_to_come_again(self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sync_pipelines.webhooks.inline.WAITING_AT_MOST", 2)
        with receiving(sqlite_url, make_job(mode="inline"), apply=updated) as client:
            statuses = [each.status for each in client.together([("stock", ITEM, {})] * 5)]
        assert sorted(statuses) == [200, 200, 503, 503, 503]

    def test_what_takes_too_long_is_answered_in_time(self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        monkeypatch.setattr("sync_pipelines.webhooks.inline.TIMEOUT_S", 0.05)
        go_on = threading.Event()

        def apply(job: Any, change: Any) -> Any:
            go_on.wait(10)
            return updated(job, change)

        with receiving(sqlite_url, make_job(mode="inline"), apply=apply) as client:
            try:
                assert client.post("stock", ITEM).status == 503
            finally:
                go_on.set()


class TestLedgerAway:
    def test_a_ledger_that_cannot_be_opened_means_try_again(
        self, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        url = f"postgresql://me:hunter22@/db?host={tmp_path}"
        with receiving(url, make_job()) as client:
            for _ in range(3):
                reply = client.post("stock", ITEM)
                assert (reply.status, reply.headers["retry-after"]) == (503, "5")
                assert reply.document == {"error": "the delivery can't be stored now"}
            assert client.send("GET", "/readyz").status == 503
            assert client.send("GET", "/healthz").status == 200
        assert caplog.text.count("deliveries are refused with status 503") == 1
        assert "hunter22" not in caplog.text

    def test_a_ledger_that_does_not_answer_is_not_waited_for_long(self, sqlite_url: str) -> None:
        """Another process holds the lock of the file."""
        with receiving(sqlite_url, make_job(), answers_within_s=0.1) as client:
            assert client.post("stock", ITEM).status == 202
            with client.inbox()._ledger.database.begin():
                assert client.post("stock", ITEM).status == 503
            assert client.post("stock", ITEM).status == 202
            assert len(client.rows()) == 2


class TestMetrics:
    def test_deliveries_and_the_inbox_are_counted(self, client: Client) -> None:
        client.post("stock", ITEM)
        client.post("stock", b"no")
        client.post("secret", ITEM)
        client.post("nobody", ITEM)
        reply = client.send("GET", "/metrics")
        text = reply.body.decode()
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'sync_pipelines_webhook_deliveries_total{status="202",webhook="stock"} 1.0' in text
        assert 'sync_pipelines_webhook_deliveries_total{status="422",webhook="stock"} 1.0' in text
        assert 'sync_pipelines_webhook_deliveries_total{status="401",webhook="secret"} 1.0' in text
        assert 'sync_pipelines_webhook_deliveries_total{status="404",webhook=""} 1.0' in text
        assert "sync_pipelines_webhook_store_seconds_count 1.0" in text
        assert 'sync_pipelines_inbox_waiting{job="stock"} 1.0' in text
        assert 'sync_pipelines_inbox_waiting{job="secret"} 0.0' in text
        assert 'sync_pipelines_inbox_failed{job="stock"} 0.0' in text
        assert float(text.partition('inbox_oldest_waiting_seconds{job="stock"} ')[2].partition("\n")[0]) >= 0
        assert "sync_pipelines_ledger_up 1.0" in text

    def test_they_answer_without_the_ledger(self, tmp_path: Any) -> None:
        with receiving(f"postgresql://me@/db?host={tmp_path}", make_job()) as client:
            text = client.send("GET", "/metrics").body.decode()
        assert "sync_pipelines_ledger_up 0.0" in text
        assert "inbox_waiting{" not in text

    def test_health_says_who_lives_and_who_is_ready(self, client: Client) -> None:
        assert client.send("GET", "/healthz").document == {"status": "alive"}
        assert client.send("GET", "/readyz").document == {"status": "ready"}
        assert client.send("POST", "/readyz").status == 405

    def test_a_ledger_of_another_version_is_not_ready(self, client: Client) -> None:
        assert client.send("GET", "/readyz").status == 200
        ledger: Ledger = client.inbox()._ledger
        with ledger.transaction() as connection:
            connection.exec_driver_sql("UPDATE sync_alembic_version SET version_num = '9999'")
        assert client.send("GET", "/readyz").status == 503


class TestSetUp:
    def test_what_is_wrong_with_one_webhook_stops_no_other(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A secret that is missing or bad, or a name that two have. Its sender is asked to come again."""
        monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
        monkeypatch.setenv("BAD_SECRET", "whsec_not*base64")
        twin = make_job("b")
        assert twin.webhook is not None
        jobs = [
            make_job("missing", StandardWebhooks("NO_SUCH_SECRET")),
            make_job("bad", StandardWebhooks("BAD_SECRET")),
            make_job("token", handshakes=Handshake.meta("NO_SUCH_SECRET")),
            make_job("a"),
            replace(twin, webhook=replace(twin.webhook, name="a")),
            make_job("good"),
        ]
        problems = {name: hook.problem for name, hook in hooks_of(jobs).items()}
        assert problems["good"] is None
        assert "variable NO_SUCH_SECRET is not set" in str(problems["missing"])
        assert "variable BAD_SECRET of the webhook of sync job 'bad' holds no secret" in str(problems["bad"])
        assert "NO_SUCH_SECRET" in str(problems["token"])
        assert "'a' and 'b' are both named 'a'" in str(problems["a"])
        with receiving(sqlite_url, *jobs) as client:
            replies = {name: client.post(name, ITEM) for name in problems}
            assert {name: reply.status for name, reply in replies.items()} == {
                **dict.fromkeys(problems, 503), "good": 202
            }  # fmt: skip
            assert replies["bad"].headers["retry-after"] == "60"

    def test_a_name_of_its_own_is_the_path(self, sqlite_url: str) -> None:
        job = make_job()
        assert job.webhook is not None
        named = replace(job, webhook=replace(job.webhook, name="shop.v1"))
        with receiving(sqlite_url, named) as client:
            assert [client.post(name, ITEM).status for name in ("shop.v1", "stock")] == [202, 404]
            assert len(client.rows("stock")) == 1

    def test_jobs_without_a_webhook_are_left_out(self) -> None:
        assert hooks_of([]) == {}

    def test_it_can_be_mounted(self, sqlite_url: str) -> None:
        with receiving(sqlite_url, make_job()) as client:
            pairs = [(b"content-type", b"application/json")]
            path = "/sync/webhooks/stock"
            assert client.send("POST", path, pairs, [b'{"sku":"A"}'], root_path="/sync").status == 202
            assert client.send("GET", "/sync/healthz", root_path="/sync").status == 200


def test_only_a_few_refusals_a_second_are_logged(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [7.0]
    monkeypatch.setattr("sync_pipelines.webhooks.receiver.time.monotonic", lambda: now[0])
    for _ in range(30):
        client.send("POST", "/webhooks/x\ny?token=abc", [])
    now[0] += 1
    client.send("POST", "/webhooks/nobody", [])
    lines = [each.message for each in caplog.records]
    assert len(lines) == 12
    assert lines[-2] == "20 more were refused in that second"
    assert all("\n" not in line for line in lines)


def test_names_of_deliveries_fit_into_any_database() -> None:
    assert [delivery_name(each) for each in ("  a ", 7, "", None, True, 1.5, [])] == [
        "a", "7", None, None, None, None, None,
    ]  # fmt: skip
    for odd in ("x" * 10_000, "\x00", "\ud800", "a\nb", 10**5_000):
        name = delivery_name(odd)
        assert name is not None
        assert len(name) == 71
        assert name == delivery_name(odd)


def test_no_secret_is_kept() -> None:
    headers = {
        "content-type": "application/json", "webhook-id": "1", "webhook-timestamp": "2", "x-github-event": "push",
        "x-shopify-topic": "products/update", "x-long": "x" * 5_000,
        "webhook-signature": "s", "x-hub-signature-256": "s", "x-shopify-hmac-sha256": "s", "authorization": "s",
        "cookie": "s", "x-api-key": "s", "x-auth": "s", "x-mine": "s", "x-forwarded-for": "s", "user-agent": "s",
    }  # fmt: skip
    kept = kept_headers(headers, frozenset({"x-mine"}))
    assert set(kept) == {
        "content-type", "webhook-id", "webhook-timestamp", "x-github-event", "x-shopify-topic", "x-long",
    }  # fmt: skip
    assert len(kept["x-long"]) == 1_000
    assert len(kept_headers({f"x-{n}": "" for n in range(100)})) == 30


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
bodies = (
    st.binary(max_size=100)
    | json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: json.dumps({"sku": value}).encode("utf-8", "surrogatepass"))
    | st.sampled_from([b"[" * 1_500, b"1" * 1_900, b'{"sku": 1e999}', b'{"sku": "\\u0000"}', b"\xef\xbb\xbf{}"])
)
header_names = st.sampled_from(
    [b"content-type", b"content-length", b"authorization", b"x-delivery", b"expect", b"transfer-encoding", b"x-\xff"]
)
header_values = st.binary(max_size=40) | st.sampled_from([b"application/json", b"0", b"99999", b"-1", b"100-continue"])


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sent=st.tuples(
        st.sampled_from(["POST"] * 9 + ["GET", "\u20ac"]),
        st.sampled_from(["stock", "secret", "named"]) | st.text(max_size=5),
        st.lists(st.tuples(header_names, header_values), max_size=6),
    ),
    raw=bodies,
    size=st.integers(1, 60),
)
def test_nothing_that_a_client_sends_is_an_error_of_ours_and_nothing_unstored_is_acknowledged(
    fuzzed: Client, sent: tuple[str, str, Any], raw: bytes, size: int
) -> None:
    method, name, headers = sent
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)] or [b""]
    before = sum(len(fuzzed.rows(job)) for job in ("stock", "secret", "named"))
    reply = fuzzed.send(method, f"/webhooks/{name}", headers, chunks)
    after = sum(len(fuzzed.rows(job)) for job in ("stock", "secret", "named"))
    assert reply.status in {200, 202, 401, 404, 405, 413, 415, 422}
    assert after - before == (1 if reply.status == 202 else 0)
    if reply.status == 200:
        assert "ignored" in reply.document or fuzzed.inbox().show(reply.document["delivery"]) is not None
    assert "secret" not in name or reply.status != 202


@pytest.fixture
def fuzzed(database_url: str, token: Mapping[str, str]) -> Any:
    jobs = (
        make_job(max_body_bytes=2_000),
        make_job("secret", BearerToken("HOOK_TOKEN")),
        make_job("named", delivery_id="X-Delivery", parse=lambda event: event.body["sku"] and event.body),
    )
    with receiving(database_url, *jobs) as client:
        yield client
