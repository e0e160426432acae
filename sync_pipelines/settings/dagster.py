"""What Dagster's own variables say."""

from __future__ import annotations

import os


def has_dagster_home() -> bool:
    """Returns True if `DAGSTER_HOME` names the folder of a Dagster."""
    return bool(os.environ.get("DAGSTER_HOME"))


def job_of_this_run() -> str | None:
    """Returns the Dagster job that this process was launched to run; None if its launcher does not say."""
    return os.environ.get("DAGSTER_RUN_JOB_NAME")
