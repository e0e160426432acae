"""Removes old runs from Dagster's history, which keeps them for ever.

`python -m sync_pipelines.orchestration.old_runs --days 90`, once a day, where `DAGSTER_HOME` is set as for Dagster.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from sync_pipelines.orchestration.tags import KIND_TAG, MIXED_TAG, SYNC_TAG

_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_PAGE = 500
_SCHEDULE_TAG = "dagster/schedule_name"  # Dagster's own, on every run that a schedule starts


def delete_old_runs(instance: DagsterInstance, before: datetime, *, is_dry: bool = False) -> int:
    """Deletes the runs of syncs that ended before a moment, with their events and what they printed.

    Runs of others stay, and of syncs those that Dagster still needs: whatever is under way, the newest run of each job
    and of each schedule, and the run of the last materialisation or observation of each asset.

    Args:
        instance: Where the runs are.
        before: Runs that have changed since then stay.
        is_dry: True to delete nothing.

    Returns:
        The number of runs that were deleted, or would have been.
    """
    old = list(_old_runs(instance, before))
    needed = _last_of_assets(instance) | _newest(instance, old)
    done = [run.run_id for run in old if run.run_id not in needed]
    for run_id in done if not is_dry else ():
        _delete(instance, run_id)
    return len(done)


def _old_runs(instance: DagsterInstance, before: datetime) -> Iterator[DagsterRun]:
    filters, cursor = RunsFilter(statuses=_ENDED, updated_before=before), None
    while records := instance.get_run_records(filters, limit=_PAGE, cursor=cursor, ascending=True):
        cursor = records[-1].dagster_run.run_id
        yield from (record.dagster_run for record in records if _is_of_a_sync_alone(record.dagster_run))


def _is_of_a_sync_alone(run: DagsterRun) -> bool:
    """Returns True for a run whose tags are ours, and in which nobody else had anything done."""
    return SYNC_TAG in run.tags and KIND_TAG in run.tags and MIXED_TAG not in run.tags


def _newest(instance: DagsterInstance, old: list[DagsterRun]) -> set[str]:
    """Returns the newest run of each job and schedule; by that of a schedule, the next one knows what is due."""
    filters = [RunsFilter(job_name=name) for name in {run.job_name for run in old}]
    schedules = {run.tags[_SCHEDULE_TAG] for run in old if _SCHEDULE_TAG in run.tags}
    filters += [RunsFilter(tags={_SCHEDULE_TAG: name}) for name in schedules]
    return {record.dagster_run.run_id for each in filters for record in instance.get_run_records(each, limit=1)}


def _last_of_assets(instance: DagsterInstance) -> set[str]:
    """Returns the runs without which an asset would look as if it had never been written, and its data new."""
    found: set[str] = set()
    for key in instance.get_asset_keys():
        last = [*instance.fetch_materializations(key, limit=1).records]
        last += instance.fetch_observations(key, limit=1).records
        found |= {record.run_id for record in last}
    return found


def _delete(instance: DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    path_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if path_of is not None:  # with SQLite each run has a file, which Dagster empties and leaves as large as it is
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{path_of(run_id)}{end}").unlink()


def main() -> None:
    """Deletes what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m sync_pipelines.orchestration.old_runs", description=__doc__)
    parser.add_argument("--days", type=_days, required=True, help="delete runs of syncs that ended so many days ago")
    parser.add_argument("--dry-run", action="store_true", help="say how many that would be, and delete none")
    given = parser.parse_args()
    with DagsterInstance.get() as instance:
        count = delete_old_runs(instance, datetime.now(UTC) - timedelta(days=given.days), is_dry=given.dry_run)
    sys.stdout.write(f"{count:,} runs {'would be ' if given.dry_run else ''}deleted\n")


def _days(text: str) -> float:
    days = float(text)
    if not days > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return days


if __name__ == "__main__":
    main()
