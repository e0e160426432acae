"""What Dagster's own variables say."""

from __future__ import annotations

import os


def has_dagster_home() -> bool:
    """Returns True if `DAGSTER_HOME` names the folder of a Dagster."""
    return bool(os.environ.get("DAGSTER_HOME"))
