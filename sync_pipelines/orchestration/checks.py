"""The checks of a sync's asset: accounts, failed items, what is withheld, drift of the source, freshness."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    MetadataValue,
    multi_asset_check,
)

from sync_pipelines.database.failure_rows import UNRESOLVED
from sync_pipelines.database.rewritten import RewrittenColumns
from sync_pipelines.database.run_queries import RunQueries
from sync_pipelines.database.tables import DRY_RUN, FULL
from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.engine.item_shapes import PREFIX
from sync_pipelines.engine.results import SyncResults
from sync_pipelines.engine.set_back import set_back_notes
from sync_pipelines.orchestration.keys import asset_key
from sync_pipelines.orchestration.metadata import (
    Metadata,
    balance_metadata,
    drift_metadata,
    failed_metadata,
    withheld_metadata,
)
from sync_pipelines.runner.context.workspace import Workspace, open_workspace
from sync_pipelines.runner.runs.results import results_of_run

_LOOK_BACK = 100
_DRIFT_SHOWN = timedelta(days=1)
_FRESH = "is_fresh"


@dataclass(frozen=True)
class ResultCheck:
    """A check on the results of a run."""

    name: str
    description: str
    severity: AssetCheckSeverity
    passes: Callable[[SyncResults], bool]
    describe: Callable[[SyncResults], str]
    metadata: Callable[[SyncResults], Metadata]


ACCOUNTS_BALANCE = ResultCheck(
    "accounts_balance",
    "Every item that the last run fetched has exactly one outcome.",
    AssetCheckSeverity.ERROR,
    lambda results: results.accounts_balance,
    lambda results: results.summary(),
    balance_metadata,
)
ITEMS_FAILED = ResultCheck(
    "items_failed",
    "Warns when items of the last run failed, or earlier and have not succeeded since. All others are applied.",
    AssetCheckSeverity.WARN,
    lambda results: not results.error_count,
    lambda results: f"{results.error_count:,} of {results.fetched:,} items failed.",
    failed_metadata,
)


def _nothing_withheld(results: SyncResults) -> str:
    if not results.no_deletes:
        return "Nothing was withheld."
    return "Guards withheld nothing. No deletes were looked for: the run can't tell what is missing; its notes say why."


CHANGES_WITHHELD = ResultCheck(
    "changes_withheld",
    "Warns when guards withheld deletes or updates of the last run, or its fetch looked broken.",
    AssetCheckSeverity.WARN,
    lambda results: not results.guarded,
    lambda results: f"{'; '.join(results.guarded)}." if results.guarded else _nothing_withheld(results),
    withheld_metadata,
)
SOURCE_DRIFT = ResultCheck(
    "source_drift",
    "Warns for a day when fields that most items had are in few, empty, or of another type since the last good run.",
    AssetCheckSeverity.WARN,
    lambda results: not results.drift,
    lambda results: f"{'; '.join(results.drift)}." if results.drift else "The items have the fields that they had.",
    drift_metadata,
)
COLUMNS_KEPT = ResultCheck(
    "columns_kept",
    "Warns when something sets columns back that the sync writes, so that every run writes them again.",
    AssetCheckSeverity.WARN,
    lambda results: not results.set_back,
    lambda results: f"{'; '.join(results.set_back)}." if results.set_back else "No column is set back.",
    lambda _: {},
)
RESULT_CHECKS = (ACCOUNTS_BALANCE, ITEMS_FAILED, CHANGES_WITHHELD, SOURCE_DRIFT, COLUMNS_KEPT)


def build_checks(job: AnyJob) -> AssetChecksDefinition:
    """Yields the checks of a sync's asset, in one step after it. They never fail the run."""
    key = asset_key(job)
    specs = [AssetCheckSpec(each.name, asset=key, description=each.description) for each in RESULT_CHECKS]
    if job.fresh_after is not None:
        described = f"Fails when the last good run is older than {job.fresh_after}."
        specs.append(AssetCheckSpec(_FRESH, asset=key, description=described))

    @multi_asset_check(name=f"{job.dagster_name}___checks", specs=specs, can_subset=True)
    def checks(context: AssetCheckExecutionContext) -> Iterator[AssetCheckResult]:
        wanted = {each.name for each in context.selected_asset_check_keys}
        with open_workspace() as workspace:
            results, left = _results_of(workspace, job, context.run.run_id), items_left(job, workspace)
            for check in RESULT_CHECKS:
                if check.name in wanted:
                    yield _result(check, job, _looked_at(check, job, workspace, results), left)
            if _FRESH in wanted:
                yield AssetCheckResult(**freshness_of(job, workspace).reported(job))

    return checks


def _result(check: ResultCheck, job: AnyJob, results: SyncResults | None, left: int) -> AssetCheckResult:
    if results is None:
        not_yet = "The sync has not run yet."
        return AssetCheckResult(passed=True, asset_key=asset_key(job), check_name=check.name, description=not_yet)
    return AssetCheckResult(**_evaluate(check, job, results, left))


