"""Fingerprints what a plan was made for: it must not be applied to another target or by another declaration."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.runner.calls.target_driver import FUNCTIONS


def fingerprint_of(job: SyncJob[Any, Any]) -> str:
    """Returns the fingerprint of target and declaration: a plan that was made for others must not be applied."""
    if job.target is None:
        target: Any = [(name, _named(getattr(job, name))) for name in FUNCTIONS]
    else:
        target = [type(job.target).__qualname__]
        if hasattr(job.target, "identity"):
            target += job.target.identity()
    ids = [_named(each) for each in (job.get_external_id, job.get_version)]
    return sha256(repr([job.name, job.deletes, ids, target]).encode()).hexdigest()


def _named(given: str | Callable[..., Any] | None) -> str:
    if given is None or isinstance(given, str):
        return repr(given)
    return f"function {getattr(given, '__qualname__', type(given).__qualname__)}"
