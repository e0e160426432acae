"""What the tests of failures are written with: a source that changes, a target that refuses, a clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sync_pipelines.database.failure_rows import FailureRow
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.retry import Retry
from sync_pipelines.runner.changes.retry_failures import RetryRun
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.testing import MemorySource, MemoryTarget
from sync_pipelines_tests.runner.desk import Clock

REFUSED = ValueError("the shop refuses this")


class FailingShop:
    """One sync job, whose runs go by a clock that the test moves.

    Args:
        workspace: Has the ledger.
        clock: The time.
    """

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self.clock = clock
        self.workspace = replace(workspace, clock=clock)
        self.target = MemoryTarget()
        self.items: dict[str, Any] = {}
        self.asked: list[str] = []
        self.fields: dict[str, Any] = {"retry": Retry(attempts=3, first_wait_s=60)}

    def put(self, *skus: str, stock: int = 1, **more: Any) -> None:
        """Has the source give these items."""
        self.items.update({sku: {"sku": sku, "stock": stock, **more} for sku in skus})

    def refuse(self, *skus: str, error: Exception = REFUSED) -> None:
        """Has the target refuse these items."""
        self.target.fails.update(dict.fromkeys(skus, error))

    def accept(self, *skus: str) -> None:
        """Has the target take these items again."""
        for sku in skus:
            del self.target.fails[sku]

    def can_be_asked(self) -> None:
        """Gives the job a `fetch_one`."""

        def fetch_one(external_id: str) -> Any:
            self.asked.append(external_id)
            return self.items.get(external_id)

        self.fields["fetch_one"] = fetch_one

    @property
    def job(self) -> SyncJob[Any, Any]:
        given: dict[str, Any] = {
            "name": "stock",
            "fetch_external": MemorySource(list(self.items.values())),
            "get_external_id": "sku",
            "target": self.target,
        }
        return SyncJob(**{**given, **self.fields})

    def run(self, **selection: Any) -> SyncResults:
        """A run of a minute."""
        self.clock.advance(30)
        run = SyncRun(self.job, self.workspace)
        results = run.apply(run.diff(run.fetch(**selection)))
        assert results.accounts_balance
        self.clock.advance(30)
        return results

    def retry(self, *external_ids: str, **options: Any) -> SyncResults:
        """A retry run."""
        results = RetryRun(self.job, self.workspace).run(external_ids, **options)
        assert results.accounts_balance
        return results

    def failure(self, sku: str) -> FailureRow:
        """The failure of an item."""
        found = self.workspace.failures.of_item("stock", sku)
        assert found is not None
        return found

    def states(self) -> dict[str | None, str]:
        """The state of each failure by external id."""
        found = self.workspace.failures.newest("stock", ("open", "given up", "resolved"), 1_000)
        return {each.external_id: each.state for each in found}
