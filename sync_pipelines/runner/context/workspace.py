"""Opens what a run works with besides its job: the ledger, the snapshot store, the clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sync_pipelines.database.batches import Batches
from sync_pipelines.database.connections import Limits
from sync_pipelines.database.data_versions import DataVersions
from sync_pipelines.database.failures import Failures
from sync_pipelines.database.history import History
from sync_pipelines.database.inbox import Inbox
from sync_pipelines.database.leases import Leases
from sync_pipelines.database.ledger import Ledger, open_ledger
from sync_pipelines.database.missed_fetches import MissedFetches
from sync_pipelines.database.plans import Plans
from sync_pipelines.database.source_parts import SourceParts
from sync_pipelines.database.versions import Versions
from sync_pipelines.engine.retry import Retry
from sync_pipelines.settings.model import Settings, load_settings
from sync_pipelines.snapshots.store import SnapshotStore

_BEYOND_LEASE_S = 10.0
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Returns the time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Workspace:
    """Holds the ledger, the snapshot store and the clock of a run.

    Args:
        keep_snapshots: How long files of past runs stay.
        keep_runs: How long the ledger knows a run.
        keep_deliveries: How long the inbox knows a delivery that was applied or has failed.
        lease: How long a run that died or stalled keeps others of its sync from starting.
        wait_s: Seconds that a run started by Dagster waits for another one of its sync.
        work_schema: Schema of staging tables in a target's database.
        idle_wait_s: Seconds that a drain waits for late arrivals.
        keep_plans: How long a plan can be applied; by default as long as files of past runs stay.
    """

    ledger: Ledger
    store: SnapshotStore
    keep_snapshots: timedelta
    keep_runs: timedelta = timedelta(days=365)
    keep_deliveries: timedelta = timedelta(days=30)
    lease: timedelta = timedelta(seconds=60)
    wait_s: float = 900.0
    work_schema: str = "sync_pipelines_work"
    clock: Clock = utc_now
    retries: Retry = Retry(first_wait_s=10)
    idle_wait_s: float = 5.0
    keep_plans: timedelta | None = None

    @property
    def leases(self) -> Leases:
        """Returns the ledger's leases."""
        return Leases(self.ledger)

    @property
    def inbox(self) -> Inbox:
        """Returns the ledger's inbox."""
        return Inbox(self.ledger)

    @property
    def failures(self) -> Failures:
        """Returns the ledger's failures."""
        return Failures(self.ledger)

    @property
    def versions(self) -> Versions:
        """Returns the ledger's watermarks."""
        return Versions(self.ledger)

    @property
    def history(self) -> History:
        """Returns the history of the records."""
        return History(self.ledger)

    @property
    def batches(self) -> Batches:
        """Returns the written batches of runs."""
        return Batches(self.ledger)

    @property
    def plans(self) -> Plans:
        """Returns the plans of dry runs."""
        return Plans(self.ledger)

    @property
    def missed_fetches(self) -> MissedFetches:
        """Returns the missed fetches of records."""
        return MissedFetches(self.ledger)

    @property
    def data_versions(self) -> DataVersions:
        """Returns the data versions of the syncs' targets."""
        return DataVersions(self.ledger)

    @property
    def source_parts(self) -> SourceParts:
        """Returns what syncs have fetched of their sources."""
        return SourceParts(self.ledger)

    def plan_expires_at(self) -> datetime:
        """Returns when a plan that is made now expires."""
        return self.clock() + (self.keep_plans or self.keep_snapshots)

    def clean_up(self) -> None:
        """Removes files of runs, runs, plans and deliveries that are older than the settings keep them."""
        while self.forget_old():
            pass
        self.remove_files(self.expire_plans())

    def forget_old(self) -> bool:
        """Removes a part of the runs, deliveries and resolved failures that are older than the settings keep them.

        Returns:
            True if there may be more.
        """
        with self.ledger.together():
            self.ledger.forget_runs(self.clock() - self.keep_runs)
            self.failures.purge(self.clock() - self.keep_runs)
            return self.inbox.purge(self.clock() - self.keep_deliveries)

    def expire_plans(self) -> set[str]:
        """Marks plans that have expired, and forgets old ones; gives those that can still be applied."""
        return self.plans.clean_up(self.clock(), self.clock() - self.keep_runs)

    def remove_files(self, keep: Collection[str]) -> None:
        """Removes files of runs that are older than the settings keep them, but those of plans that can be applied."""
        self.store.remove_older_than((self.clock() - self.keep_snapshots).timestamp(), keep)


@contextmanager
def open_workspace(settings: Settings | None = None, clock: Clock = utc_now) -> Iterator[Workspace]:
    """Opens the workspace that the settings describe.

    Args:
        settings: By default those of the environment.
    """
    settings = settings or load_settings()
    limits = Limits(**settings.database_limits())
    if limits.idle_s:  # its transactions are quick, and whoever stops in one keeps others from their lease
        limits = replace(limits, idle_s=min(limits.idle_s, settings.lease_s + _BEYOND_LEASE_S))
    with open_ledger(settings.ledger_database_url(), limits=limits) as ledger:
        yield Workspace(
            ledger,
            SnapshotStore(settings.snapshot_dir(), settings.work_dir()),
            keep_snapshots=timedelta(days=settings.keep_snapshots_days),
            keep_runs=timedelta(days=settings.keep_runs_days),
            keep_deliveries=timedelta(days=settings.keep_deliveries_days),
            lease=timedelta(seconds=settings.lease_s),
            wait_s=settings.wait_s,
            work_schema=settings.work_schema,
            clock=clock,
            retries=Retry(settings.delivery_attempts, settings.delivery_first_wait_s),
            idle_wait_s=settings.idle_wait_s,
            keep_plans=timedelta(days=settings.keep_plans_days) if settings.keep_plans_days else None,
        )
