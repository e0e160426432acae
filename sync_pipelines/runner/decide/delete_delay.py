"""Delays deletes: a record is deleted once so many complete fetches in a row have been without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sync_pipelines.database.applied_since import AppliedSince
from sync_pipelines.database.missed_fetches import CountedFetch
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import RunError
from sync_pipelines.runner.context.workspace import Workspace


class DeleteDelay:
    """Says which of the missing records are to be deleted by this run, and counts their missed fetches.

    A run counts once, however often its diff is repeated. One that is older than the last that was counted only looks.
    What a kill leaves half counted errs on the side of keeping: a row counts on only from the fetch right before.

    Args:
        counts: False to look only: for a dry run, or a fetch that looks broken.
        ahead: How many missed fetches to add to those that are known, where they are not counted.
    """

    def __init__(
        self, job: SyncJob[Any, Any], workspace: Workspace, run_id: str, *, counts: bool = True, ahead: int = 0
    ) -> None:
        self._job = job
        self._workspace = workspace
        self._missed_fetches = workspace.missed_fetches
        self._run_id = run_id
        self._counts = counts
        self._ahead = ahead
        self._fetch: CountedFetch | None = None
        self._before = 0
        self._came: set[str] = set()
        self.spared = 0
        """How many missing records are not deleted yet."""

    @property
    def waits(self) -> bool:
        """True if a record is not deleted by the first fetch that is without it."""
        return self._job.delete_after > 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts missed fetches while `due` is asked about the missing records of a complete fetch."""
        self.spared = 0
        if not self.waits:
            yield
            return
        self._begin()
        yield
        if self._fetch is not None:
            self._missed_fetches.end(self._job.name, self._fetch.number)

    def _begin(self) -> None:
        latest = self._missed_fetches.latest(self._job.name)
        self._fetch, self._before = None, latest.number if latest is not None else 0
        self._came = self._came_since(latest) if latest is not None else set()
        if not self._counts:
            return
        if latest is not None and latest.run_id == self._run_id:
            self._fetch = latest
            return
        run = self._workspace.ledger.run(self._run_id)
        if run is None:
            raise RunError(f"{self._job.name}: the ledger has no run {self._run_id}")
        if latest is None or run.started_at >= latest.started_at:
            self._missed_fetches.forget_records(
                self._job.name, sorted(self._came)
            )  # first: a repeated diff does not see them
            self._fetch = CountedFetch(self._before + 1, self._run_id, run.started_at)
            self._missed_fetches.begin(self._job.name, self._fetch)

    def _came_since(self, latest: CountedFetch) -> set[str]:
        """Returns the ids of items delivered since the fetch that was counted last: they were not missing any more."""
        asks_source = self._job.fetch_one is not None
        return AppliedSince(self._workspace.ledger, self._job.name, asks_source=asks_source).item_ids(latest.started_at)

    def due(self, missing: Sequence[str]) -> list[str]:
        """Returns those of the missing records that are to be deleted now; the others are spared.

        Args:
            missing: Canonical ids, each once.
        """
        if not self.waits:
            return list(missing)
        if self._fetch is not None:
            missed_fetches = self._missed_fetches.count(self._job.name, self._fetch, missing)
        else:
            before = self._missed_fetches.known(self._job.name, self._before, missing)
            missed_fetches = {
                each: (before.get(each, 0) if each not in self._came else 0) + self._ahead for each in missing
            }
        due = [each for each in missing if missed_fetches[each] >= self._job.delete_after]
        self.spared += len(missing) - len(due)
        return due

    def notes(self) -> list[str]:
        """Returns what a person should know of the records that are spared."""
        if not self.spared:
            return []
        records, it = ("1 record is", "it") if self.spared == 1 else (f"{self.spared:,} records are", "them")
        when = f"after {self._job.delete_after:,} complete fetches in a row without {it} (delete_after)"
        return [f"{records} missing from the source and kept for now: deleted {when}"]


def delete_delay_of(
    job: SyncJob[Any, Any], workspace: Workspace, run_id: str, *, is_dry: bool = False, suspects_fetch: bool = False
) -> DeleteDelay:
    """Makes the delete delay of a job. Where missed fetches are not counted any more, the counts are forgotten.

    Args:
        is_dry: True to count nothing, and say what a run would delete.
        suspects_fetch: True for a fetch that looks broken: what it lacks may well be there.
    """
    ahead = int(is_dry and not suspects_fetch)
    delete_delay = DeleteDelay(job, workspace, run_id, counts=not is_dry and not suspects_fetch, ahead=ahead)
    if not is_dry and (job.deletes == "off" or not delete_delay.waits):
        workspace.missed_fetches.forget(job.name)
    return delete_delay
