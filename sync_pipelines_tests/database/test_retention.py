"""The ledger forgets old runs, and only those."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sync_pipelines.database.batches import Batches, BatchKey
from sync_pipelines.database.ledger import ErrorRow, Ledger, RunRow, open_ledger

AT = datetime(2024, 5, 6, tzinfo=UTC)


def remember(ledger: Ledger, run_id: str, job: str, days: int) -> None:
    ledger.start_run(RunRow(run_id, job, "full", None, options={}, started_at=AT + timedelta(days=days)))
    ledger.save_diff_errors(run_id, [ErrorRow(0, "A-1", "ValueError", "no")])
    Batches(ledger).save(run_id, BatchKey(number=0), {"created": 1}, [], AT)


def test_old_runs_go_with_their_errors_and_chunks_but_the_newest_of_each_sync_stays(database_url: str) -> None:
    with open_ledger(database_url) as ledger:
        for run_id, job, days in (("a1", "a", 0), ("a2", "a", 1), ("a3", "a", 50), ("b1", "b", 0), ("b2", "b", 1)):
            remember(ledger, run_id, job, days)

        assert ledger.forget_runs(AT + timedelta(days=10)) == 3

        assert [run.id for run in ledger.latest_runs("a")] == ["a3"]
        assert [run.id for run in ledger.latest_runs("b")] == ["b2"]
        assert ledger.count_errors("a1") == 0
        assert Batches(ledger).of_run("a1") == {}
        assert ledger.count_errors("b2") == 1
        assert ledger.forget_runs(AT + timedelta(days=10)) == 0
