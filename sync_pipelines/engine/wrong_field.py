"""The error of a field of a `SyncJob` that is wrong."""

from __future__ import annotations

from typing import Any

from sync_pipelines.errors import ConfigurationError


def wrong_field(job: Any, name: str, problem: str) -> ConfigurationError:
    """Returns the error that names job and field; the job's other fields may hold anything, whatever they promise."""
    shown = job.name if isinstance(job.name, str) else "?"
    return ConfigurationError(f"sync job {shown!r}: {name}: {problem}", field=name)
