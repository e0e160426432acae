"""This engine as a Dagster job, in process: from the start of its first step to the end of the run."""

from __future__ import annotations

import os
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance

from benchmarks.contestants.own import build_job, build_warm_up_job, report_of, settings_of
from benchmarks.task import Report, Run, Task
from sync_pipelines import SyncResults
from sync_pipelines.orchestration.build import build_definitions

_ENDS = (DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE)


def prepare(task: Task) -> Run:
    """Builds the definitions, opens a Dagster instance on disk, and lets a first run load what is imported late."""
    results: list[SyncResults] = []
    job, warm_up = build_job(task, results.append), build_warm_up_job(task)
    os.environ["SYNC_PIPELINES_DATA_DIR"] = str(settings_of(task).data_dir)
    definitions = build_definitions([job, warm_up])
    home = Path(task.folder) / "dagster"
    home.mkdir()
    instance = DagsterInstance.local_temp(str(home))
    definitions.resolve_job_def(warm_up.dagster_name).execute_in_process(instance=instance)

    def run() -> Report:
        done = definitions.resolve_job_def(job.dagster_name).execute_in_process(instance=instance)
        (result,) = results
        report = report_of(result)
        return Report(report.counts, report.errors, _work_s(instance, done.run_id))

    return run


def _work_s(instance: DagsterInstance, run_id: str) -> float:
    began = [entry.timestamp for entry in instance.all_logs(run_id, of_type=DagsterEventType.STEP_START)]
    ended = [entry.timestamp for entry in instance.all_logs(run_id, of_type=set(_ENDS))]
    return max(ended) - min(began)