def _looked_at(
    check: ResultCheck, job: AnyJob, workspace: Workspace, results: SyncResults | None
) -> SyncResults | None:
    """Returns the results that a check is about: what is withheld stays so until it is released.

    Drift is told in one run, and a sync may have its next one in a minute; for a day the check is about that run. That
    a column is set back is known of full runs only.
    """
    if check is SOURCE_DRIFT:
        return _drifted(job, workspace) or results
    if check is COLUMNS_KEPT and results is not None:
        last = RewrittenColumns(workspace.ledger, workspace.batches).of_last_runs(job.name, 1)
        return replace(results, set_back=tuple(note for each in last for note in set_back_notes(each)))
    withheld = workspace.plans.still_withheld(job.name) if check is CHANGES_WITHHELD else None
    return results if withheld is None else results_of_run(workspace, withheld.id)


def _drifted(job: AnyJob, workspace: Workspace) -> SyncResults | None:
    """Returns the results of the newest full run of the last day that told of drift, None if there is none."""
    since = workspace.clock() - _DRIFT_SHOWN
    runs = workspace.ledger.latest_runs(job.name, limit=_LOOK_BACK)
    recent = (run for run in runs if run.kind == FULL and run.started_at >= since)
    found = next((run for run in recent if any(note.startswith(PREFIX) for note in run.notes)), None)
    return results_of_run(workspace, found.id) if found is not None else None


def evaluations(job: AnyJob, workspace: Workspace, results: SyncResults) -> Iterator[AssetCheckEvaluation]:
    """Yields all checks, for a run of single items: Dagster shows none that is older than what was written."""
    left = items_left(job, workspace)
    for check in RESULT_CHECKS:
        yield evaluation(check, job, _looked_at(check, job, workspace, results) or results, left)
    if job.fresh_after is not None:
        yield freshness_of(job, workspace).evaluation(job)


def evaluation(check: ResultCheck, job: AnyJob, results: SyncResults, left: int = 0) -> AssetCheckEvaluation:
    """Evaluates the same check, to be reported where it is no step of the run: by a drain, or by a run that fails.

    Args:
        left: How many items have failed, in whatever run, and not succeeded since.
    """
    return AssetCheckEvaluation(**_evaluate(check, job, results, left))


def items_left(job: AnyJob, workspace: Workspace) -> int:
    """Counts the unresolved failures of a sync: a run of a few items must not hide the others."""
    return workspace.failures.count(job.name, UNRESOLVED)


def _evaluate(check: ResultCheck, job: AnyJob, results: SyncResults, left: int) -> dict[str, Any]:
    others = check is ITEMS_FAILED and left > results.error_count
    rest = f" {left:,} failed items are left in all: sync-pipelines failures {job.name}" if others else ""
    return {
        "asset_key": asset_key(job),
        "check_name": check.name,
        "passed": check.passes(results) and not others,
        "severity": check.severity,
        "description": f"{check.describe(results)}{rest}",
        "metadata": check.metadata(results),
    }


@dataclass(frozen=True)
class Freshness:
    """Says how long the last good run of a sync keeps it fresh.

    Args:
        good_at: When the last good run was done; None if there was none.
        until: When it is too old, or the first run is that did not succeed; None if the sync has never run, or if
            nobody minds how old it is.
        is_fresh: True unless that is over.
    """

    good_at: datetime | None
    until: datetime | None
    is_fresh: bool

    def evaluation(self, job: AnyJob) -> AssetCheckEvaluation:
        """Evaluates the check, to be reported outside of any run."""
        return AssetCheckEvaluation(**self.reported(job))

    def reported(self, job: AnyJob) -> dict[str, Any]:
        """Returns what Dagster is told of the check."""
        return {
            "asset_key": asset_key(job),
            "check_name": _FRESH,
            "passed": self.is_fresh,
            "severity": AssetCheckSeverity.ERROR,
            "description": _freshness_text(self.good_at),
            "metadata": {} if self.good_at is None else {"last good run": MetadataValue.timestamp(self.good_at)},
        }


def freshness_of(job: AnyJob, workspace: Workspace) -> Freshness:
    """Reads whether the last good run of a sync is young enough."""
    history = RunQueries(workspace.ledger)
    good_at = history.last_good_at(job.name)
    since = good_at or history.first_started_at(job.name)  # a sync that has never run well is not fresh for ever
    until = since + job.fresh_after if since is not None and job.fresh_after is not None else None
    return Freshness(good_at, until, until is None or workspace.clock() <= until)


def _freshness_text(good_at: datetime | None) -> str:
    if good_at is None:
        return "No full run has succeeded yet."
    return f"The last full run that succeeded ended at {good_at.isoformat(timespec='seconds')}."


def _results_of(workspace: Workspace, job: AnyJob, dagster_run_id: str) -> SyncResults | None:
    """Returns the results of the Dagster run; of a run that only checks, those of the sync's last run."""
    run = workspace.ledger.run_of_dagster(dagster_run_id, job.name)
    if run is None:  # a dry run says nothing of the asset, and one that is under way nothing yet
        runs = workspace.ledger.latest_runs(job.name, limit=_LOOK_BACK)
        run = next((each for each in runs if each.kind != DRY_RUN and each.completed_at is not None), None)
    return results_of_run(workspace, run.id) if run is not None else None
