"""What the fields of a `SyncJob` must be like that say how Dagster shows it, starts it, and what it reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sync_pipelines.engine.wrong_field import wrong_field as _wrong

AUTOMATIONS = ("eager", "on_change")
"""The conditions that have a name in job files, which import nothing of Dagster."""

_KEY_PART = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_PART_OF_OTHERS = re.compile(r"[\w.-]+")
"""Keys of other people's assets are what their tools make of them: names with `-`, `.` and `__` among them."""
_GROUP = re.compile(r"[A-Za-z0-9_]+")
# What Dagster takes, said when the declaration is made instead of when all definitions fail to load.
_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_MAX_KINDS = 3
_OWN_TAGS = re.compile(r"sync(/.*)?")
_OWN_OP_TAGS = re.compile(r"kind")


def check_presentation(job: Any) -> None:
    """Checks the keys, texts, labels and tags that Dagster shows, the assets that are read, and the automation.

    Args:
        job: A `SyncJob` whose fields may still hold anything, whatever its annotations promise.

    Raises:
        ConfigurationError: One is wrong; the message names job and field.
    """
    if job.asset_key is not None and not _is_key(job.asset_key):
        told = "must be at least two words joined by '/', such as 'shop/variants': letters, digits and single '_'"
        raise _wrong(job, "asset_key", f"{job.asset_key!r} {told}")
    if job.source_asset is not None and not _is_key_of_others(job.source_asset):
        raise _wrong(job, "source_asset", f"{job.source_asset!r} must be an asset's key, its parts joined by '/'")
    if job.asset_key is not None and job.asset_key == job.source_asset:
        raise _wrong(job, "source_asset", f"{job.source_asset!r} is the asset_key as well; a sync can't read itself")
    if not isinstance(job.group, str) or not _GROUP.fullmatch(job.group):
        raise _wrong(job, "group", f"{job.group!r} must be letters, digits and '_'")
    if not isinstance(job.description, str):
        raise _wrong(job, "description", f"{job.description!r} must be text")
    _check_labels(job)
    _check_upstream(job)
    _check_automation(job)
    _check_free_tags(job, "run_tags", _OWN_TAGS)
    _check_free_tags(job, "op_tags", _OWN_OP_TAGS)


def _is_key(key: object) -> bool:
    """Returns True for two words or more: one alone would be a graph's name in Dagster, where jobs have theirs too."""
    parts = key.split("/") if isinstance(key, str) else []
    return len(parts) > 1 and all(_KEY_PART.fullmatch(part) for part in parts)


def _is_key_of_others(key: object) -> bool:
    return isinstance(key, str) and all(_PART_OF_OTHERS.fullmatch(part) for part in key.split("/"))


def _check_labels(job: Any) -> None:
    for name in ("owners", "kinds"):
        value = getattr(job, name)
        if not isinstance(value, (list, tuple)) or not all(isinstance(label, str) for label in value):
            raise _wrong(job, name, f"{value!r} must be a list of texts")
    for owner in job.owners:
        if not _OWNER.fullmatch(owner):
            raise _wrong(job, "owners", f"{owner!r} must be an e-mail address or 'team:name'")
    if len(job.kinds) > _MAX_KINDS or not all(kind and _TAG_VALUE.fullmatch(kind) for kind in job.kinds):
        raise _wrong(job, "kinds", f"{job.kinds!r} must be up to three words of letters, digits, '_', '.' and '-'")
    if not isinstance(job.tags, Mapping) or not all(
        isinstance(key, str) and _TAG_KEY.fullmatch(key) and isinstance(value, str) and _TAG_VALUE.fullmatch(value)
        for key, value in job.tags.items()
    ):
        raise _wrong(
            job,
            "tags",
            f"{job.tags!r} must map texts to texts, each up to 63 letters, digits, '_', '.' and '-'; longer ones, "
            "of runs alone, belong into run_tags",
        )


def _check_upstream(job: Any) -> None:
    if not isinstance(job.upstream, (list, tuple)):
        raise _wrong(job, "upstream", f"{job.upstream!r} must be a list of asset keys: ['warehouse/products']")
    taken = {
        job.asset_path: "is the sync's own asset; a sync can't read itself",
        job.source_path: "is the source_asset already; name it once",
    }
    for key in job.upstream:
        if not _is_key_of_others(key):
            raise _wrong(job, "upstream", f"{key!r} must be an asset's key, its parts joined by '/'")
        if key in taken:
            raise _wrong(job, "upstream", f"{key!r} {taken[key]}")
        taken[key] = "is named twice; name it once"


def _check_automation(job: Any) -> None:
    automation = job.automation
    if automation is None:
        return
    if job.schedule is not None:
        raise _wrong(job, "automation", "a job has a schedule or an automation, not both; leave one out")
    if isinstance(automation, str) and automation in AUTOMATIONS:
        if not job.upstream and job.source_asset is None:
            raise _wrong(
                job, "automation", f"{automation!r} waits for another asset, and none is named; name it in upstream"
            )
    elif not _is_condition(automation):
        named = " or ".join(map(repr, AUTOMATIONS))
        raise _wrong(job, "automation", f"{automation!r} must be {named}, or a Dagster AutomationCondition")


def _is_condition(value: object) -> bool:
    """Returns True for an `AutomationCondition`, by its name: a declaration does not wait for Dagster's import."""
    return any(
        kind.__name__ == "AutomationCondition" and kind.__module__.partition(".")[0] == "dagster"
        for kind in type(value).__mro__
    )


def _check_free_tags(job: Any, name: str, own: re.Pattern[str]) -> None:
    tags = getattr(job, name)
    if not isinstance(tags, Mapping):
        raise _wrong(job, name, f"{tags!r} must map texts to texts, or to what JSON can say")
    for key, value in tags.items():
        if not isinstance(key, str) or not _TAG_KEY.fullmatch(key):
            raise _wrong(job, name, f"{key!r} must be up to 63 letters, digits, '_', '.' and '-', as 'team/queue' is")
        if own.fullmatch(key):
            raise _wrong(job, name, f"{key!r} is a tag that every sync has, with a value of its own; name another")
        if not isinstance(value, str) and not _is_json(value):
            # its value is not shown: what configures a container may hold a secret
            raise _wrong(job, name, f"{key!r} has a {type(value).__name__}; give text, or what JSON can say")


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
