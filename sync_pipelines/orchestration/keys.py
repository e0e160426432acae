"""The keys of a sync's assets."""

from dagster import AssetKey

from sync_pipelines.engine.declaration import AnyJob


def asset_key(job: AnyJob) -> AssetKey:
    """Returns the key of the asset that a sync keeps up to date."""
    return AssetKey((job.asset_key or f"{job.group}/{job.dagster_name}").split("/"))


def source_key(job: AnyJob) -> AssetKey:
    """Returns the key of the external asset that a sync reads."""
    return AssetKey((job.source_asset or f"sources/{job.dagster_name}").split("/"))
