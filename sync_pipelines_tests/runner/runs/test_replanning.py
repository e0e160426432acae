"""What a run does when its plan is made again, when items are changed under its hands, when a target ends badly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import stamina

from sync_pipelines import RetryableError, Settings, SyncJob, TargetError, run_sync
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.runner.runs.full_run import SyncRun
from sync_pipelines.testing import MemoryTarget


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


class BreaksOff(MemoryTarget):
    """Stops answering after the first chunk."""

    chunks = 0

    def create_many(self, items: Any) -> None:
        self.chunks += 1
        if self.chunks > 1:
            raise RetryableError("down")
        super().create_many(items)


def test_a_diff_made_again_after_a_part_was_applied_leaves_nothing_out(settings: Settings) -> None:
    target = BreaksOff()
    job: SyncJob[Any, Any] = SyncJob(
        name="again",
        fetch_external=lambda: [{"id": f"A-{number}"} for number in range(2500)],
        get_external_id="id",
        target=target,
    )
    with open_workspace(settings) as workspace, stamina.set_testing(True, attempts=1):
        run = SyncRun(job, workspace)
        snapshot = run.fetch()
        with pytest.raises(TargetError):
            run.apply(run.diff(snapshot))
        assert len(target.records) == 1000
        target.chunks = -10

        results = run.apply(run.diff(snapshot))

    assert len(target.records) == 2500
    assert (results.created, results.unchanged) == (1500, 1000)
    assert results.notes == ("diffed again after a part was applied; that part counts as unchanged",)


def test_a_function_that_alters_its_item_harms_nobody(settings: Settings) -> None:
    target = MemoryTarget()

    def should_skip(item: dict[str, Any]) -> bool:
        item["extra"] = object()
        return False

    job: SyncJob[Any, Any] = SyncJob(
        name="altered",
        fetch_external=lambda: [{"id": "A-1"}, {"id": "A-2"}],
        get_external_id="id",
        target=target,
        should_skip=should_skip,
    )

    assert run_sync(job, settings=settings).created == 2
    assert set(target.records) == {"A-1", "A-2"}
    assert all("extra" not in record for record in target.records.values())


def test_a_target_learns_how_its_run_ended(settings: Settings) -> None:
    ends: list[str] = []

    class Opens:
        @contextmanager
        def open(self, _identify: Any) -> Iterator[Any]:
            try:
                yield self
            except KeyboardInterrupt:
                ends.append("rolled back")
                raise
            ends.append("committed")

        def find_local(self, _external_id: str) -> None:
            return None

        def create(self, _item: Any) -> None:
            raise KeyboardInterrupt

        def update(self, _item: Any, _local: Any) -> None: ...

    job: SyncJob[Any, Any] = SyncJob(
        name="ends", fetch_external=lambda: [{"id": "A-1"}], get_external_id="id", target=Opens()
    )

    with pytest.raises(KeyboardInterrupt):
        run_sync(job, settings=settings)
    assert ends == ["committed", "rolled back"]  # the diff, then apply


def test_the_log_of_retries_holds_no_secret(
    settings: Settings, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(_item: Any) -> None:
        raise RetryableError("postgresql://u:s3cret@host/db does not answer", retry_after_s=-1)

    job: SyncJob[Any, Any] = SyncJob(
        name="retried",
        fetch_external=lambda: [{"id": "A-1"}],
        get_external_id="id",
        find_local=lambda _: None,
        create=create,
        update=print,
    )
    with caplog.at_level(logging.DEBUG):
        results = run_sync(job, settings=settings)

    captured = capsys.readouterr()
    assert results.errors[0].message == "postgresql://u:***@host/db does not answer"
    assert "s3cret" not in caplog.text + captured.out + captured.err
