"""`RunRules`: what decides about every item of a run, handed on as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from sync_pipelines.database.versions import Versions
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.calls.target_driver import TargetDriver
from sync_pipelines.runner.context.workspace import Workspace
from sync_pipelines.runner.decide.conflict_check import ConflictCheck
from sync_pipelines.runner.decide.delete_delay import DeleteDelay, delete_delay_of
from sync_pipelines.runner.decide.limits import Limits, limits_of
from sync_pipelines.runner.decide.stale_check import StaleCheck
from sync_pipelines.snapshots.store import RunFiles


@dataclass(frozen=True, slots=True)
class RunRules:
    """Holds what decides about the items of one run: the same for its diff and for its writing.

    Args:
        stale_check: Keeps older items from overwriting newer records; None for a job without `get_version`.
        limits: What a whole run may change by itself; None where nothing is limited.
        delete_delay: Which missing records are to be deleted now; None for all.
        conflict_check: Refuses what has changed since a plan was made; None for a plan of the run itself.
    """

    job: SyncJob[Any, Any]
    driver: TargetDriver
    stale_check: StaleCheck | None = None
    limits: Limits | None = None
    delete_delay: DeleteDelay | None = None
    conflict_check: ConflictCheck | None = None

    @staticmethod
    def for_changes(
        job: SyncJob[Any, Any],
        driver: TargetDriver,
        versions: Versions | None,
        conflict_check: ConflictCheck | None = None,
    ) -> RunRules:
        """Returns the rules for changes that are no whole fetch: nothing is limited, and nothing is missing.

        Args:
            versions: The ledger's watermarks; None where there is no ledger.
        """
        has_versions = job.get_version is not None
        stale_check = StaleCheck(job, versions, driver) if versions is not None and has_versions else None
        return RunRules(job, driver, stale_check, conflict_check=conflict_check)

    def for_fetch(self, workspace: Workspace, run_id: str, files: RunFiles, *, is_dry: bool = False) -> RunRules:
        """Returns the same rules with those for a whole fetch: limits, and when a missing record is deleted.

        Args:
            is_dry: True for a run that only plans: missed fetches are not counted.
        """
        with workspace.ledger.together():
            limits = limits_of(self.job, workspace, run_id, files, self.driver)
            delay = delete_delay_of(self.job, workspace, run_id, is_dry=is_dry, suspects_fetch=limits.suspects_fetch)
        return replace(self, limits=limits, delete_delay=delay)

    def within(self, connection: Connection | None) -> RunRules:
        """Returns the same rules, with watermarks kept in that transaction."""
        stale_check = self.stale_check.within(connection) if self.stale_check is not None else None
        return replace(self, stale_check=stale_check)
