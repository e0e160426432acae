"""The keys of a sync's assets."""

import re

from dagster import AssetKey

from sync_pipelines.engine.declaration import AnyJob

_NO_NAME = re.compile(r"[^A-Za-z0-9_]+")


def as_name(text: str) -> str:
    """Returns what Dagster takes as the name of a group, or as a part of a key that is also a name of its own."""
    name = _NO_NAME.sub("_", text)
    return name if name.strip("_") else "unknown"


def asset_key(job: AnyJob) -> AssetKey:
    """Returns the key of the asset that a sync keeps up to date."""
    return AssetKey(job.asset_path.split("/"))


def source_key(job: AnyJob) -> AssetKey:
    """Returns the key of the external asset that a sync reads."""
    return AssetKey(job.source_path.split("/"))


def upstream_keys(job: AnyJob) -> list[AssetKey]:
    """Returns the keys of the further assets that a sync reads, whoever writes them."""
    return [AssetKey(key.split("/")) for key in job.upstream]


def read_keys(job: AnyJob) -> list[AssetKey]:
    """Returns the keys of all assets that a sync reads."""
    return [source_key(job), *upstream_keys(job)]
